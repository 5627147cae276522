"""Where an estimator works, and what belongs to the running step."""

import functools
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ._climb import Labels
from ._keep import Kept
from .memory import Memory
from .passes import Last, Objective, Passes

__all__ = ["MOMENTS", "STEPS", "GradScale", "Run", "Scene", "check_not_stepped"]

#: Steps taken, in every param group: saved, resumed and seen by whatever copies the groups.
STEPS = "sharpness_steps"
#: Running moments of the squared gradient norm, there too, where the cadence decides by them.
MOMENTS = "sharpness_moments"

GradScale = float | Tensor | torch.amp.GradScaler | None


class Run:
    """What belongs to the running step; one object, because engines copy an optimizer's attributes."""

    def __init__(self) -> None:
        self.loop: weakref.ref[Passes] | None = None
        self.objective: Objective | None = None
        self.driving = False
        self.counts = False  # whether passes() has run since the last step
        self.unscaled = False  # whether the last passes() knew the scale of the loss
        self.moments: list[float] | None = None  # to be taken over by step()
        self.kept: Kept | None = None  # what the running step has set aside
        self.last = Last()
        self.warned = False

    def live_loop(self) -> Passes | None:
        """Return the loop that has begun and not ended."""
        loop = self.loop() if self.loop is not None else None
        return loop if loop is not None and loop.live else None


@dataclass(frozen=True)
class Scene:
    """Where an estimator works: the optimizer's groups, the model, and what it remembers."""

    groups: Sequence[dict[str, Any]]
    labels: Labels
    model: nn.Module | None
    memory: Memory
    run: Run
    grad_scale: GradScale

    @functools.cached_property
    def params(self) -> list[Tensor]:
        """Parameters of the optimizer that can have a gradient."""
        return [p for group in self.groups for p in group["params"] if p.requires_grad]

    def others(self) -> list[Tensor]:
        """Return the model's parameters that belong to another optimizer, or to none."""
        own = set(self.params)
        return [] if self.model is None else [p for p in self.model.parameters() if p not in own]

    def scale(self) -> Tensor | float | None:
        """What the losses have been multiplied by, read on the device where it lies there."""
        if isinstance(self.grad_scale, torch.amp.GradScaler):
            scale = getattr(self.grad_scale, "_scale", None)
            return scale if isinstance(scale, Tensor) else self.grad_scale.get_scale()
        return self.grad_scale


def check_not_stepped(scene: Scene, versions: Sequence[int]) -> None:
    """Refuse optimizers that step in a hook of backward(): no gradient is left then, and w has moved.

    A changed weight alone is no sign of it (``nn.Embedding(max_norm=)`` writes in forward()), nor is a hook alone.
    """
    for param, version in zip(scene.params, versions, strict=True):
        if param._version != version and getattr(param, "_post_accumulate_grad_hooks", None):
            name = scene.labels.names.get(param, f"of shape {tuple(param.shape)}")
            raise RuntimeError(
                f"parameter {name} was updated inside backward(), by a hook that it has "
                "(register_post_accumulate_grad_hook): no gradient is left to perturb along. Remove the hook, "
                "handle.remove(), and call opt.step() after the loop"
            )
