"""What belongs to the running step, and to the steps around it."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from .._vectors.memory import Memory
from .model import ModelInfo
from .passes import Objective, Passes, StepStats
from .saved import RandomState, SavedState

__all__ = ["GradScale", "RunRecord", "StepContext"]

GradScale = float | Tensor | torch.amp.GradScaler | None


@dataclass
class RunRecord:
    """What is judged when the optimizer is gone; it holds nothing that could keep the optimizer or the model alive.

    Attributes:
        opened: whether the cadence has let a step perturb, here or before the state was loaded.
        steps: steps taken here with some radius above zero.
    """

    opened: bool = False
    steps: int = 0


class StepContext:
    """Where a step happens. One object for an optimizer, because engines copy an optimizer's attributes.

    Attributes:
        base: the base optimizer.
        model: what is known of the model.
        memory: what the choices remember.
        grad_scale: what the losses of the running step are multiplied by, as ``passes()`` was told.
        loop: the loop that ``passes()`` returned last.
        objective: the objective of the running pass.
        driving: whether ``step(closure)`` runs the loop.
        counts: whether a loop has ended since the last ``step()``.
        by_scaler: whether ``GradScaler.step`` is about to call ``step()``.
        saved: what the running step has saved.
        last: what the last climb did.
        moves: whether some radius was above zero in the last step.
        record: what is judged when the optimizer is gone.
        warned: what the user has been warned of already.
        passes: how many passes of the running step have ended.
    """

    def __init__(self, base: Optimizer, model: ModelInfo, memory: Memory) -> None:
        self.base, self.model, self.memory = base, model, memory
        self.grad_scale: GradScale = None
        self.loop: weakref.ref[Passes] | None = None
        self.objective: Objective | None = None
        self.driving = False
        self.counts = False
        self.by_scaler = False
        self.saved: SavedState | None = None
        self.last = StepStats()
        self.moves = False
        self.record = RunRecord()
        self.warned: set[str] = set()
        self.passes = 0
        self._hooked: list[Tensor] = []
        self._versions: list[int] = []

    @property
    def groups(self) -> list[dict[str, Any]]:
        """The param groups."""
        return self.base.param_groups

    @property
    def params(self) -> list[Tensor]:
        """Parameters of the optimizer that can have a gradient."""
        return [p for group in self.groups for p in group["params"] if p.requires_grad]

    @property
    def live_loop(self) -> Passes | None:
        """The loop that has begun and not ended."""
        loop = self.loop() if self.loop is not None else None
        return loop if loop is not None and loop.live else None

    def scale(self) -> Tensor | float | None:
        """Return what the losses are multiplied by, without a read back to the host where it lies on the device."""
        if isinstance(self.grad_scale, torch.amp.GradScaler):
            # get_scale() waits for the device; the tensor behind it has no public name.
            scale = getattr(self.grad_scale, "_scale", None)
            return scale if isinstance(scale, Tensor) else self.grad_scale.get_scale()
        return self.grad_scale

    # -- one step ------------------------------------------------------------------------------------------------

    def start_step(self, *, same_random: bool) -> SavedState:
        """Save what the passes will change.

        Args:
            same_random: whether all passes are to draw the same random numbers.

        Raises:
            RuntimeError: another loop of the optimizer is running.
        """
        if self.saved is not None:
            raise RuntimeError(
                "another loop over passes() of this optimizer is running: end it before this one begins, or give each "
                "model an optimizer of its own"
            )
        params = self.params
        self.saved = SavedState([*params, *self.model.others(params)], self.model.refresh)
        if same_random:
            self.saved.random = RandomState(params)
        # A hook that steps inside backward() clears the gradient; only a changed version of the weight shows that.
        self._hooked = [p for p in params if getattr(p, "_post_accumulate_grad_hooks", None)]
        self.last, self.passes = StepStats(), 0
        return self.saved

    def start_pass(self, loss: Callable[..., Tensor], *, is_ascent: bool, must_be_called: bool) -> Objective:
        """Start the next pass of the running step."""
        self.objective = Objective(self.passes, loss, is_ascent=is_ascent, must_be_called=must_be_called)
        self._versions = [p._version for p in self._hooked]
        return self.objective

    def end_pass(self) -> Objective:
        """End the running pass.

        Raises:
            RuntimeError: its objective had to be called and was not; an optimizer has stepped in a hook of backward(),
                so that no gradient is left, and w has moved. A changed weight alone does not show that
                (``nn.Embedding(max_norm=)`` writes in forward()), nor does a hook alone.
        """
        objective = self.objective
        assert objective is not None
        objective.finish()
        for param, version in zip(self._hooked, self._versions, strict=True):
            if param._version != version:
                raise RuntimeError(
                    f"parameter {self.model.params.name(param)} was updated inside backward(), by a hook that it has "
                    "(register_post_accumulate_grad_hook): no gradient is left to perturb along. Remove the hook, "
                    "handle.remove(), and call opt.step() after the loop"
                )
        self.objective = None
        self.passes += 1
        return objective

    def prepare_pass(self, *, carry: bool) -> None:
        """Let the next pass of the step begin as the first one did.

        Args:
            carry: whether it adds its gradient to the ones that were there before the step.
        """
        saved = self.saved
        assert saved is not None
        if saved.buffers is None and self.passes:
            saved.buffers = self.model.buffers()
        if saved.weights is not None:
            self.model.refresh()
        if carry:
            saved.carried.give_back()
        else:
            saved.carried.set_aside()
        if saved.random is not None:
            saved.random.rewind()

    def end_step(self, saved: SavedState) -> None:
        """Put back what the step has saved; where it has not finished, its gradients and memories are dropped."""
        objective, self.objective, self.saved = self.objective, None, None
        if objective is not None:
            objective.expire()
        if not saved.finished:
            self.memory.discard()
        saved.put_back()
