"""Who takes the steps: ours, and how the same step is written elsewhere."""

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from workloads import base

from bisam import METHODS, SAM, SSAM, BiSAM, LowerBoundLoss, SharpnessAware, TailSAM
from bisam.combine import Blend, Reuse, Surrogate
from bisam.direction import Friendly, Smoothed
from bisam.geometry import RandomSupport, ScaledBall

__all__ = ["CONTESTANTS", "PEERS", "Step", "floor", "ours"]

#: Takes one step, and returns its number of passes.
Step = Callable[[], int]

#: Every named method, and combinations: ``make(base, model=model)``.
CONTESTANTS: dict[str, Callable[..., SharpnessAware]] = {
    **METHODS,
    "tailsam": lambda base, model: TailSAM(base, model=model, total_steps=1000, tail=1.0),  # every step perturbs
    "bisam+asam": lambda base, model: BiSAM(base, model=model, geometry=ScaledBall()),
    "bisam+gsam": lambda base, model: BiSAM(base, model=model, combine=Surrogate(), third_pass=True),
    "bisam+vasso": lambda base, model: BiSAM(base, model=model, direction=Smoothed()),
    "esam+asam": lambda base, model: SAM(base, model=model, geometry=RandomSupport(inner=ScaledBall())),
    "ssam+wsam": lambda base, model: SSAM(base, model=model, combine=Blend(0.7)),
    "f-sam+looksam": lambda base, model: SAM(
        base, model=model, ascent=LowerBoundLoss(), direction=Friendly(), combine=Reuse(), third_pass=True
    ),
}


def floor(passes: int, model: nn.Module, x: Tensor, y: Tensor) -> Step:
    """A step that nothing can go below: its forward-backward passes, and one step of the base optimizer."""
    loss, optimizer = nn.CrossEntropyLoss(), base(model)

    def step() -> int:
        for _ in range(passes):
            optimizer.zero_grad()
            loss(model(x), y).backward()
        optimizer.step()
        return passes

    return step


def ours(name: str, model: nn.Module, x: Tensor, y: Tensor) -> Step:
    """A step of one of ours."""
    opt = CONTESTANTS[name](base(model), model=model)

    def step() -> int:
        passes = 0
        for objective in opt.passes():
            objective(model(x), y).backward()
            passes += 1
        opt.step()
        opt.zero_grad()
        return passes

    return step


def textbook(model: nn.Module, x: Tensor, y: Tensor) -> Step:
    """SAM as it is mostly written: a loop over the parameters, with a clone of each kept in the state."""
    return _by_hand(lambda logits: nn.functional.cross_entropy(logits, y), model, x, y)


def official(model: nn.Module, x: Tensor, y: Tensor) -> Step:
    """BiSAM as its authors' loop computes it: the true logit is subtracted sample by sample, in Python (mu 1, log)."""
    gamma = torch.log(torch.exp(torch.tensor(1.0)) - 1)

    def lower_bound(logits: Tensor) -> Tensor:
        margins = logits.clone()
        for i in range(len(logits)):
            margins[i] = logits[i] - logits[i, y[i]]
        phi = 1 - torch.log(1 + torch.exp(gamma - margins))
        return torch.logsumexp(phi, 1).mean()

    return _by_hand(lower_bound, model, x, y)


def _by_hand(ascent: Callable[[Tensor], Tensor], model: nn.Module, x: Tensor, y: Tensor) -> Step:
    descent, optimizer, rho = nn.CrossEntropyLoss(), base(model), 0.05
    params = [p for p in model.parameters() if p.requires_grad]

    def step() -> int:
        torch.autograd.backward(ascent(model(x)))
        with torch.no_grad():
            length = torch.stack([p.grad.norm() for p in params if p.grad is not None]).norm()
            factor = rho / (length + 1e-12)
            before = {}
            for p in params:
                if p.grad is not None:
                    before[p] = p.detach().clone()
                    p.add_(p.grad * factor)
        optimizer.zero_grad()
        descent(model(x), y).backward()
        with torch.no_grad():
            for p, weight in before.items():
                p.data = weight
        optimizer.step()
        optimizer.zero_grad()
        return 2

    return step


def package(kind: str, model: nn.Module, x: Tensor, y: Tensor) -> Step:
    """A step of pytorch_optimizer's version, over lists of tensors (``foreach=True``)."""
    library: Any = importlib.import_module("pytorch_optimizer")
    loss, cls = nn.CrossEntropyLoss(), getattr(library, "SAM" if kind == "ASAM" else kind)
    params = [p for p in model.parameters() if p.requires_grad]
    given: dict[str, Any] = {"lr": 1e-6, "momentum": 0.9, "foreach": True}
    if kind == "GSAM":
        radius = library.ProportionScheduler(_Constant(), 1.0, 1.0, 0.05, 0.05)
        opt = cls(params, base(model), model, radius, foreach=True)
    elif kind == "WSAM":
        opt = cls(model, params, torch.optim.SGD, decouple=False, **given)
    elif kind == "ASAM":
        opt = cls(params, torch.optim.SGD, adaptive=True, **given)
    else:
        opt = cls(params, torch.optim.SGD, **given, **({"k": 5} if kind == "LookSAM" else {}))
    ran = 0

    def closure() -> Tensor:
        nonlocal ran
        ran += 1
        opt.zero_grad()
        with torch.enable_grad():
            value: Tensor = loss(model(x), y)
        torch.autograd.backward(value)
        return value

    def step() -> int:
        nonlocal ran
        ran = 0
        if kind == "GSAM":
            opt.step(lambda: (None, closure()))
        else:
            closure()
            opt.step(closure)
        opt.zero_grad()
        return ran

    return step


class _Constant:
    """What its GSAM asks of a learning rate schedule."""

    last_lr = (1.0,)


#: Names of the peers' steps, with the method of ours that each is.
PEERS: dict[str, tuple[str, Callable[..., Step]]] = {
    "loop over parameters": ("sam", textbook),
    "official BiSAM": ("bisam", official),
    "pytorch_optimizer SAM": ("sam", lambda *problem: package("SAM", *problem)),
    "pytorch_optimizer ASAM": ("asam", lambda *problem: package("ASAM", *problem)),
    "pytorch_optimizer GSAM": ("gsam", lambda *problem: package("GSAM", *problem)),
    "pytorch_optimizer WSAM": ("wsam", lambda *problem: package("WSAM", *problem)),
    "pytorch_optimizer LookSAM": ("looksam", lambda *problem: package("LookSAM", *problem)),
    "pytorch_optimizer FriendlySAM": ("friendlysam", lambda *problem: package("FriendlySAM", *problem)),
}
