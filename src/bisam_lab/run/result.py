"""A run's name and its result, as plain values."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from ..errors import one_line, shown
from ..untrusted import check_text

__all__ = ["Epoch", "Run", "RunResult", "Status", "check_order", "plain", "read_epoch"]

Status = Literal["ok", "collapsed", "diverged"]
#: Epochs of a history that is read, as many as a recipe may have.
MOST_EPOCHS = 100_000


@dataclass(frozen=True, order=True)
class Run:
    """Which run of a study: variant, seed and method. ``variant`` is empty if the recipe has none.

    ``equal_cost`` marks a run whose epochs spend the study's budget, beside the one with the recipe's epochs.
    """

    variant: str
    seed: int
    method: str
    equal_cost: bool = False

    def __str__(self) -> str:
        return " ".join([*([self.variant] if self.variant else []), self.method, "seed", str(self.seed)]) + (
            " at equal cost" if self.equal_cost else ""
        )


@dataclass(frozen=True)
class Epoch:
    """The numbers of one epoch.

    Attributes:
        epoch: its number, from 1.
        train_loss: mean over the steps of the descent objective on each step's batch.
        loss_at: the weights at which it is taken: "w", so that methods compare, or "w + eps" for methods whose one pass
            is there, and in results that were written before this was recorded.
        passes: of a mean step, in forward-backward passes over the whole batch; NaN where it was not recorded.
        validation_score: in the recipe's metric, as a fraction.
        learning_rate: after its last step.
        seconds: of training, without evaluation.
        steps: of the optimizer; 0 where they were not recorded.
        rho: the radius after its last step; 0 for the plain optimizer. NaN where it was not recorded, as all below.
        eps_norm: mean of ||eps|| over the steps that perturbed; 0 where none did.
        gradient_norm: mean over the steps of the norm of the gradient that the optimizer gets, before clipping. Steps
            whose gradient is not finite do not count.
        train_score: in the recipe's metric, as a fraction, of the predictions that the passes at w made while training,
            against the labels of the training, wrong ones included. NaN for methods whose one pass is at w + eps.
    """

    epoch: int
    train_loss: float
    validation_score: float
    learning_rate: float = 0.0
    seconds: float = 0.0
    loss_at: str = "w + eps"
    passes: float = math.nan
    steps: int = 0
    rho: float = math.nan
    eps_norm: float = math.nan
    gradient_norm: float = math.nan
    train_score: float = math.nan


@dataclass(frozen=True)
class RunResult:
    """The result of a run. Scores are fractions. The speed counts optimizer steps in training, without evaluation.

    Attributes:
        method: its name.
        seed: of initial weights, split, noise and data order.
        status: ``collapsed``: no better than guessing; ``diverged``: its loss is not finite.
        test_score: of the selected epoch's weights.
        validation_score: of the same weights.
        selected_epoch: the epoch tested.
        steps_per_second: of the optimizer.
        seconds: of the whole run, interruptions not counted.
        variant: of the recipe.
        equal_cost: whether its epochs spend the study's budget, instead of being the recipe's.
        metric: what the scores are.
        parameters: of the model.
        recipe: digest of the run's recipe; empty in results that were written before this was recorded.
        environment: hardware, versions, git commit.
        history: one entry an epoch.
    """

    method: str
    seed: int
    status: Status
    test_score: float
    validation_score: float
    selected_epoch: int
    steps_per_second: float
    seconds: float
    variant: str = ""
    equal_cost: bool = False
    metric: str = "accuracy"
    parameters: int = 0
    recipe: str = ""
    environment: dict[str, Any] = field(default_factory=dict)
    history: list[Epoch] = field(default_factory=list)

    @property
    def run(self) -> Run:
        """Which run has this result."""
        return Run(self.variant, self.seed, self.method, self.equal_cost)

    @property
    def passes(self) -> float:
        """Passes of a mean step in its whole training, over the whole batch; NaN where it was not recorded."""
        return sum(epoch.passes for epoch in self.history) / len(self.history) if self.history else math.nan

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON. A loss that is not finite becomes null."""
        values: dict[str, Any] = plain(asdict(self))
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "RunResult":
        """Read what :meth:`to_dict` wrote. Values that only a newer version knows are ignored.

        Raises:
            TypeError: a value is missing, or of another type.
            ValueError: a value cannot be, such as a history whose epochs are not numbered 1, 2, 3.
        """
        if not isinstance(values, dict) or not isinstance(values.get("history"), list):
            raise TypeError("no mapping with a history")
        if len(values["history"]) > MOST_EPOCHS:
            raise ValueError(f"a history of {len(values['history']):,} epochs; {MOST_EPOCHS:,} are read")
        known = {f.name for f in fields(cls)}
        kept = {key: value for key, value in values.items() if key in known}
        result = cls(**{**kept, "history": [read_epoch(epoch) for epoch in values["history"]]})
        _check(result)
        return result


def plain(value: Any) -> Any:
    """Return a value for JSON. NaN and infinity become null, inside mappings and lists, too."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_epoch(values: Any) -> Epoch:
    """Read an epoch. null is a loss that was not finite. Values that only a newer version knows are ignored.

    Raises:
        TypeError: a value is missing, or of another type.
    """
    if not isinstance(values, dict):
        raise TypeError("an epoch is no mapping")
    known = {f.name for f in fields(Epoch)}
    kept: dict[str, Any] = {k: math.nan if value is None else value for k, value in values.items() if k in known}
    epoch = Epoch(**kept)
    _numbers(epoch, *(f.name for f in fields(Epoch) if f.type in (float, "float")))
    _wholes(epoch, "epoch", "steps")
    _words(epoch, "loss_at")
    return epoch


def check_order(history: Sequence[Epoch]) -> None:
    """Check that the epochs are numbered 1, 2, 3 and so on.

    Raises:
        ValueError: they are not.
    """
    for number, epoch in enumerate(history, 1):
        if epoch.epoch != number:
            raise ValueError(f"epoch {one_line(repr(epoch.epoch), 30)} where epoch {number} should be")


def _check(result: RunResult) -> None:
    """Refuse values that are not those of their fields: JSON does not check them."""
    _words(result, "method", "variant", "metric", "status", "recipe")
    _wholes(result, "seed", "selected_epoch", "parameters")
    _numbers(result, "test_score", "validation_score", "steps_per_second", "seconds")
    check_order(result.history)
    if not isinstance(result.environment, dict) or not isinstance(result.equal_cost, bool):
        raise TypeError("environment is no mapping, or equal_cost no truth value")
    if result.status not in get_args(Status):
        raise ValueError(f"status={one_line(repr(result.status), 30)} is none of {', '.join(get_args(Status))}")
    for name in ("test_score", "validation_score"):
        if not -1 <= getattr(result, name) <= 1:
            raise ValueError(f"{name}={getattr(result, name)} is no share from -1 to 1")
    if result.history and not 1 <= result.selected_epoch <= len(result.history):
        raise ValueError(f"selected_epoch={result.selected_epoch} is none of its {len(result.history)} epochs")


def _words(of: object, *names: str) -> None:
    for name in names:
        value = getattr(of, name)
        if not isinstance(value, str):
            raise TypeError(f"{name}={one_line(repr(value), 30)} is no text")
        check_text(name, value)


def _wholes(of: object, *names: str) -> None:
    for name in names:
        value = getattr(of, name)
        if type(value) is not int or not 0 <= value < 2**63:
            raise TypeError(f"{name}={shown(value, 30)} is no whole number from 0")


def _numbers(of: object, *names: str) -> None:
    for name in names:
        value = getattr(of, name)
        if type(value) not in (int, float):
            raise TypeError(f"{name}={shown(value, 30)} is no number")
