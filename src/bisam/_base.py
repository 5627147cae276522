"""What must be true of a base optimizer, and what is learnt from it and from its caller."""

import sys

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .estimator import STEPS

__all__ = ["check_base", "grad_scaler_calls", "parameter_names"]


def check_base(base: Optimizer) -> None:
    """Refuse what cannot be wrapped, with the reason."""
    if not isinstance(base, Optimizer):
        raise TypeError(
            f"base={base!r} must be an optimizer, for instance "
            "SAM(torch.optim.SGD(model.parameters(), lr=0.1), model=model)"
        )
    if isinstance(base, torch.optim.LBFGS):
        raise ValueError("base=LBFGS evaluates the loss itself, as often as it likes: use SGD, AdamW or another one")
    if "rho" in base.defaults and STEPS not in base.defaults:
        raise ValueError(
            f"base={type(base).__name__} has a rho of its own, which is no radius: use AdamW or another one"
        )
    if any(hasattr(p, "device_mesh") for group in base.param_groups for p in group["params"]):
        raise ValueError(
            "base holds sharded parameters (DTensor), whose norms would be taken per shard: not supported yet"
        )
    if STEPS in base.defaults:
        raise ValueError("base is wrapped by a sharpness-aware optimizer already: build a new one for a second wrapper")


def parameter_names(base: Optimizer, model: nn.Module | None) -> dict[Tensor, str]:
    """Names of the parameters, from the model or from a base built of named parameters."""
    params = [p for group in base.param_groups for p in group["params"]]
    if model is not None:
        names: dict[Tensor, str] = {param: name for name, param in model.named_parameters()}
        if not any(param in names for param in params):
            raise ValueError("model= has none of the parameters of base: pass the model that base was built on")
        return names
    return {
        param: name
        for group in base.param_groups
        for name, param in zip(group.get("param_names", ()), group["params"], strict=False)
    }


def grad_scaler_calls() -> bool:
    """Whether ``GradScaler.step`` is on the way here: nothing else tells scaled closures from plain ones."""
    frame = sys._getframe(1)
    for _ in range(10):
        if isinstance(frame.f_locals.get("self"), torch.amp.GradScaler):
            return bool(frame.f_locals["self"].is_enabled())
        if frame.f_back is None:
            break
        frame = frame.f_back
    return False
