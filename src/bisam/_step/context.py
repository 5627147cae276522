"""What belongs to the running step, and to the steps around it."""

import threading
import warnings
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from .._vectors.memory import Memory
from .._vectors.vector import Vector
from .first_look import FirstLook
from .forward_state import ForwardState
from .model import Averaging, ModelInfo, check_flattened
from .objective import Objective, Turn
from .saved import RandomState, SavedState
from .stats import StepStats

if TYPE_CHECKING:
    from .passes import Passes

__all__ = ["GradScale", "LeftLoop", "RunRecord", "StepContext"]

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


@dataclass(frozen=True)
class LeftLoop:
    """A loop that was left before its end.

    Attributes:
        index: number of the pass in which it was left.
        lost: whether a whole gradient was dropped, because that was the last pass and its ``backward()`` had run.
    """

    index: int
    lost: bool


#: Where steps are running now.
_running: "weakref.WeakSet[StepContext]" = weakref.WeakSet()
_registry = threading.RLock()  # several threads may each train a model; a loop may be dropped while one holds it


def _models_running() -> list[ModelInfo]:
    with _registry:
        return [context.model for context in _running]


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
        passes: the objectives of the running step's passes that have ended.
        left: the loop that was left before its end, if none has come to its end since.
        thread: the thread that runs the step.
        hooked: the parameters on which somebody has a hook that runs when a gradient is complete.
        watched: the gradient at w as the pass left it, and shared, while later passes run.
        overwrites: whether somebody writes into it meanwhile; None until a step has shown it.
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
        self.passes: list[Objective] = []
        self.left: LeftLoop | None = None
        self.thread: threading.Thread | None = None
        self._look: FirstLook | None = None
        self._looked = False
        self.hooked: list[Tensor] = []
        self.watched: Vector | None = None
        self.overwrites: bool | None = None
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
    def live_loop(self) -> "Passes | None":
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

    def start_step(self, *, climbs: bool, same_random: bool) -> SavedState:
        """Save what the passes will change.

        Args:
            climbs: whether the weights are going to move.
            same_random: whether all passes are to draw the same random numbers.

        Raises:
            RuntimeError: another loop is running, of this optimizer or over its parameters.
            ValueError: FSDP1 holds the parameters.
        """
        if self.saved is not None:
            raise RuntimeError(
                "another loop over passes() of this optimizer is running: end it before this one begins, or give each "
                "model an optimizer of its own"
            )
        params = self.params
        if not self._looked:
            check_flattened(params)
        self._register(params)
        try:
            self.saved = saved = SavedState(params, self.model.others(params), self.model.refresh)
        except BaseException:
            self._retire()
            raise
        self.thread = threading.current_thread()
        if climbs:
            saved.forward = ForwardState(self.model)
        if same_random:
            saved.random = RandomState(params)
        # A hook that steps inside backward() clears the gradient; only a changed version of the weight shows that.
        self.hooked = [p for p in params if getattr(p, "_post_accumulate_grad_hooks", None)]
        self._look = (
            None if self._looked or not climbs else FirstLook(self.model, lambda: saved.moving, _models_running)
        )
        self.passes = []
        return saved

    def _register(self, params: list[Tensor]) -> None:
        """Enter the step among those that are running, unless one of them moves the same parameters."""
        with _registry:
            others = [other for other in _running if other is not self]
            _running.add(self)
        own = set(params) if others else set()
        for other in others:
            shared = next((param for param in other.params if param in own), None)
            if shared is not None:
                self._retire()
                raise RuntimeError(
                    f"parameter {self.model.params.name(shared)} is in the running loop over passes() of another "
                    "optimizer, or of another thread, which would put it back at the wrong weights: end that loop "
                    "first, with zero_grad() of that optimizer where it was left, or give the parameter to one of them"
                )

    def _retire(self) -> None:
        with _registry:
            _running.discard(self)

    def start_pass(
        self, loss: Callable[..., Tensor], *, is_ascent: bool, must_be_called: bool, averages: bool | None = None
    ) -> Objective:
        """Start the next pass of the running step.

        Args:
            loss: its objective.
            is_ascent: whether it comes before the climb.
            must_be_called: whether it may not end without a call of its objective.
            averages: whether workers average its gradient; None leaves that as it is.
        """
        assert self.saved is not None
        moved = self.saved.weights is not None
        look = None if self._look is None else self._look.at_eps if moved else self._look.at_w
        turn = Turn(
            len(self.passes),
            moved=moved,
            must_be_called=must_be_called,
            before=list(self.passes),
            scale=self.scale,
            look=look if is_ascent or moved else None,
        )
        self.objective = Objective(turn, loss, is_ascent=is_ascent)
        self._versions = [p._version for p in self.hooked]
        if averages is not None:
            self.saved.averaging = Averaging(self.model, averages)
        if not moved:
            self.last.saw(self.objective)
        return self.objective

    def end_pass(self) -> Objective:
        """End the running pass.

        Raises:
            RuntimeError: its objective had to be called and was not; an optimizer has stepped in a hook of backward(),
                so that no gradient is left, and w has moved. A changed weight alone does not show that
                (``nn.Embedding(max_norm=)`` writes in forward()), nor does a hook alone.
        """
        objective, saved = self.objective, self.saved
        assert objective is not None
        assert saved is not None
        objective.finish()
        for param, version in zip(self.hooked, self._versions, strict=True):
            if param._version != version:
                raise RuntimeError(
                    f"parameter {self.model.params.name(param)} was updated inside backward(), by a hook that it has "
                    "(register_post_accumulate_grad_hook): no gradient is left to perturb along. Remove the hook, "
                    "handle.remove(), and call opt.step() after the loop"
                )
        if objective.lacks_backward:
            self._warn_of_lacking_backward(objective)
        elif objective.is_ascent:
            self._check_gradients()
        if saved.averaging is not None:
            saved.averaging.restore()
        self.objective = None
        self.passes.append(objective)
        return objective

    def _check_gradients(self) -> None:
        """Refuse an engine that takes the gradients out of the parameters, so that nothing is left to climb.

        Raises:
            RuntimeError: no parameter of the optimizer has one after the ascent's ``backward()``.
        """
        params = self.params
        if params and all(param.grad is None for param in params):
            raise RuntimeError(
                "backward() has left no parameter of base with a gradient, so there is nothing to climb: an engine "
                "keeps them to itself (DeepSpeed ZeRO does), or the loss does not depend on them. Shard with torch's "
                "fully_shard instead (FSDP2; in Accelerate fsdp_version: 2), or build base on the model's parameters"
            )

    def _warn_of_lacking_backward(self, objective: Objective) -> None:
        if "backward" not in self.warned:
            self.warned.add("backward")
            warnings.warn(
                f"pass {objective.index} ended, and backward() was not called on its loss, so it has no gradient: "
                "write `objective(model(x), y).backward()` in the loop over passes()",
                stacklevel=5,
            )

    def prepare_pass(self, *, carry: bool) -> None:
        """Let the next pass of the step begin as the first one did.

        Args:
            carry: whether it adds its gradient to the ones that were there before the step.
        """
        saved = self.saved
        assert saved is not None
        if len(self.passes) == 1 and saved.forward is not None:
            saved.forward.keep()
        if saved.weights is not None:
            self.model.refresh()
        if carry:
            saved.carried.give_back()
        else:
            saved.carried.set_aside()
        if saved.random is not None:
            saved.random.rewind()

    def end_step(self, saved: SavedState) -> None:
        """Put back what the step has saved; where it has not finished, its gradients and memories are dropped.

        What is saved is held until it has been put back, so that :meth:`recover` can do again what was interrupted.
        """
        if self.objective is not None and not saved.finished:
            objective = self.objective
            self.left = LeftLoop(objective.index, not objective.is_ascent and not objective.lacks_backward)
        try:
            saved.put_back()
        except Exception:  # what cannot be put back now cannot be put back later
            self._close_step(saved)
            raise
        self._close_step(saved)

    def _close_step(self, saved: SavedState) -> None:
        objective, self.objective = self.objective, None
        if objective is not None:
            objective.expire()
        if saved.finished:
            self.left, self._looked = None, self._looked or self._look is not None
        else:
            self.memory.discard()
        self._look = self.watched = None
        self.passes = []
        self.saved = None
        self._retire()

    def check_thread(self, by: str) -> None:
        """Refuse to end a loop that another thread is running.

        Raises:
            RuntimeError: naming the method.
        """
        runs = self.thread is not None and self.thread.is_alive() and self.thread is not threading.current_thread()
        if self.saved is not None and runs:
            raise RuntimeError(
                f"{by} was called in another thread than the one that is running a loop over passes(), and the weights "
                "may be at w + eps: call it in that thread, after the loop"
            )

    def recover(self) -> None:
        """Put back what an interrupted step has left behind, if there is anything."""
        if self.saved is not None and self.live_loop is None:
            self.end_step(self.saved)
