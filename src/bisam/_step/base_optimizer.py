"""What must be true of a base optimizer, and of the call that wraps it."""

import difflib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from .._vectors.memory import STEPS
from .several import SeveralOptimizers

__all__ = ["check_call", "check_state_dict", "joined"]

#: Arguments of other implementations, and what to write here.
_ELSEWHERE = {
    "adaptive": "use bisam.ASAM(base, ...), or geometry=ScaledBall()",
    "base_optimizer": "wrap a built optimizer, or use bisam.compat.SAM",
    "params": "wrap a built optimizer, or use bisam.compat.SAM",
    "optimizer": "it is the first argument, without a name",
    **dict.fromkeys(
        ("lr", "momentum", "weight_decay", "betas", "eps", "nesterov"),
        "it belongs to the base optimizer, torch.optim.SGD(model.parameters(), lr=0.1)",
    ),
}


def joined(name: str, base: Any) -> Optimizer:
    """Return the base optimizer; several in a list become one.

    Args:
        name: of the class that is being built, for the message.
        base: what was passed.

    Raises:
        TypeError: something is no optimizer.
        ValueError: something cannot be wrapped.
    """
    several = isinstance(base, list | tuple) and (not base or any(isinstance(entry, Optimizer) for entry in base))
    for number, entry in enumerate(base if several else [base]):
        _check_base(name, entry, f"base[{number}]" if several else "base")
    return SeveralOptimizers(base) if several else base


def check_state_dict(base: Optimizer, vectors: Iterable[str]) -> None:
    """Refuse a base optimizer whose state dict has no place for what the method remembers.

    Args:
        base: the optimizer.
        vectors: names of what the method remembers of each parameter.

    Raises:
        ValueError: ``base`` has a format of its own, and there is something to remember.
    """
    names = list(vectors)
    if not names or type(base).state_dict is Optimizer.state_dict:
        return
    try:
        keys = base.state_dict().keys()
    except RuntimeError:  # one that has to be gathered first (ZeroRedundancyOptimizer) cannot be looked at now
        return
    if not {"state", "param_groups"} <= keys:
        raise ValueError(
            f"base={type(base).__name__} saves {sorted(map(str, keys))} instead of torch's 'state' and 'param_groups', "
            f"so a checkpoint would lose what this method remembers ({', '.join(names)}): wrap the optimizer inside of "
            "it, or use a method without memory, such as SAM"
        )


def _check_base(name: str, base: Any, where: str) -> None:
    """Refuse what cannot be wrapped, with the reason and the remedy.

    Args:
        name: of the class that is being built, for the message.
        base: what was passed.
        where: what to call it in the message.

    Raises:
        TypeError: it is no optimizer, or a sharpness-aware one.
        ValueError: it is one that cannot be wrapped.
    """
    if hasattr(type(base), "passes"):
        raise TypeError(f"{where} is a {type(base).__name__} already: wrap the plain optimizer, {where}.unwrap()")
    if not isinstance(base, Optimizer):
        raise TypeError(_not_an_optimizer(name, base, where))
    if isinstance(base, torch.optim.LBFGS):
        raise ValueError(
            f"{where}=LBFGS evaluates the loss itself, as often as it likes: use SGD, AdamW or another one"
        )
    if STEPS in base.defaults:
        raise ValueError(
            f"{where} is wrapped by a sharpness-aware optimizer already: build a new one for a second wrapper, or give "
            "it back first, base = opt.unwrap()"
        )
    if "rho" in base.defaults:
        raise ValueError(
            f"{where}={type(base).__name__} has a rho of its own, which is no radius: use AdamW or another one"
        )


def _not_an_optimizer(name: str, base: Any, where: str = "base") -> str:
    build = f"{name}(torch.optim.SGD(model.parameters(), lr=0.1), model=model)"
    if isinstance(base, type) and issubclass(base, Optimizer):
        return (
            f"{where}={base.__name__} is a class: build the optimizer first, {name}({base.__name__}(...), model=model)"
        )
    if isinstance(base, Iterable) and not isinstance(base, Tensor | str | bytes):
        return (
            f"{where} is a {type(base).__name__}, not an optimizer: {name} wraps a built one, {build}. For the "
            "signature of older SAM code, (params, base_class, rho=...), use bisam.compat.SAM"
        )
    return f"{where}={base!r} must be an optimizer: {build}"


def check_call(cls: type, args: tuple[Any, ...], kwargs: Mapping[str, Any], options: Iterable[str]) -> None:
    """Refuse arguments that a constructor around ``base`` does not take, before Python does it without a remedy.

    Args:
        cls: the class that is being built.
        args: positional arguments.
        kwargs: keyword arguments.
        options: names that ``**options`` stands for in the constructors of this library.

    Raises:
        TypeError: naming the argument and what to write.
    """
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]  # type: ignore[misc]
    if not parameters or parameters[0].name != "base":
        return  # a class of somebody's own, with another signature
    if args and not isinstance(args[0], Optimizer):
        joined(cls.__name__, args[0])
    if len(args) > 1:
        if all(isinstance(arg, Optimizer) for arg in args):
            raise TypeError(
                f"{cls.__name__} got {len(args)} optimizers: pass them in a list, {cls.__name__}([a, b], ...)"
            )
        raise TypeError(
            f"{cls.__name__} takes one positional argument, the optimizer to wrap, and got {len(args)}: name the "
            f"others, {cls.__name__}(base, model=model, rho=0.05)"
        )
    anything = [p for p in parameters if p.kind is p.VAR_KEYWORD]
    if anything and "Options" not in str(anything[0].annotation):
        return
    known = {p.name for p in parameters} | set(options if anything else ())
    for name in kwargs.keys() - known:
        near = difflib.get_close_matches(name, known, n=1)
        remedy = _ELSEWHERE.get(name) or (
            f"did you mean {near[0]}=?" if near else f"it takes {', '.join(sorted(known))}"
        )
        raise TypeError(f"{name}={kwargs[name]!r} is no argument of {cls.__name__}: {remedy}")
