"""Other packages' versions of our methods, where they are installed: around the same base, in their own loops.

A loop is the one that the package's documentation prints. It clips no gradients and has no place for a GradScaler.
"""

import copy
import importlib
from collections.abc import Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from bisam.cadence import Every

from ..data import Examples
from ..registry.methods import Method
from .contestants import Contestant, Problem

__all__ = ["PACKAGE", "installed", "peer", "peer_name"]

#: The package, as it is imported.
PACKAGE = "pytorch_optimizer"

#: Its class for a method of ours, and the arguments that make it the same method.
_CLASSES: dict[str, tuple[str, dict[str, Any]]] = {
    "sam": ("SAM", {}),
    "asam": ("SAM", {"adaptive": True}),
    "gsam": ("GSAM", {}),
    "wsam": ("WSAM", {"decouple": False}),
    "looksam": ("LookSAM", {}),
    "friendlysam": ("FriendlySAM", {}),
}


def installed() -> str | None:
    """Return the package with its version, or None."""
    try:
        return f"{PACKAGE} {version(PACKAGE)}"
    except PackageNotFoundError:
        return None


def peer_name(method: Method) -> str | None:
    """Return what the peer of a method is called, if it has one."""
    if len(method.parts) > 1 or method.parts[0] not in _CLASSES:
        return None
    kind, given = _CLASSES[method.parts[0]]
    return kind + (" (adaptive)" if "adaptive" in given else "")


def peer(method: Method, problem: Problem) -> Contestant:
    """Return the method's peer, ready to take steps.

    Raises:
        Exception: whatever the package raises; ImportError, AttributeError where it has no such class.
        ValueError: a precision that its loop cannot do.
    """
    if getattr(problem.fabric.strategy.precision, "scaler", None) is not None:
        raise ValueError(f"its loop has no place for the GradScaler of {problem.recipe.engine.precision}")
    model = copy.deepcopy(problem.model)
    net = problem.fabric.setup_module(model)
    optimizer, step = _build(method, problem, model, net)
    schedule = problem.schedule(optimizer)

    def run(batches: Iterable[Examples]) -> None:
        net.train()
        for batch in batches:
            step(batch)
            optimizer.zero_grad()
            schedule.step()

    cycle = _k(method) if method.parts == ["looksam"] else 1
    return Contestant(peer_name(method) or "", model, run, cycle, peer=installed())


def _build(
    method: Method, problem: Problem, model: nn.Module, net: Any
) -> tuple[Optimizer, Callable[[Examples], object]]:
    """Return the package's optimizer and how it takes a step on a batch."""
    package: Any = importlib.import_module(PACKAGE)
    name, given = _CLASSES[method.parts[0]]
    kind, sharpness = getattr(package, name), problem.recipe.sharpness
    base, arguments = problem.base()
    rho = method.radius(sharpness.rho, sharpness.radii)
    if name == "GSAM":
        inner = base(model.parameters(), **arguments)
        lr = arguments["lr"]
        radius = package.ProportionScheduler(problem.schedule(inner), lr, lr, rho, rho)
        gsam = kind(model.parameters(), inner, net, radius)

        def surrogate(batch: Examples) -> None:
            call = torch.enable_grad()(problem.closure(net, gsam, batch))
            gsam.step(lambda: (None, call()))  # what its set_closure would make, but for Fabric's backward
            gsam.update_rho_t()

        return gsam, surrogate
    if name == "WSAM":
        wsam = kind(net, model.parameters(), base, rho=rho, **given, **arguments)
        return wsam, lambda batch: wsam.step(problem.closure(net, wsam, batch))
    extra = {"k": _k(method)} if name == "LookSAM" else {}
    optimizer = kind(model.parameters(), base, rho=rho, **given, **extra, **arguments)

    def step(batch: Examples) -> None:
        closure = problem.closure(net, optimizer, batch)
        closure()
        optimizer.step(closure)

    return optimizer, step


def _k(method: Method) -> int:
    cadence = method.choices(1, 1)["cadence"]
    return cadence.k if isinstance(cadence, Every) else 1
