"""What the steps of an epoch were like: kept on the device, and read once, at the epoch's end."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bisam import StepStats

__all__ = ["Loop", "Seen", "effective_samples"]

#: The lists of numbers, each 0-dim.
_NUMBERS = ("gradient_norms", "eps_norms", "samples", "rises", "perturbed_losses")


class Loop:
    """What a loop over passes shows of itself: its first labels, its ascent gradient, its last output.

    Args:
        at_w: whether its first pass is at w.
        same: whether all its passes have the same samples.

    Attributes:
        labels: of the examples of the first pass (B,); None before it, and if that pass is not at w.
        gradient: of the ascent objective at the logits (B, K); None without an ascent pass.
        output: of the last pass (B, K).
        loss: of the last pass, the plain descent objective, 0-dim.
    """

    def __init__(self, at_w: bool, same: bool) -> None:
        self._at_w, self._same, self._begun = at_w, same, False
        self.labels: Tensor | None = None
        self.gradient: Tensor | None = None
        self.output: Tensor | None = None
        self.loss: Tensor | None = None

    def take(self, output: Tensor, labels: Tensor, value: Tensor, *, is_ascent: bool) -> None:
        """Add a pass before its ``backward()``: the gradient at the logits is taken as it comes by."""
        if not self._begun and self._at_w:
            self.labels = labels
        self._begun = True
        if is_ascent:
            output.register_hook(self._keep)
        elif self._same:
            self.output, self.loss = output.detach(), value.detach()

    def _keep(self, gradient: Tensor) -> None:
        self.gradient = gradient


@dataclass
class Seen:
    """Tensors of an epoch's steps. To add to them waits for no device.

    Attributes:
        loops: over passes, of all steps.
        gradient_norms: of each step, 0-dim.
        eps_norms: ||eps|| of each loop that climbed, 0-dim; 0 where the weights did not move.
        samples: effective number of samples of its ascent gradient, 0-dim.
        rises: error of its batch at w + eps minus that at w, 0-dim.
        perturbed_losses: its descent loss at w + eps, 0-dim.
        predicted: classes that the passes at w predicted (B,).
        labels: of the same examples (B,).
    """

    loops: int = 0
    gradient_norms: list[Tensor] = field(default_factory=list)
    eps_norms: list[Tensor] = field(default_factory=list)
    samples: list[Tensor] = field(default_factory=list)
    rises: list[Tensor] = field(default_factory=list)
    perturbed_losses: list[Tensor] = field(default_factory=list)
    predicted: list[Tensor] = field(default_factory=list)
    labels: list[Tensor] = field(default_factory=list)

    def loop(self, last: StepStats, loop: Loop, share: float = 1.0, *, averaged: bool = False) -> None:
        """Add a loop over passes: what the optimizer tells of it, and what the loop shows.

        Of several processes each adds its part of the mean over the examples, so that :meth:`joined` only adds up.

        Args:
            last: what the optimizer tells.
            loop: what the loop shows.
            share: of the batch's examples that this process has; 0: it has borrowed some, which do not count.
            averaged: whether several climb one averaged gradient: how many samples carry it, none of them knows.
        """
        self.loops += 1
        predicted = None
        if last.output is not None and loop.labels is not None:
            predicted = last.output.argmax(1)
            if share:
                self.predicted.append(predicted)
                self.labels.append(loop.labels)
        if last.norm_on_device is None:
            return
        self.eps_norms.append(_part(last.norm_on_device, share))
        if loop.gradient is not None and not averaged:
            self.samples.append(_part(effective_samples(loop.gradient), share))
        if loop.output is not None and loop.loss is not None:
            self.perturbed_losses.append(_part(loop.loss, share))
            if predicted is not None and loop.labels is not None:
                self.rises.append(_part(_rise(predicted, loop.output.argmax(1), loop.labels), share))

    def row(
        self,
        predicted: Tensor,
        labels: Tensor,
        gradient_norm: Tensor,
        climb: "tuple[Tensor, Tensor, Tensor, Tensor] | None",
    ) -> None:
        """Add a step of which everything is known.

        Args:
            predicted: classes at w (B,).
            labels: of the batch (B,).
            gradient_norm: of the gradient that the optimizer gets, 0-dim.
            climb: ||eps||, effective samples of the ascent gradient, rise of the error, and descent loss at w + eps,
                each 0-dim; None where it did not climb.
        """
        self.loops += 1
        self.gradient_norms.append(gradient_norm)
        self.predicted.append(predicted)
        self.labels.append(labels)
        if climb is not None:
            lists = (self.eps_norms, self.samples, self.rises, self.perturbed_losses)
            for numbers, number in zip(lists, climb, strict=True):
                numbers.append(number)

    def read(self, steps: int, score: Callable[[Tensor, Tensor], float]) -> dict[str, float]:
        """Return the epoch's numbers, by the names that :class:`~.epoch.Epoch` has for them. Waits for the device.

        They are NaN if not all steps were seen, because another version of bisam took the first ones.

        Args:
            steps: of the epoch.
            score: of predicted classes and labels.
        """
        names = ("gradient_norm", "eps_norm", "train_score", *_OF_CLIMBS)
        if len(self.gradient_norms) != steps:
            return dict.fromkeys(names, math.nan)
        gradients, eps = _joined(self.gradient_norms).double(), _joined(self.eps_norms).double()
        finite, moved = gradients[gradients.isfinite()], eps[eps > 0]
        whole = bool(self.predicted)
        return {
            "gradient_norm": float(finite.mean()) if len(finite) else math.nan,
            "eps_norm": float(moved.mean()) if len(moved) else 0.0,
            "train_score": score(torch.cat(self.predicted).cpu(), torch.cat(self.labels).cpu()) if whole else math.nan,
            **(self._climbs(eps > 0) if self.loops >= steps else dict.fromkeys(_OF_CLIMBS, math.nan)),
        }

    def _climbs(self, moved: Tensor) -> dict[str, float]:
        """Return what is told of the loops that climbed, of which ``moved`` (n,) tells whether the weights moved."""
        return {
            "climbed": len(moved) / self.loops if self.loops else math.nan,
            "vanished": float((~moved).double().mean()) if len(moved) else math.nan,
            "ascent_samples": _mean(self.samples, moved),
            "error_rise": _mean(self.rises, moved),
            "perturbed_loss": _mean(self.perturbed_losses, moved),
        }

    def state(self) -> dict[str, Tensor]:
        """Return everything as one tensor a list, for a checkpoint."""
        numbers = {name: _joined(getattr(self, name)) for name in _NUMBERS}
        classes = {name: torch.cat(getattr(self, name)).cpu() for name in ("predicted", "labels") if self.predicted}
        return numbers | classes | {"loops": torch.tensor(self.loops)}

    @classmethod
    def joined(cls, states: Sequence[Mapping[str, Any]]) -> "Seen":
        """Return what several processes have seen of the same steps, from what :meth:`state` says of each, on the CPU.

        Their numbers add up to the mean over the processes, but for the gradient that the optimizer gets, which is one.
        """
        first, *others = (cls.restored(state, torch.device("cpu")) for state in states)
        for other in others:
            for name in _NUMBERS[1:]:
                pairs = zip(getattr(first, name), getattr(other, name), strict=True)
                setattr(first, name, [one + two for one, two in pairs])
            first.predicted += other.predicted
            first.labels += other.labels
        return first

    def begun_by_first(self, rank: int) -> "Seen":
        """Return the share of process number ``rank`` in what was saved: all of it is the first one's."""
        if rank:
            for name in _NUMBERS[1:]:
                setattr(self, name, [torch.zeros_like(number) for number in getattr(self, name)])
            self.predicted, self.labels = [], []
        return self

    @classmethod
    def restored(cls, state: Mapping[str, Any] | None, device: torch.device) -> "Seen":
        """Return what :meth:`state` has saved; None, of another version of bisam, has seen nothing."""
        state = state or {}
        there = {name: tensor.to(device) for name, tensor in state.items() if name != "loops"}
        numbers = {name: list(there[name]) for name in _NUMBERS if name in there}
        classes = {name: [there[name]] for name in ("predicted", "labels") if name in there}
        return cls(loops=int(state.get("loops", 0)), **numbers, **classes)


#: What an epoch tells of the loops that climbed.
_OF_CLIMBS = ("climbed", "vanished", "ascent_samples", "error_rise", "perturbed_loss")


def effective_samples(gradient: Tensor) -> Tensor:
    """Return how many samples carry a gradient (..., B, K) at the logits: (sum w)^2 / sum w^2 over the samples, (...).

    The weight w of a sample is the l1 norm of its gradient, which for cross-entropy is twice the probability of the
    wrong classes. It is 1 where one sample is all, and B where all weigh alike; NaN where the gradient is zero.
    """
    weights = gradient.abs().sum(-1)
    weights = weights / weights.amax(-1, keepdim=True)  # squares of tiny gradients would vanish
    return weights.sum(-1).square() / weights.square().sum(-1)


def _part(number: Tensor, share: float) -> Tensor:
    """Return a number times a share; the very number where the share is 1."""
    return number if share == 1 else share * number


def _rise(before: Tensor, after: Tensor, labels: Tensor) -> Tensor:
    """Return by how much the error of predicted classes (B,) has risen, 0-dim."""
    return (before.eq(labels).sum() - after.eq(labels).sum()) / len(labels)


def _mean(numbers: list[Tensor], moved: Tensor) -> float:
    """Return the mean of the finite numbers of the loops that moved; NaN if there are none, or not one for each."""
    if len(numbers) != len(moved):
        return math.nan
    kept = _joined(numbers).double()[moved]
    kept = kept[kept.isfinite()]
    return float(kept.mean()) if len(kept) else math.nan


def _joined(numbers: list[Tensor]) -> Tensor:
    """Return 0-dim tensors as one (n,) on the CPU: one read of the device."""
    return torch.stack(numbers).cpu() if numbers else torch.zeros(0)
