"""What can be measured of a run's network on the test set beside its score, by name: a new one is one more entry."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import nearest

__all__ = ["KINDS", "MEASURES", "NOISES", "Measure", "Quantity", "measure_names"]


@dataclass(frozen=True)
class Quantity:
    """A number of a measure.

    Attributes:
        key: in results.
        label: in tables, with its unit.
        scale: what it is multiplied by to be shown: 100 for shares in percent.
        digits: behind the decimal point.
    """

    key: str
    label: str
    scale: float = 100.0
    digits: int = 2


@dataclass(frozen=True)
class Measure:
    """A measure. It is taken of the selected epoch's weights when a run ends, and chooses nothing.

    Attributes:
        name: in a recipe, as one of ``measures``.
        what: it tells, in words.
        path: of its function, as ``module:NAME`` in :mod:`bisam_lab.measures`.
        quantities: that it returns.
        images: whether it is of images alone.
    """

    name: str
    what: str
    path: str
    quantities: tuple[Quantity, ...]
    images: bool = False


#: The corruptions of images.
KINDS = (
    *("gaussian-noise", "shot-noise", "impulse-noise", "gaussian-blur"),
    *("brightness", "contrast", "pixelate", "jpeg"),
)
#: Sizes of the noise on the weights, relative to each tensor's root mean square.
NOISES = (0.01, 0.02, 0.05, 0.1, 0.2)

#: The measures that a recipe may name.
MEASURES = {
    measure.name: measure
    for measure in (
        Measure(
            "calibration",
            "whether the probabilities are right, as they are and after one temperature fitted on validation",
            "calibration:calibration",
            (
                Quantity("ece", "ECE, 15 bins, %"),
                Quantity("nll", "negative log-likelihood", 1, 4),
                Quantity("ece_scaled", "ECE after a temperature, %"),
                Quantity("nll_scaled", "negative log-likelihood after a temperature", 1, 4),
                Quantity("temperature", "temperature", 1, 3),
            ),
        ),
        Measure(
            "corruptions",
            "accuracy on corrupted test images, mean over the severities 1, 3 and 5",
            "corruptions:corruptions",
            (
                Quantity("mean", "accuracy, all corruptions, %"),
                *(Quantity(kind, f"accuracy, {kind}, %") for kind in KINDS),
            ),
            images=True,
        ),
        Measure(
            "quantised",
            "loss and accuracy with weights rounded to 8 and to 4 bits",
            "quantised:quantised",
            (
                Quantity("loss_int8", "negative log-likelihood, int8", 1, 4),
                Quantity("accuracy_int8", "accuracy, int8, %"),
                Quantity("loss_int4", "negative log-likelihood, int4", 1, 4),
                Quantity("accuracy_int4", "accuracy, int4, %"),
            ),
        ),
        Measure(
            "forgetting",
            "accuracy lost while the network learns a second task",
            "forgetting:forgetting",
            (
                Quantity("lost", "accuracy lost on the first task, points"),
                Quantity("second", "accuracy on the second task, %"),
            ),
        ),
        Measure(
            "worst-class",
            "accuracy of the class that fares worst, and the mean over the classes",
            "worst_class:worst_class",
            (Quantity("worst", "accuracy, worst class, %"), Quantity("mean", "accuracy, mean over classes, %")),
        ),
        Measure(
            "weight-noise",
            "accuracy under Gaussian noise on the weights, mean over five draws",
            "weight_noise:weight_noise",
            tuple(Quantity(f"noise_{size:g}", f"accuracy, weights ± {100 * size:g} %, %") for size in NOISES),
        ),
    )
}


def measure_names(given: Sequence[str]) -> tuple[str, ...]:
    """Return the names of measures; ``all`` stands for each.

    Raises:
        ValueError: there is no such measure.
    """
    names = dict.fromkeys(name for one in given for name in (MEASURES if one == "all" else (one,)))
    for name in names:
        if name not in MEASURES:
            raise ValueError(f"{name!r} is none of {', '.join(MEASURES)}, all{nearest(name, MEASURES)}")
    return tuple(names)
