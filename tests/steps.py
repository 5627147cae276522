"""What tests of a step share: a batch, a base optimizer, the loop, and what can be seen of a perturbation."""

import torch

from bisam import SAM
from bisam.testing import batches
from tests.makers import MAKERS

__all__ = ["NEEDS_THIRD_PASS", "NUMBERS", "X", "Y", "build", "moves", "perturbations", "saved", "sgd", "turn"]

#: A batch for :class:`bisam.testing.Net`.
X, Y = batches(1)[0]

#: Each method's numbers in comparisons: large enough that a mistake shows.
NUMBERS = {
    "sam": {"rho": 0.1},
    "asam": {"rho": 0.5, "eta": 0.01},
    "bisam": {"rho": 0.1},
    "esam": {"rho": 0.1, "beta": 0.6},
    "gsam": {"rho": 0.1, "alpha": 0.4},
    "wsam": {"rho": 0.05, "gamma": 0.7},
    "looksam": {"rho": 0.1, "k": 3, "alpha": 0.3},
    "friendlysam": {"rho": 0.1, "sigma": 0.8, "decay": 0.6},
    "vasso": {"rho": 0.1, "theta": 0.4},
    "samon": {"rho": 0.5},
    "fishersam": {"rho": 0.1, "eta": 1.0},
    "ssam": {"rho": 0.1, "sparsity": 0.5, "every": 10, "drop_rate": 0.5, "total_steps": 100},
    "aesam": {"rho": 0.1, "total_steps": 100},
    "tailsam": {"rho": 0.1, "total_steps": 100, "tail": 0.3},
    "momentumsam": {"rho": 0.3},
    "asyncsam": {"rho": 0.1},
    "usam": {"rho": 0.1, "lambda_": 0.3},
    "lesam": {"rho": 0.3, "sigma": 0.05},
    "stablesam": {"rho": 0.1},
    "functionalsam": {"rho": 0.1},
}

#: They need the descent objective's gradient at w, so under a lower bound they take a third pass.
NEEDS_THIRD_PASS = {"gsam", "wsam", "looksam", "aesam", "stablesam"}


def sgd(model, lr=0.1, momentum=0.9):
    """Build the base optimizer."""
    return torch.optim.SGD(model.parameters(), lr=lr, momentum=momentum)


def build(name, model, **more):
    """Build a method by name, with its ``NUMBERS``."""
    return MAKERS[name](sgd(model, lr=0.05), model=model, **{**NUMBERS[name], **more})


def turn(opt, model, x=X, y=Y):
    """Run the loop once, without ``step()``."""
    for objective in opt.passes():
        objective(model(x), y).backward()


def moves(opt, model, x=X, y=Y):
    """Return the perturbation of every parameter, seen from inside the last pass."""
    before = [p.detach().clone() for p in model.parameters()]
    for objective in opt.passes():
        if not objective.is_ascent:
            eps = [p.detach() - b for p, b in zip(model.parameters(), before, strict=True)]
        objective(model(x), y).backward()
    return eps


def perturbations(params, gradients, rho=1.0, method=SAM, **choices):
    """Return the perturbation of each of ``params`` whose ascent gradients are ``gradients``, in float64."""
    opt = method(
        torch.optim.SGD(params, lr=0.1), rho=rho, descent=lambda: torch.zeros((), requires_grad=True), **choices
    )
    before = [p.detach().clone() for p in params]
    loop = opt.passes()
    next(loop)
    for p, g in zip(params, gradients, strict=True):
        p.grad = g.clone()
    next(loop)
    moved = [(p.detach() - b).double() for p, b in zip(params, before, strict=True)]
    del loop
    return moved


def saved(opt):
    """Return copies of the vectors that a method remembers, as its state dict holds them."""
    state = opt.state_dict()["state"]
    return [v.clone() for own in state.values() for k, v in own.items() if k.startswith("sharpness_")]
