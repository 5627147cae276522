"""A run's name and its result, as plain values."""

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from ..errors import one_line
from ..untrusted import check_text
from .epoch import Epoch, check_numbers, check_order, check_wholes, check_words, read_epoch
from .signatures import Signature, signatures

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
        measures: quantities of the same weights on the test set, by measure; NaN where there is no number.
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
    measures: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def run(self) -> Run:
        """Which run has this result."""
        return Run(self.variant, self.seed, self.method, self.equal_cost)

    @property
    def passes(self) -> float:
        """Passes of a mean step in its whole training, over the whole batch; NaN where it was not recorded."""
        return sum(epoch.passes for epoch in self.history) / len(self.history) if self.history else math.nan

    @property
    def signatures(self) -> tuple[Signature, ...]:
        """The failure signatures that the run shows; none of what its version of bisam did not record."""
        return signatures(self.history, self.status)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON, with the names of the signatures. A loss that is not finite becomes null."""
        values: dict[str, Any] = plain(asdict(self))
        return values | {"signatures": [signature.name for signature in self.signatures]}

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
        measures = _read_measures(values.get("measures", {}))
        result = cls(**{**kept, "history": [read_epoch(epoch) for epoch in values["history"]], "measures": measures})
        _check(result)
        return result


def plain(value: Any) -> Any:
    """Return a value for JSON. NaN and infinity become null, inside mappings and lists, too."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _read_measures(values: Any) -> dict[str, dict[str, float]]:
    """Read quantities by measure. null is a number that was not finite.

    Raises:
        TypeError: no mapping of mappings of numbers.
    """
    if not isinstance(values, dict) or not all(isinstance(inner, dict) for inner in values.values()):
        raise TypeError("measures are no mapping of mappings")
    numbers = [number for inner in values.values() for number in inner.values() if number is not None]
    if not all(type(number) in (int, float) for number in numbers):
        raise TypeError("a measure holds what is no number")
    for name in (name for inner in (values, *values.values()) for name in inner):
        check_text("measures", name)
    return {
        name: {key: math.nan if number is None else float(number) for key, number in inner.items()}
        for name, inner in values.items()
    }


def _check(result: RunResult) -> None:
    """Refuse values that are not those of their fields: JSON does not check them."""
    check_words(result, "method", "variant", "metric", "status", "recipe")
    check_wholes(result, "seed", "selected_epoch", "parameters")
    check_numbers(result, "test_score", "validation_score", "steps_per_second", "seconds")
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
