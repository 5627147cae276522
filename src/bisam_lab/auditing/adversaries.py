"""The adversaries of an audit: each moves the weights to w + eps, inside of a radius.

A name is one that ``bisam compare`` knows, or one of :data:`OTHERS`. What counts of a method is how it perturbs: its
objective, direction, geometry and radius. On which steps it does and what it makes of the gradient afterwards is of no
account here.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from bisam import SharpnessAware
from bisam.ascent import StoredAscent

from ..errors import nearest, shown
from ..registry.methods import Method, twins
from .batches import Batch, logits_of

__all__ = ["DEFAULT", "OTHERS", "STEPS", "Adversary", "Objective", "adversaries", "length_of"]

Objective: TypeAlias = Callable[[Tensor, Tensor], Tensor]
Gradients: TypeAlias = list[Tensor]

#: What an audit compares unless it is told.
DEFAULT = ("sam", "smoothed", "bisam-tanh", "bisam-log", "random")
#: Adversaries that are no methods to train with.
OTHERS = {
    "smoothed": "one step along the gradient of cross-entropy with label smoothing .1",
    "random": "a random direction of the same length, the same for every radius",
    "projected": "ten projected steps up cross-entropy: what a better adversary than SAM's one step could reach",
}
#: Steps of ``projected``.
STEPS = 10
SMOOTHING = 0.1


@dataclass(frozen=True)
class Adversary:
    """One that is audited.

    Attributes:
        name: as it is shown.
        opt: moves the weights.
        objective: that it climbs; None: a random direction.
        ratio: its radius, as a multiple of SAM's.
        parts: the batch is split into so many, each with a perturbation of its own (mSAM).
        share: of the batch that it climbs on.
        steps: more than one: projected ascent.
    """

    name: str
    opt: SharpnessAware
    objective: Objective | None
    ratio: float = 1.0
    parts: int = 1
    share: float = 1.0
    steps: int = 1

    @contextmanager
    def at_perturbed(
        self, model: nn.Module, batch: Batch, logits: Tensor, ascent: Gradients, rho: float
    ) -> Iterator[bool]:
        """Move the weights to w + eps for the time of the block, which gets whether they have moved.

        Args:
            model: the network.
            batch: that is climbed.
            logits: of the batch at w.
            ascent: gradient of the objective at w, one tensor a parameter that needs one.
            rho: SAM's radius.
        """
        params = [param for param in model.parameters() if param.requires_grad]
        if self.steps > 1:
            with _projected(model, batch, ascent, rho, self.steps, params) as moved:
                yield moved
            return
        for group in self.opt.param_groups:
            group["rho"] = self.ratio * rho
        try:
            for objective in self.opt.passes():
                objective(logits.detach(), batch.y)
                if not objective.is_ascent:
                    yield self.opt.last.perturbed
                    return
                for param, gradient in zip(params, ascent, strict=True):
                    param.grad = gradient.clone()
        finally:
            self.opt.zero_grad()  # ends the loop, which puts the weights back

    def gradient(self, logits: Tensor, y: Tensor, params: Sequence[Tensor]) -> Gradients:
        """Return what it climbs along: the gradient of its objective at w, or a random vector."""
        if self.objective is None:
            return [torch.randn_like(param) for param in params]
        found = torch.autograd.grad(self.objective(logits, y), params, retain_graph=True, allow_unused=True)
        return [torch.zeros_like(p) if g is None else g for p, g in zip(params, found, strict=True)]


@contextmanager
def _projected(
    model: nn.Module, batch: Batch, ascent: Gradients, rho: float, steps: int, params: Sequence[Tensor]
) -> Iterator[bool]:
    """Climb cross-entropy by steps of 2.5 rho / steps, projected into the ball (Madry et al., arXiv 1706.06083)."""
    at_w = [param.detach().clone() for param in params]
    gradient, moved = ascent, False
    try:
        for step in range(steps):
            length = length_of(gradient)
            if not 0 < length < math.inf:
                break
            moved = True
            with torch.no_grad():
                for param, entry in zip(params, gradient, strict=True):
                    param.add_(entry, alpha=2.5 * rho / steps / length)
                eps = [param - start for param, start in zip(params, at_w, strict=True)]
                factor = min(1.0, rho / length_of(eps))
                for param, start, entry in zip(params, at_w, eps, strict=True):
                    param.copy_(start + factor * entry)
            if step < steps - 1:
                loss = nn.functional.cross_entropy(logits_of(model, batch), batch.y)
                gradient = list(torch.autograd.grad(loss, params, materialize_grads=True, allow_unused=True))
        yield moved
    finally:
        with torch.no_grad():
            for param, start in zip(params, at_w, strict=True):
                param.copy_(start)


def length_of(vector: Sequence[Tensor]) -> float:
    """Return the l2 norm of a vector in pieces, also where float32 cannot hold the squares."""
    return math.sqrt(sum(float(piece.double().square().sum()) for piece in vector))


def adversaries(wanted: "Sequence[str] | Mapping[str, Objective | None]", model: nn.Module) -> list[Adversary]:
    """Build adversaries of a network.

    Args:
        wanted: names; or a mapping from names to objectives of one's own, called as (logits, target). None stands for
            the method of that name.
        model: the network.

    Raises:
        TypeError: neither.
        ValueError: no adversary, an unknown one, one that is there twice, or that an audit cannot look at.
    """
    if isinstance(wanted, str):
        raise TypeError(f"adversaries={wanted!r} must be a list of names: adversaries=[{wanted!r}]")
    given = dict(wanted) if isinstance(wanted, Mapping) else dict.fromkeys(wanted)
    if not given or len(given) < len(wanted):
        raise ValueError(f"adversaries={shown(list(wanted))} must name one adversary or more, each once")
    plain = [name for name, own in given.items() if own is None and name not in OTHERS]
    built = [_adversary(name, own, model) for name, own in given.items()]
    if (two := twins(plain)) is not None:
        raise ValueError(f"adversaries: {two[0]} and {two[1]} are the same method: leave one out")
    return built


def _adversary(name: str, own: "Objective | None", model: nn.Module) -> Adversary:
    if not isinstance(name, str):
        raise TypeError(f"adversaries: {name!r} must be a name")
    if own is not None and name == "sam":
        raise ValueError("adversaries: sam is what all are compared with: call an objective of your own otherwise")
    if own is not None and not callable(own):
        raise TypeError(f"adversaries[{name!r}]={own!r} must be callable(logits, target), or None for the method")
    if own is not None:
        return Adversary(name, _sam(model), own)
    if name in OTHERS:
        smoothing = SMOOTHING if name == "smoothed" else 0.0
        objective = None if name == "random" else nn.CrossEntropyLoss(label_smoothing=smoothing)
        return Adversary(name, _sam(model), objective, steps=STEPS if name == "projected" else 1)
    return _of_method(name, model)


def _of_method(name: str, model: nn.Module) -> Adversary:
    try:
        method = Method(name, {})
    except ValueError as error:
        hint = nearest(name, OTHERS)
        raise ValueError(f"adversaries: {shown(name)} is none of {', '.join(OTHERS)}{hint}, and {error}") from None
    if method.plain:
        raise ValueError(f"adversaries: {name} is the optimizer alone, which perturbs nothing: leave it out")
    if method.gives_radius:
        raise ValueError(f"adversaries: {name} has a radius of its own, and rhos= are the radii: leave @rho out")
    if isinstance(method.choices(steps=1, epochs=1).get("ascent"), StoredAscent):
        raise ValueError(
            f"adversaries: {name} climbs along what an optimizer remembers, and weights alone tell nothing of it: "
            "leave it out"
        )
    opt, part = method.climber(_base(model), model=model), method.sub_batch
    assert not isinstance(opt.estimator.ascent, StoredAscent)
    return Adversary(
        name,
        opt,
        opt.estimator.ascent,
        ratio=method.radius(1.0, {}),
        parts=method.micro_batches,
        share=1.0 if part is None else part.share,
    )


def _base(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD([param for param in model.parameters() if param.requires_grad], lr=0.0)


def _sam(model: nn.Module) -> SharpnessAware:
    return Method("sam", {}).climber(_base(model), model=model)
