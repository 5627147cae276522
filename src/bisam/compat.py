"""The calling convention of older SAM code: ``first_step()`` and ``second_step()``, on top of our loop.

    from bisam.compat import SAM                     # the only line that changes

    optimizer = SAM(model.parameters(), torch.optim.SGD, rho=0.05, lr=0.1, momentum=0.9)
    loss_function(model(x), y).backward()
    optimizer.first_step(zero_grad=True)
    loss_function(model(x), y).backward()
    optimizer.second_step(zero_grad=True)

It is there to migrate in two moves: first the import, then, where BiSAM, accumulation, mixed precision or BatchNorm's
running statistics matter, the loop ``for objective in opt.passes()``. The page ``docs/migration.md`` tells the
differences.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ._step.objective import Objective
from ._step.passes import Passes
from .geometry import L2Ball, ScaledBall
from .optimizer import SharpnessAware

__all__ = ["SAM"]

#: Arguments of other implementations that base optimizers do not know, and what to do about each.
_FOREIGN = {
    "perturb_eps": "leave it out: a zero gradient leaves the weights alone, and no constant enters the norm",
    "use_gc": "leave it out: centralise the gradients yourself, between backward() and first_step()",
    "model": "set optimizer.model = model afterwards, or use bisam.SAM(base, model=model)",
}

#: What other implementations keep in the optimizer's state during a step, and so in their checkpoints.
_LEFTOVERS = ("e_w", "old_p")


class SAM(SharpnessAware):
    """SAM with the signature that most code uses: a class of optimizers, and two half steps called by hand.

    Everything else is :class:`~bisam.SharpnessAware`: groups and state are the base optimizer's own (so momentum is in
    ``state_dict()``), the weights come back bit for bit, and ``for loss in optimizer.passes()`` works here too.

    Example:
        >>> from bisam.compat import SAM
        >>> opt = SAM(model.parameters(), torch.optim.SGD, rho=0.05, lr=0.1, momentum=0.9)
        >>> nn.functional.cross_entropy(model(x), y).backward()
        >>> opt.first_step(zero_grad=True)
        >>> nn.functional.cross_entropy(model(x), y).backward()
        >>> opt.second_step(zero_grad=True)

    Args:
        params: as for any ``torch.optim`` optimizer; a group may bring its own ``rho``.
        base_optimizer: class of the optimizer that updates the weights, or another callable that builds one.
        rho: radius of the ball, >= 0.
        adaptive: scale the ball by abs(w), of every parameter and without a floor, as such code does. (ASAM's authors
            scale weights only, and by abs(w) + 0.01: that is :class:`bisam.ASAM`.)
        kwargs: passed to ``base_optimizer``.

    Raises:
        TypeError: ``base_optimizer`` is an instance, or ``kwargs`` holds an argument of another implementation.
        ValueError: ``rho < 0``, or a group whose ``adaptive`` differs from the argument.
    """

    def __init__(
        self,
        params: Iterable[Any],
        base_optimizer: Callable[..., Optimizer],
        rho: float = 0.05,
        adaptive: bool = False,
        **kwargs: Any,
    ) -> None:
        if isinstance(base_optimizer, Optimizer) or not callable(base_optimizer):
            raise TypeError(
                f"base_optimizer={base_optimizer!r} must be a class such as torch.optim.SGD, with its arguments after "
                "it; an optimizer that is built already goes into bisam.SAM(base, model=model)"
            )
        for name in _FOREIGN.keys() & kwargs.keys():
            raise TypeError(f"{name}={kwargs[name]!r} is no argument of the base optimizer: {_FOREIGN[name]}")
        base = base_optimizer(_without_names(params), **kwargs)
        _check_adaptive(base.param_groups, adaptive)
        super().__init__(base, rho=rho, geometry=ScaledBall(0.0) if adaptive else L2Ball())
        self.adaptive = adaptive
        self._loop: Passes | None = None  # held: a loop that nobody holds gives the weights back
        self._known: list[tuple[Tensor, Tensor, int]] = []
        self._entered = False

    @classmethod
    def _check_call(cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Leave the arguments to ``__init__``: most of them are the base optimizer's."""

    # -- the two half steps --------------------------------------------------------------------------------------

    def first_step(self, zero_grad: bool = False) -> None:
        """Climb to w + eps along the gradients that ``backward()`` has left in ``p.grad``.

        Args:
            zero_grad: clear these gradients. Without it they stay, and the next ``backward()`` *adds* to them unless
                ``zero_grad()`` is called in between.

        Raises:
            RuntimeError: there is no gradient, or ``first_step()`` has been called already.
        """
        if self._loop is not None:
            raise RuntimeError(
                "first_step() was called twice, so this gradient is one at w + eps: call second_step() after the "
                "second backward(), or restore() where a batch is given up"
            )
        gradients = [(p, p.grad) for p in self._params() if p.grad is not None]
        if not gradients:
            raise RuntimeError("first_step() finds no gradient: call loss.backward() before it")
        for param, _ in gradients:
            param.grad = None
        loop = super().passes()
        self._climb_by_hand(loop, next(loop), gradients, keep=not zero_grad)
        self._loop = loop
        for param, grad in () if zero_grad else gradients:
            param.grad = grad
        self._remember()

    def _climb_by_hand(
        self, loop: Passes, objective: Objective, gradients: list[tuple[Tensor, Tensor]], *, keep: bool
    ) -> None:
        """Hand the gradients in as those of the ascent pass, which uses them up; none is asked for where rho is 0."""
        if objective.is_ascent:
            for param, grad in gradients:
                param.grad = grad.clone() if keep else grad
            next(loop)

    def second_step(self, zero_grad: bool = False) -> None:
        """Go back to w, bit for bit, and let the base optimizer apply the gradients computed at w + eps.

        Args:
            zero_grad: clear the gradients afterwards.

        Raises:
            RuntimeError: without ``first_step()``, or without a ``backward()`` since.
        """
        if self._loop is None:
            raise RuntimeError(
                "second_step() without first_step(), or after state_dict(), passes() or another method that has given "
                "the weights back: call backward(), first_step(), backward(), second_step(), in this order"
            )
        self.step()
        if zero_grad:
            self.zero_grad()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Do both half steps around ``closure``, the gradients at w being in ``p.grad`` already.

        Without a closure it is ``second_step()``, so that ``scaler.step(optimizer)`` may stand for it, or the step
        after a loop over ``passes()``.

        Returns:
            What the closure returns.

        Raises:
            RuntimeError: neither ``first_step()`` nor a loop over ``passes()`` has prepared a gradient.
        """
        value = self._both(closure) if closure is not None else None
        if self._loop is not None:
            if not self._has_new_gradients():
                self.restore()
                raise RuntimeError("no gradient was computed at w + eps: call backward() between the two half steps")
            next(self._loop, None)
            self._loop = None
        elif not self._entered:
            raise RuntimeError(
                "step() needs a closure that computes the loss at w + eps, or first_step(), or a loop over passes(): "
                "a plain step would not be sharpness-aware"
            )
        self._entered = False
        super().step()
        return value

    def _both(self, closure: Callable[[], Any]) -> Any:
        self.first_step(zero_grad=True)
        try:
            with torch.enable_grad():
                return closure()
        except BaseException:
            self.restore()
            raise

    def restore(self) -> None:
        """Forget ``first_step()``: the weights go back and the gradients are cleared. Else it does nothing.

        For scripts that give up a batch between the half steps. ``state_dict()``, ``passes()`` and ``zero_grad()``
        after the second ``backward()`` (a ``GradScaler`` may have skipped the step) do it by themselves.
        """
        self._loop = None
        self._known = []

    # -- what ends a pending step --------------------------------------------------------------------------------

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients. Between the half steps it clears those at w; once there are new ones it restores."""
        if self._loop is not None and not self._has_new_gradients():
            self.base.zero_grad(set_to_none)
            self._remember()
        else:
            self.restore()
            super().zero_grad(set_to_none)

    def passes(self, *args: Any, **kwargs: Any) -> Passes:
        """See :meth:`bisam.SharpnessAware.passes`; a pending ``first_step()`` is given up."""
        self.restore()
        self._entered = True
        return super().passes(*args, **kwargs)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; see :class:`torch.optim.Optimizer`."""
        self.restore()
        _check_adaptive([param_group], self.adaptive)
        super().add_param_group(next(iter(_without_names([param_group]))))

    def state_dict(self) -> dict[str, Any]:
        """Return the base optimizer's state dict, momentum included; a pending ``first_step()`` is given up."""
        self.restore()
        return super().state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a checkpoint of this class, of the plain base optimizer, or of another SAM with this signature.

        Most of those do not save the base optimizer's state. Such a checkpoint sets ``lr`` and ``rho``, momentum starts
        from nothing, and a warning says so.

        Raises:
            ValueError: its ``adaptive`` is another one.
        """
        self.restore()
        _check_adaptive(state_dict["param_groups"], self.adaptive)
        if any(name in kept for kept in state_dict["state"].values() for name in _LEFTOVERS):
            state_dict = _without_leftovers(state_dict)
        super().load_state_dict(state_dict)

    def __getstate__(self) -> dict[str, Any]:
        self.restore()
        return super().__getstate__()

    @property
    def base_optimizer(self) -> Optimizer:
        """The base optimizer, under its usual name."""
        return self.base

    def _remember(self) -> None:
        """Note the gradients that stand now, to tell later ones from them; also where they accumulate in place.

        An in-place change shows in ``_version`` alone, which has no public name.
        """
        self._known = [(p, p.grad, p.grad._version) for p in self._params() if p.grad is not None]

    def _has_new_gradients(self) -> bool:
        known = {param: (grad, version) for param, grad, version in self._known}
        for param in self._params():
            if param.grad is not None:
                grad, version = known.get(param, (None, 0))
                if param.grad is not grad or param.grad._version != version:
                    return True
        return False


def _without_names(params: Iterable[Any]) -> Iterable[Any]:
    """Leave out parameter names: where they are known, ScaledBall tells weights from biases, and such code does not."""
    if isinstance(params, Tensor):
        raise TypeError("params is one tensor: pass a list of them, or model.parameters()")
    entries = list(params)
    return [
        {**entry, "params": _without_names(_listed(entry["params"]))}
        if isinstance(entry, Mapping)
        else entry[1]
        if isinstance(entry, tuple)
        else entry
        for entry in entries
    ]


def _listed(params: Any) -> Iterable[Any]:
    return [params] if isinstance(params, Tensor) else params


def _check_adaptive(groups: Iterable[Mapping[str, Any]], adaptive: bool) -> None:
    for group in groups:
        if bool(group.get("adaptive", adaptive)) != bool(adaptive):
            raise ValueError(
                f"adaptive={group['adaptive']!r} in a param group, but adaptive={adaptive!r} for the optimizer: it is "
                "one choice for all groups here, so build SAM(..., adaptive=...) to match"
            )


def _without_leftovers(state_dict: Mapping[str, Any]) -> dict[str, Any]:
    state = {
        key: {name: value for name, value in kept.items() if name not in _LEFTOVERS}
        for key, kept in state_dict["state"].items()
    }
    state = {key: kept for key, kept in state.items() if kept}
    if not state:
        warnings.warn(
            "this checkpoint was written by a SAM that does not save the base optimizer's state: learning rate and rho "
            "are loaded, momentum and the like start from nothing",
            stacklevel=3,
        )
    return {**state_dict, "state": state}
