"""What a learning curve can show of a run, and against what."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ..registry.metrics import metric_name
from ..run.result import Epoch, RunResult

__all__ = ["AXES", "QUANTITIES", "Along", "Axis", "Quantity", "along", "label", "unit"]

#: What the curves run along.
Along: TypeAlias = Literal["epoch", "passes", "seconds"]


@dataclass(frozen=True)
class Axis:
    """What a curve runs along.

    Attributes:
        label: below the axis.
        tip: beside a value, where ``{}`` stands for the number.
        words: in a caption, behind "by".
    """

    label: str
    tip: str
    words: str


AXES: dict[Along, Axis] = {
    "epoch": Axis("epoch", "epoch {}", "by epoch"),
    "passes": Axis("forward-backward passes over a batch", "{} passes", "by passes"),
    "seconds": Axis("seconds of training", "{} s", "by seconds"),
}


@dataclass(frozen=True)
class Quantity:
    """A number of each epoch.

    Attributes:
        label: on the chart; ``{metric}`` stands for the metric's name and ``{unit}`` for its unit.
        value: reads it, in the unit that is shown; NaN where it was not recorded.
        digits: behind the decimal point where it is told; None: four significant digits.
        log: whether a logarithmic axis suits it where it spans more than a factor of 30.
    """

    label: str
    value: Callable[[Epoch], float]
    digits: int | None = None
    log: bool = False


QUANTITIES: dict[str, Quantity] = {
    "validation_score": Quantity("validation {metric} ({unit})", lambda e: 100 * e.validation_score, 2),
    "train_score": Quantity("training {metric} ({unit})", lambda e: 100 * e.train_score, 2),
    "train_loss": Quantity("training loss", lambda e: e.train_loss, log=True),
    "gap": Quantity("generalisation gap (points)", lambda e: 100 * (e.train_score - e.validation_score), 2),
    "perturbed_error": Quantity(
        "training images misclassified at w + eps (%)", lambda e: 100 * (1 - e.train_score + e.error_rise), 2
    ),
    "error_rise": Quantity("rise of the batch's error at w + eps (points)", lambda e: 100 * e.error_rise, 2),
    "learning_rate": Quantity("learning rate", lambda e: e.learning_rate),
    "rho": Quantity("radius rho", lambda e: e.rho),
    "eps_norm": Quantity("‖eps‖, mean of an epoch", lambda e: e.eps_norm),
    "gradient_norm": Quantity("gradient norm, mean of an epoch", lambda e: e.gradient_norm, log=True),
}


def along(run: RunResult, axis: Along) -> list[float]:
    """Return where each epoch of a run ends on an axis; NaN where it was not recorded."""
    if axis == "epoch":
        return [float(epoch.epoch) for epoch in run.history]
    if axis == "seconds":
        return list(itertools.accumulate(epoch.seconds or math.nan for epoch in run.history))
    usual = _steps(run)
    return list(itertools.accumulate(epoch.passes * (epoch.steps or usual) for epoch in run.history))


def unit(metric: str) -> str:
    """Return the unit of scores as they are shown."""
    return "%" if metric == "accuracy" else "× 100"  # noqa: RUF001


def label(quantity: str, metric: str) -> str:
    """Return a quantity's label on a chart."""
    return QUANTITIES[quantity].label.format(metric=metric_name(metric), unit=unit(metric))


def _steps(run: RunResult) -> float:
    """Return the steps of an epoch of a run that did not record them: the speed is theirs over the same seconds."""
    seconds = sum(epoch.seconds for epoch in run.history)
    steps = run.steps_per_second * seconds / len(run.history)
    return round(steps) if math.isfinite(steps) and steps >= 1 else math.nan
