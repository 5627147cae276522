"""What a run leaves behind."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

__all__ = ["Epoch", "RunResult", "Status"]

Status = Literal["ok", "collapsed", "diverged"]


@dataclass(frozen=True)
class Epoch:
    """What an epoch showed: mean loss of the descent passes, accuracy on validation."""

    epoch: int
    train_loss: float
    validation_score: float


@dataclass(frozen=True)
class RunResult:
    """The outcome of a run. Accuracies are shares; speed counts optimizer steps while training, not evaluation."""

    method: str
    seed: int
    status: Status
    test_score: float
    validation_score: float
    selected_epoch: int
    steps_per_second: float
    seconds: float
    history: list[Epoch] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "RunResult":
        """Read what :meth:`to_dict` wrote."""
        return cls(**{**values, "history": [Epoch(**epoch) for epoch in values["history"]]})
