"""A sharpness-aware gradient estimator around any ``torch.optim`` optimizer."""

import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypedDict

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ._step.base_optimizer import check_call, check_state_dict, joined
from ._step.context import GradScale, StepContext
from ._step.engines import check_engine
from ._step.estimator import Estimator
from ._step.gradient_check import check_gradient, warn_if_never_opened, warn_if_too_long, warn_of_foreign_gradients
from ._step.model import ModelInfo
from ._step.objective import Objective
from ._step.passes import Passes
from ._step.several import SeveralOptimizers
from ._step.stats import StepStats
from ._validation import not_negative
from ._vectors.memory import PREFIX, STEPS, Memory, keys_of, without_memory
from .ascent import StoredAscent
from .cadence import Always, Cadence
from .combine import Combine
from .direction import Direction
from .geometry import Geometry, L2Ball
from .radius import Radius

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Options", "SharpnessAware"]


class Options(TypedDict, total=False):
    """The arguments that every method takes beside its own; see :class:`SharpnessAware`."""

    ascent: Callable[..., Tensor] | StoredAscent | None
    descent: Callable[..., Tensor]
    direction: Direction | None
    geometry: Geometry
    radius: Radius | None
    cadence: Cadence
    combine: Combine | None
    same_dropout: bool
    third_pass: bool
    sync_ascent: bool


class SharpnessAware(Optimizer):
    """Adds sharpness-aware gradients to any optimizer; the update stays the optimizer's own.

    After ``for objective in opt.passes(): objective(model(x), y).backward()`` every ``p.grad`` has *gained* the
    sharpness-aware gradient, as one ordinary ``backward()`` would have added the plain one. Every weight is back bit
    for bit, and buffers are as the first pass left them. So clipping, ``GradScaler``, accumulation (a loop around the
    loop), schedulers, checkpoints and ``step()`` work as they always did. Leaving the loop early gives weights and
    gradients back too.

    A method is its choices around ``base``; :class:`~bisam.SAM`, :class:`~bisam.ASAM` and :class:`~bisam.BiSAM` are
    nothing else. Param groups, state and defaults are the base optimizer's own, shared. Each group has its own ``rho``.
    With radii rho_k the perturbation in the l2 ball is eps_k = rho_k^2 g_k / sqrt(sum_j rho_j^2 ||g_j||^2): equal radii
    give SAM, and a group with ``rho=0`` stays put and shortens nobody else's.

    Args:
        base: the optimizer that updates the weights, built on the model's parameters; or several in a list, each with
            parameters of its own, ``SAM([muon, adamw], model=model)``: one perturbation and one norm over all.
        model: the network (bare, compiled, wrapped). **Pass it if it holds BatchNorm or other running statistics**:
            its buffers are put back after the second pass, and so are its parameters that need no gradient (a momentum
            encoder's) and tensors that its layers keep in attributes. Without it they move twice a step.
            Pass it too if another optimizer holds the rest of its parameters: their gradients are then those of the
            last pass alone.
        rho: radius, >= 0, for groups that do not set their own.
        ascent: objective that the perturbation climbs, or a :class:`~bisam.ascent.StoredAscent`; None means ``descent``
            (SAM).
        descent: objective whose gradient at w + eps is kept.
        direction: along what of the gradient to climb; None is the gradient.
        geometry: the feasible set.
        radius: a rule that computes the radius from the gradient's norm; None is ``rho`` itself.
        cadence: the steps that perturb.
        combine: what becomes the gradient; None is the gradient at w + eps.
        same_dropout: replay the random state of torch, and of numpy and Python where the program uses them, so that
            all passes of a step draw the same masks.
        third_pass: where ``combine`` or an adaptive ``cadence`` needs the descent objective's gradient at w, and
            ``ascent`` is another objective, compute it in a pass of its own, the first one of the step.
        sync_ascent: under DDP, let all workers climb one averaged gradient. By default each climbs its own, as in the
            SAM paper, without communication; ``model`` must then be the DDP-wrapped model. Methods that remember or
            combine gradients always average.

    Attributes:
        base: the wrapped optimizer; of several, ``base.optimizers`` are they.
        estimator: the choices, and what they cost: ``estimator.passes_per_step``.

    Raises:
        TypeError: ``base`` is no optimizer; a choice that is no object of its axis; an unknown argument.
        ValueError: ``rho < 0``; a ``base`` that another wrapper holds or that needs a closure; a ``model`` that has
            none of the parameters; ``combine`` or an adaptive ``cadence`` with an ascent objective other than the
            descent's and without ``third_pass``.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> "Self":
        """Refuse arguments that belong to other implementations, by name and remedy."""
        cls._check_call(args, kwargs)
        return super().__new__(cls)

    @classmethod
    def _check_call(cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if args or kwargs:  # copies and pickles are made without
            check_call(cls, args, kwargs, Options.__annotations__)

    def __init__(
        self,
        base: Optimizer | Sequence[Optimizer],
        *,
        model: nn.Module | None = None,
        rho: float = 0.05,
        ascent: Callable[..., Tensor] | StoredAscent | None = None,
        descent: Callable[..., Tensor] = nn.CrossEntropyLoss(),
        direction: Direction | None = None,
        geometry: Geometry = L2Ball(),
        radius: Radius | None = None,
        cadence: Cadence = Always(),
        combine: Combine | None = None,
        same_dropout: bool = False,
        third_pass: bool = False,
        sync_ascent: bool = False,
    ) -> None:
        self.base = base = joined(type(self).__name__, base)
        self.estimator = Estimator(
            ascent=descent if ascent is None else ascent,
            descent=descent,
            direction=direction,
            geometry=geometry,
            radius=radius,
            cadence=cadence,
            combine=combine,
            same_dropout=same_dropout,
            third_pass=third_pass,
            sync_ascent=sync_ascent,
        )
        self.estimator.check_supplies(base)
        check_state_dict(base, self.estimator.vectors)
        memory = Memory(base, self.estimator.vectors, self.estimator.numbers)
        radii = [not_negative("rho", group.get("rho", rho)) for group in base.param_groups]
        self._context = StepContext(base, ModelInfo(model, base), memory)
        ours = {STEPS: 0, **memory.numbers}
        set_defaults = base.set_defaults if isinstance(base, SeveralOptimizers) else base.defaults.update
        set_defaults({"rho": not_negative("rho", rho), **ours})
        for group, radius_of_group in zip(base.param_groups, radii, strict=True):
            group |= {"rho": radius_of_group, **ours}
        self._furnish()

    def _furnish(self) -> None:
        """Give this object what ``torch.optim.Optimizer`` expects of itself: hooks, and a profiled ``step()``.

        ``Optimizer.__init__`` would build groups and state of its own, and these are the base's. ``__setstate__`` is
        where torch completes an optimizer whose groups exist already, and it is public: subclasses override it.
        """
        super().__setstate__({})
        weakref.finalize(self, warn_if_never_opened, self._context.record, repr(self.estimator.cadence))

    # -- the loop ------------------------------------------------------------------------------------------------

    def passes(self, grad_scale: GradScale = None) -> Passes:
        """Yield the objective of each pass: ascent at w, then descent at w + eps (or descent alone).

        The loop's body computes that objective and calls ``backward()``; nothing else is asked of it. Steps that do
        not perturb (``cadence``, or ``rho == 0`` in every group) have one pass.

        Args:
            grad_scale: what the losses are multiplied by before ``backward()``: a number, a 0-dim tensor, or the
                ``GradScaler`` itself. Only methods that compare or average gradients over steps need it.

        Leaving the loop by ``break`` or an exception restores everything at once. An iterator that is still held, by
        a name or by a wrapper such as a progress bar, restores when it is dropped, closed, or when ``zero_grad()``,
        ``state_dict()`` or another ``passes()`` is called: do one of these before saving weights in an ``except``.

        Raises:
            RuntimeError: from the loop, where a pass ends without a call of its objective although ascent and descent
                differ, or where another method of the optimizer has ended the loop.
            ValueError: from the loop, for sparse gradients or a negative ``rho``.
        """
        self._settle("passes()")
        context = self._context
        context.grad_scale, context.by_scaler = grad_scale, False
        return Passes(self.estimator.passes(context), context)

    @property
    def objective(self) -> Objective:
        """The objective of the running pass, for closures; RuntimeError where no pass is running."""
        if self._context.objective is None:
            raise RuntimeError("opt.objective exists while a pass runs: use it in the closure of step(closure)")
        return self._context.objective

    @property
    def last(self) -> StepStats:
        """What the last climb did; reading its properties waits for the device."""
        return self._context.last

    @property
    def memory(self) -> Memory:
        """What the choices remember, saved in ``state_dict()``."""
        return self._context.memory

    @property
    def model(self) -> nn.Module | None:
        """The model whose buffers are kept; set it anew when an engine has wrapped it."""
        return self._context.model.module

    @model.setter
    def model(self, model: nn.Module | None) -> None:
        self._context.model = ModelInfo(model, self.base)

    def unwrap(self) -> Optimizer:
        """Return the base optimizer as it was before: its groups and defaults without our entries.

        The wrapper cannot be used afterwards. Momentum and all other state of the base stay.
        """
        self._settle("unwrap()")
        bases = self.base.optimizers if isinstance(self.base, SeveralOptimizers) else []
        for entries in (*(base.defaults for base in (self.base, *bases)), *self.base.param_groups):
            for key in [key for key in entries if key in ("rho", "initial_rho") or str(key).startswith(PREFIX)]:
                del entries[key]
        return self.base

    # -- torch.optim.Optimizer -----------------------------------------------------------------------------------

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The base optimizer's own groups."""
        return self.base.param_groups

    @param_groups.setter
    def param_groups(self, groups: list[dict[str, Any]]) -> None:
        self.base.param_groups = groups

    @property
    def state(self) -> Any:
        """The base optimizer's own state."""
        return self.base.state

    @state.setter
    def state(self, state: Any) -> None:
        self.base.state = state

    @property
    def defaults(self) -> dict[str, Any]:
        """The base optimizer's own defaults."""
        return self.base.defaults

    @defaults.setter
    def defaults(self, defaults: dict[str, Any]) -> None:
        self.base.defaults = defaults

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """False: GradScaler is to unscale the gradients before ``step()``.

        ``GradScaler.step`` reads this attribute of the optimizer right before it calls ``step()``, and nobody else
        does. So reading it is the sign that the next ``step()`` comes from there.
        """
        self._context.by_scaler = True
        return False

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Let the base optimizer update the weights.

        Args:
            closure: computes ``opt.objective(model(x), y)``, calls ``backward()`` and returns the loss, once a pass;
                without it, ``passes()`` must have run before.

        Returns:
            The closure's value in the descent pass, or what the base's ``step()`` returns.

        Raises:
            RuntimeError: no loop over ``passes()`` has run since the last step, and there are gradients; a loop was
                left before its end; called inside the loop's ascent pass; by ``GradScaler.step`` with a closure, or
                without one for a method that needs to know the scale and was not told.
        """
        context = self._context
        by_scaler, context.by_scaler = context.by_scaler, False
        value = None
        if closure is not None:
            value = self._drive(closure, by_scaler)
        else:
            self._finish_loop()
            check_gradient(context)
            if by_scaler and context.grad_scale is None:
                context.last.forget_weights()
            if by_scaler and self.estimator.needs_scale and context.grad_scale is None:
                raise RuntimeError(
                    f"{type(self).__name__} keeps, compares or averages gradients, and GradScaler changes their "
                    "scale: call opt.passes(grad_scale=scaler)"
                )
        result = self.base.step()
        self.estimator.after_step(context)
        if context.counts:  # engines step an optimizer to furnish its state: that is no step of training
            context.counts = False
            context.memory.commit_step()
            context.record.steps += context.moves
            warn_if_too_long(context, self.estimator.cadence)
        return result if closure is None else value

    def _drive(self, closure: Callable[[], Any], by_scaler: bool) -> Any:
        check_engine(closure, by_scaler=by_scaler)
        context, value = self._context, None
        loop = self.passes()
        foreign = not context.counts
        context.driving = True
        try:
            for _ in loop:
                with torch.enable_grad():
                    value = closure()
                if foreign:
                    foreign = False
                    warn_of_foreign_gradients(context)
        finally:
            context.driving = False
            loop.leave("step(closure)")
        return value

    def _finish_loop(self) -> None:
        """End the running loop, if there is one, as its last pass."""
        self._context.check_thread("step()")
        loop = self._context.live_loop
        if loop is None:
            self._context.recover()
            return
        if loop.at_descent:
            loop.finish()
        else:
            loop.leave("step()")
            raise RuntimeError(
                "step() was called in the ascent pass: call it after the loop `for objective in opt.passes()`"
            )

    def _settle(self, by: str) -> None:
        """End a loop that was left: as it would have ended if its last pass is done, else as an early exit."""
        context = self._context
        context.check_thread(by)
        loop = None if context.driving else context.live_loop
        if loop is None and not context.driving:
            context.recover()
        elif loop is not None:
            if loop.settled:
                loop.finish()
            else:
                loop.leave(by)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients; ends a loop that was left."""
        self._settle("zero_grad()")
        self._context.left = None
        if self._context.driving and self._context.saved is not None:
            self._context.saved.carried.forget()
        self.memory.clear_with_gradients()
        self.base.zero_grad(set_to_none)

    def train(self, mode: bool = True) -> None:
        """Forward to a base with modes, such as a schedule-free one; without them there is nothing to do."""
        switch = getattr(self.base, "train" if mode else "eval", None)
        if callable(switch):
            self._settle("train()" if mode else "eval()")
            switch()

    def eval(self) -> None:
        """Forward to a base with modes: evaluate and save its weights in this one."""
        self.train(False)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group to the base optimizer; it takes the default ``rho`` unless it brings its own.

        Where ``base`` holds several, the group names its own, ``{"params": ..., "optimizer": adamw}``.
        """
        self._settle("add_param_group()")
        param_group["rho"] = not_negative("rho", param_group.get("rho", self.defaults["rho"]))
        param_group |= {key: value for key, value in self.param_groups[0].items() if key.startswith(PREFIX)}
        self.base.add_param_group(param_group)
        self.model = self.model

    # -- saving and copying --------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the base optimizer's state dict; ``rho`` and the count of steps are in its param groups."""
        self._settle("state_dict()")
        for before in self._optimizer_state_dict_pre_hooks.values():  # torch runs hooks inside the methods it defines
            before(self)
        state = self.base.state_dict()
        if self.estimator.vectors:
            self.memory.save(self._params(), keys_of(state), state["state"])
        for after in self._optimizer_state_dict_post_hooks.values():
            state = _or(after(self, state), state)
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state dict of this class, or of the plain base optimizer, which keeps ``rho`` as it is."""
        self._settle("load_state_dict()")
        for before in self._optimizer_load_state_dict_pre_hooks.values():
            state_dict = _or(before(self, state_dict), state_dict)
        ours = ("rho", STEPS, *self.memory.numbers)
        mine = [{key: group[key] for key in ours if key in group} for group in self.param_groups]
        if "state" in state_dict:
            self.base.load_state_dict({**state_dict, "state": without_memory(state_dict["state"])})
            self.memory.load(self._params(), keys_of(state_dict), state_dict["state"])
        else:  # a base with a format of its own, which check_state_dict() has let pass
            self.base.load_state_dict(state_dict)
        for group, kept in zip(self.param_groups, mine, strict=True):
            for key, value in kept.items():
                group.setdefault(key, value)
        self._context.left = None
        self._context.record.opened |= self.estimator.cadence.opened_before(self.memory.step)
        for after in self._optimizer_load_state_dict_post_hooks.values():
            after(self)

    def _params(self) -> list[Tensor]:
        return [param for group in self.param_groups for param in group["params"]]

    def __getstate__(self) -> dict[str, Any]:
        """Leave out hooks, as torch does, ``step`` as a scheduler has patched it, and the running step."""
        self._settle("copying or pickling")
        left_out = ("step", "_context", "_warned_capturable_if_run_uncaptured")
        own = {k: v for k, v in vars(self).items() if not k.startswith("_optimizer_") and k not in left_out}
        return {**own, "_parts": (self.model, self.memory, self._context.record)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        own = dict(state)
        model, memory, record = own.pop("_parts")
        self.__dict__.update(own)
        self._context = StepContext(self.base, ModelInfo(model, self.base), memory)
        self._context.record = record
        self._furnish()

    def __repr__(self) -> str:
        rho = ", ".join(str(group["rho"]) for group in self.param_groups)
        shown = (key for key in Options.__annotations__ if hasattr(self.estimator, key))
        choices = "".join(f"\n    {name}: {getattr(self.estimator, name)!r}" for name in shown)
        return f"{type(self).__name__}(rho={rho}){choices}\n    base: {self.base!r}"

    def __getattr__(self, name: str) -> NoReturn:
        if name in ("first_step", "second_step"):
            raise AttributeError(
                f"{type(self).__name__} has no {name}(): write the loop `for objective in opt.passes(): "
                "objective(model(x), y).backward()` and then opt.step(), or use bisam.compat.SAM, which has both half "
                "steps"
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


def _or(new: Any, old: Any) -> Any:
    return old if new is None else new
