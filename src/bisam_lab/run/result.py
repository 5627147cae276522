"""A run's name and its result, as plain values."""

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

__all__ = ["Epoch", "Run", "RunResult", "Status", "plain"]

Status = Literal["ok", "collapsed", "diverged"]


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
    """

    epoch: int
    train_loss: float
    validation_score: float
    learning_rate: float = 0.0
    seconds: float = 0.0
    loss_at: str = "w + eps"
    passes: float = math.nan


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
            KeyError: a value is missing.
            TypeError: a value is missing, or of another type.
        """
        known = {f.name for f in fields(cls)}
        kept = {key: value for key, value in values.items() if key in known}
        result = cls(**{**kept, "history": [_epoch(epoch) for epoch in values["history"]]})
        result._check_types()
        return result

    def _check_types(self) -> None:
        """Refuse values whose types are not those of their fields: JSON does not check them."""
        numbers = [self.test_score, self.validation_score, self.steps_per_second, self.seconds]
        numbers += [value for epoch in self.history for value in (epoch.train_loss, epoch.validation_score)]
        whole = [self.seed, *(epoch.epoch for epoch in self.history)]
        words = [self.method, self.variant, self.metric, self.status]
        for kind, values in ((float | int, numbers), (int, whole), (str, words), (dict, [self.environment])):
            for value in values:
                if not isinstance(value, kind):
                    raise TypeError(f"{value!r} is no {kind.__name__ if isinstance(kind, type) else 'number'}")


def plain(value: Any) -> Any:
    """Return a value for JSON. NaN and infinity become null, inside mappings and lists, too."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _epoch(values: dict[str, Any]) -> Epoch:
    """Read an epoch. null is a loss that was not finite. Values that only a newer version knows are ignored."""
    known = {f.name for f in fields(Epoch)}
    kept: dict[str, Any] = {k: math.nan if value is None else value for k, value in values.items() if k in known}
    return Epoch(**kept)
