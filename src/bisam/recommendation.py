"""What to use for a budget, in one line: the best of what was measured on the frontier of accuracy against cost."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ._validation import finite

__all__ = ["Gain", "Recommendation", "recommend"]


class Gain(NamedTuple):
    """Points of test accuracy above SGD, a mean over paired seeds with its 95 % interval.

    Attributes:
        setting: the data, and whether their labels were noisy or clean.
        tuned: the radius, or SGD's learning rate, that was the best on validation.
        mean: of the differences to SGD with its usual number of epochs.
        low: lower end of the interval.
        high: upper end of the interval.
    """

    setting: str
    tuned: str
    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.1f} [{self.low:+.1f}, {self.high:+.1f}] points on {self.setting} ({self.tuned})"


@dataclass(frozen=True)
class Recommendation:
    """What to use.

    Example:
        >>> import bisam
        >>> bisam.recommend(2.0).passes <= 2.0
        True

    Attributes:
        call: what to write around the optimizer ``base``.
        passes: of a whole training, as a multiple of SGD's.
        gains: above SGD with its usual number of epochs, one for each setting that was measured.
    """

    call: str
    passes: float
    gains: tuple[Gain, ...]

    def __str__(self) -> str:
        return f"{self.call}: {self.passes:.2f} x the passes of SGD; {', '.join(map(str, self.gains))}"


def recommend(budget: float, labels: Literal["clean", "noisy"] | None = None) -> Recommendation:
    """Return the method with the largest mean gain that was measured within a budget; ``print`` it.

    The numbers are those of ``docs/frontier.md``: small images, equal tuning, paired fresh seeds. They are no promise
    for other data, and the best of several measured means is a little too good. SGD for longer is among the choices.

    Example:
        >>> print(recommend(1.2).call.partition("(")[0])
        MomentumSAM

    Args:
        budget: what a training may cost, as a multiple of SGD's passes, >= 1.
        labels: those of the training set: ``"clean"``, or ``"noisy"`` where many are wrong; None is the mean of both.

    Raises:
        ValueError: a budget below 1, or other labels.
    """
    finite("budget", budget)
    if budget < 1:
        raise ValueError(f"budget={budget!r} must be 1 or more: it is a multiple of what SGD costs")
    if labels not in ("clean", "noisy", None):
        raise ValueError(f"labels={labels!r} must be 'clean', 'noisy' or None")
    found = [each for each in _recommendations(labels) if each.passes <= budget + TOLERANCE]
    return max(found, key=lambda each: (sum(gain.mean for gain in each.gains), -each.passes))


def _recommendations(labels: str | None) -> Iterator[Recommendation]:
    """Yield what was measured in every setting with such labels."""
    settings = [name for name in dict.fromkeys(row[0] for row in _MEASURED) if labels is None or name.endswith(labels)]
    for call in dict.fromkeys(row[1] for row in _MEASURED):
        rows = [row for row in _MEASURED if row[1] == call and row[0] in settings]
        if len(rows) == len(settings):
            yield Recommendation(call, max(row[2] for row in rows), tuple(Gain(row[0], *row[3:]) for row in rows))


#: A training of whole epochs, with a whole number of steps in its tail, meets a budget only nearly.
TOLERANCE = 0.05
#: Setting, what one writes, passes, the tuned number, and the gain with its interval; ``make tables`` writes it from
#: the results.
_MEASURED: tuple[tuple[str, str, float, str, float, float, float], ...] = (
    # table: measured
    ("digits-noisy", "base", 1.0, "lr 0.2", 0.0, 0.0, 0.0),
    ("digits-noisy", "base, for 1.2 times the epochs", 1.2, "lr 0.0125", -1.32, -4.55, 1.91),
    ("digits-noisy", "base, for 1.5 times the epochs", 1.5, "lr 0.0125", -0.64, -3.64, 2.37),
    ("digits-noisy", "base, for 2 times the epochs", 2.0, "lr 0.0125", -1.02, -4.11, 2.06),
    ("digits-noisy", "SAM(base, model=model)", 2.0, "rho 0.4", 6.55, 3.96, 9.14),
    ("digits-noisy", "SAM(base, model=model), for 0.5 times the epochs", 1.0, "rho 0.4", 5.7, 3.16, 8.23),
    ("digits-noisy", "SAM(base, model=model), for 0.75 times the epochs", 1.5, "rho 0.4", 6.11, 3.7, 8.52),
    ("digits-noisy", "BiSAM(base, model=model)", 2.0, "rho 0.4", 6.45, 4.17, 8.73),
    ("digits-noisy", "TailSAM(base, model=model, total_steps=steps, tail=0.2)", 1.2, "rho 0.1", -0.47, -2.98, 2.04),
    ("digits-noisy", "TailSAM(base, model=model, total_steps=steps, tail=0.4)", 1.4, "rho 1.6", 1.26, -1.97, 4.48),
    ("digits-noisy", "LookSAM(base, model=model)", 1.2, "rho 0.05", 5.73, 2.72, 8.74),
    ("digits-noisy", "SAM(base, model=model) with bisam.loops.SubBatch(0.25)", 1.25, "rho 0.8", 6.21, 4.0, 8.43),
    ("digits-noisy", "BiSAM(base, model=model, cadence=Tail(steps, 0.2))", 1.2, "rho 0.1", -0.47, -2.98, 2.04),
    ("digits-noisy", "MomentumSAM(base, model=model)", 1.0, "rho 3.2", 7.87, 5.71, 10.04),
    ("digits-noisy", "AsyncSAM(base, model=model)", 1.0, "rho 0.8", 4.84, 2.54, 7.14),
    ("digits-clean", "base", 1.0, "lr 0.1", 0.0, 0.0, 0.0),
    ("digits-clean", "base, for 1.2 times the epochs", 1.2, "lr 0.4", 0.72, -0.26, 1.7),
    ("digits-clean", "base, for 1.5 times the epochs", 1.5, "lr 0.2", 0.89, 0.01, 1.77),
    ("digits-clean", "base, for 2 times the epochs", 2.0, "lr 0.1", 0.07, -1.07, 1.2),
    ("digits-clean", "SAM(base, model=model)", 2.0, "rho 0.2", 0.17, -0.65, 0.99),
    ("digits-clean", "SAM(base, model=model), for 0.5 times the epochs", 1.0, "rho 0.05", -0.37, -1.29, 0.56),
    ("digits-clean", "SAM(base, model=model), for 0.75 times the epochs", 1.5, "rho 0.05", -0.12, -1.18, 0.94),
    ("digits-clean", "BiSAM(base, model=model)", 2.0, "rho 0.1", 0.67, 0.13, 1.21),
    ("digits-clean", "TailSAM(base, model=model, total_steps=steps, tail=0.2)", 1.2, "rho 0.2", 0.0, 0.0, 0.0),
    ("digits-clean", "TailSAM(base, model=model, total_steps=steps, tail=0.4)", 1.4, "rho 0.4", 0.3, -0.36, 0.96),
    ("digits-clean", "LookSAM(base, model=model)", 1.2, "rho 0.025", -0.35, -0.91, 0.2),
    ("digits-clean", "SAM(base, model=model) with bisam.loops.SubBatch(0.25)", 1.25, "rho 0.4", 0.27, -1.06, 1.59),
    ("digits-clean", "BiSAM(base, model=model, cadence=Tail(steps, 0.2))", 1.2, "rho 0.2", 0.0, 0.0, 0.0),
    ("digits-clean", "MomentumSAM(base, model=model)", 1.0, "rho 0.8", 0.02, -1.16, 1.19),
    ("digits-clean", "AsyncSAM(base, model=model)", 1.0, "rho 0.2", 0.92, 0.06, 1.79),
    ("fashion-noisy", "base", 1.0, "lr 0.4", 0.0, 0.0, 0.0),
    ("fashion-noisy", "base, for 1.2 times the epochs", 1.2, "lr 0.4", -0.72, -1.36, -0.08),
    ("fashion-noisy", "base, for 2 times the epochs", 2.0, "lr 0.1", -4.7, -6.22, -3.19),
    ("fashion-noisy", "SAM(base, model=model)", 2.0, "rho 0.2", 0.74, -0.52, 2.0),
    ("fashion-noisy", "SAM(base, model=model), for 0.5 times the epochs", 1.07, "rho 0.1", -0.36, -1.57, 0.85),
    ("fashion-noisy", "BiSAM(base, model=model)", 2.0, "rho 0.1", 0.71, -0.35, 1.76),
    ("fashion-noisy", "TailSAM(base, model=model, total_steps=steps, tail=0.2)", 1.2, "rho 0.8", 0.28, -1.03, 1.59),
    ("fashion-noisy", "TailSAM(base, model=model, total_steps=steps, tail=0.4)", 1.4, "rho 0.8", 1.43, 0.75, 2.1),
    ("fashion-noisy", "LookSAM(base, model=model)", 1.2, "rho 0.025", -7.55, -10.04, -5.07),
    ("fashion-noisy", "SAM(base, model=model) with bisam.loops.SubBatch(0.25)", 1.25, "rho 0.4", -0.03, -1.44, 1.38),
    ("fashion-noisy", "BiSAM(base, model=model, cadence=Tail(steps, 0.2))", 1.2, "rho 0.8", 0.73, -0.36, 1.82),
    ("fashion-noisy", "MomentumSAM(base, model=model)", 1.0, "rho 0.8", 0.88, 0.09, 1.67),
    ("fashion-noisy", "AsyncSAM(base, model=model)", 1.0, "rho 0.2", -0.07, -1.37, 1.23),
    ("fashion-clean", "base", 1.0, "lr 0.4", 0.0, 0.0, 0.0),
    ("fashion-clean", "base, for 1.2 times the epochs", 1.2, "lr 0.4", 0.18, -0.18, 0.54),
    ("fashion-clean", "base, for 2 times the epochs", 2.0, "lr 0.2", -0.16, -0.74, 0.42),
    ("fashion-clean", "SAM(base, model=model)", 2.0, "rho 0.2", -1.1, -1.55, -0.65),
    ("fashion-clean", "SAM(base, model=model), for 0.5 times the epochs", 1.07, "rho 0.05", -2.13, -2.83, -1.44),
    ("fashion-clean", "BiSAM(base, model=model)", 2.0, "rho 0.1", -0.51, -1.1, 0.07),
    ("fashion-clean", "TailSAM(base, model=model, total_steps=steps, tail=0.2)", 1.2, "rho 0.025", -0.49, -1.29, 0.31),
    ("fashion-clean", "TailSAM(base, model=model, total_steps=steps, tail=0.4)", 1.4, "rho 0.1", -0.18, -1.0, 0.64),
    ("fashion-clean", "LookSAM(base, model=model)", 1.2, "rho 0.003125", -6.13, -7.48, -4.78),
    ("fashion-clean", "SAM(base, model=model) with bisam.loops.SubBatch(0.25)", 1.25, "rho 0.0125", -0.5, -0.92, -0.07),
    ("fashion-clean", "BiSAM(base, model=model, cadence=Tail(steps, 0.2))", 1.2, "rho 0.025", -0.49, -1.28, 0.29),
    ("fashion-clean", "MomentumSAM(base, model=model)", 1.0, "rho 0.2", -0.27, -0.56, 0.01),
    ("fashion-clean", "AsyncSAM(base, model=model)", 1.0, "rho 0.025", -0.37, -0.95, 0.2),
    ("cifar10-noisy", "base", 1.0, "lr 0.05", 0.0, 0.0, 0.0),
    ("cifar10-noisy", "base, for 1.2 times the epochs", 1.17, "lr 0.1", 1.19, -0.35, 2.73),
    ("cifar10-noisy", "base, for 2 times the epochs", 2.0, "lr 0.1", 3.29, 2.35, 4.24),
    ("cifar10-noisy", "SAM(base, model=model)", 2.0, "rho 0.1", -1.85, -3.39, -0.31),
    ("cifar10-noisy", "SAM(base, model=model), for 0.5 times the epochs", 1.0, "rho 0.1", -4.82, -6.15, -3.5),
    ("cifar10-noisy", "BiSAM(base, model=model)", 2.0, "rho 0.1", -2.21, -3.56, -0.85),
    ("cifar10-noisy", "TailSAM(base, model=model, total_steps=steps, tail=0.2)", 1.2, "rho 0.4", 0.55, -0.46, 1.56),
    ("cifar10-noisy", "TailSAM(base, model=model, total_steps=steps, tail=0.4)", 1.4, "rho 0.1", 0.15, -0.94, 1.24),
    ("cifar10-noisy", "LookSAM(base, model=model)", 1.2, "rho 0.05", -15.41, -17.23, -13.58),
    ("cifar10-noisy", "SAM(base, model=model) with bisam.loops.SubBatch(0.25)", 1.25, "rho 0.1", -0.88, -2.57, 0.82),
    ("cifar10-noisy", "BiSAM(base, model=model, cadence=Tail(steps, 0.2))", 1.2, "rho 0.1", 0.5, -0.49, 1.48),
    ("cifar10-noisy", "MomentumSAM(base, model=model)", 1.0, "rho 0.4", 0.97, -0.36, 2.3),
    ("cifar10-noisy", "AsyncSAM(base, model=model)", 1.0, "rho 0.2", -1.81, -2.64, -0.99),
    # end
)
