"""What the steps of an epoch were like: kept on the device, and read once, at the epoch's end."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bisam import StepStats

__all__ = ["Seen"]


@dataclass
class Seen:
    """Tensors of an epoch's steps. To add to them waits for no device.

    Attributes:
        gradient_norms: of each step, 0-dim.
        eps_norms: ||eps|| of each loop over passes, 0-dim; 0 where the weights did not move.
        predicted: classes that the passes at w predicted (B,).
        labels: of the same examples (B,).
    """

    gradient_norms: list[Tensor] = field(default_factory=list)
    eps_norms: list[Tensor] = field(default_factory=list)
    predicted: list[Tensor] = field(default_factory=list)
    labels: list[Tensor] = field(default_factory=list)

    def loop(self, last: StepStats, labels: Tensor | None) -> None:
        """Add a loop over passes.

        Args:
            last: what it did.
            labels: of the examples in its first pass (B,); None if that pass is not at w.
        """
        if last.norm_on_device is not None:
            self.eps_norms.append(last.norm_on_device)
        if last.output is not None and labels is not None:
            self.predicted.append(last.output.argmax(1))
            self.labels.append(labels)

    def row(self, predicted: Tensor, labels: Tensor, gradient_norm: Tensor, eps_norm: Tensor | None) -> None:
        """Add a step of which everything is known; ``eps_norm`` is None where it did not climb."""
        self.gradient_norms.append(gradient_norm)
        self.eps_norms += [] if eps_norm is None else [eps_norm]
        self.predicted.append(predicted)
        self.labels.append(labels)

    def read(self, steps: int, score: Callable[[Tensor, Tensor], float]) -> dict[str, float]:
        """Return the epoch's numbers: gradient_norm, eps_norm, train_score. Waits for the device.

        They are NaN if not all steps were seen, because another version of bisam took the first ones.

        Args:
            steps: of the epoch.
            score: of predicted classes and labels.
        """
        if len(self.gradient_norms) != steps:
            return dict.fromkeys(("gradient_norm", "eps_norm", "train_score"), math.nan)
        gradients, eps = _joined(self.gradient_norms).double(), _joined(self.eps_norms).double()
        finite, moved = gradients[gradients.isfinite()], eps[eps > 0]
        whole = bool(self.predicted)
        return {
            "gradient_norm": float(finite.mean()) if len(finite) else math.nan,
            "eps_norm": float(moved.mean()) if len(moved) else 0.0,
            "train_score": score(torch.cat(self.predicted).cpu(), torch.cat(self.labels).cpu()) if whole else math.nan,
        }

    def state(self) -> dict[str, Tensor]:
        """Return everything as one tensor a list, for a checkpoint."""
        numbers = {name: _joined(getattr(self, name)) for name in ("gradient_norms", "eps_norms")}
        classes = {name: torch.cat(getattr(self, name)).cpu() for name in ("predicted", "labels") if self.predicted}
        return numbers | classes

    @classmethod
    def restored(cls, state: Mapping[str, Any] | None, device: torch.device) -> "Seen":
        """Return what :meth:`state` has saved; None, of another version of bisam, has seen nothing."""
        state = state or {}
        there = {name: tensor.to(device) for name, tensor in state.items()}
        numbers = {name: list(there[name]) for name in ("gradient_norms", "eps_norms") if name in there}
        classes = {name: [there[name]] for name in ("predicted", "labels") if name in there}
        return cls(**numbers, **classes)


def _joined(numbers: list[Tensor]) -> Tensor:
    """Return 0-dim tensors as one (n,) on the CPU: one read of the device."""
    return torch.stack(numbers).cpu() if numbers else torch.zeros(0)
