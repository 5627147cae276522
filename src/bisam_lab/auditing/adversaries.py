"""The adversaries of an audit: each moves the weights to w + eps, inside of a radius.

A name is one that ``bisam compare`` knows, or one of :data:`OTHERS`. What counts of a method is how it perturbs: its
objective, direction, geometry and radius. On which steps it does and what it makes of the gradient afterwards is of no
account here. A method that perturbs by what it remembers of its training is refused: weights alone tell nothing of it.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor, nn

from bisam import METHODS, SharpnessAware
from bisam.ascent import StoredAscent
from bisam.choice import Choice

from ..errors import nearest, shown
from ..registry.methods import Method, canonical, names, twins
from .batches import Batch, logits_of

__all__ = ["DEFAULT", "OTHERS", "Adversary", "Objective", "adversaries", "check_names", "length_of"]

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
#: Axes of a method that decide how it perturbs.
PERTURBS = ("ascent", "direction", "geometry", "radius")


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
        does_more: than perturb: the method has steps, or makes a gradient, that an audit does not look at.
        drawn: builds ``opt`` with random supports of their own for a number; None where nothing is drawn.
    """

    name: str
    opt: SharpnessAware
    objective: Objective | None
    ratio: float = 1.0
    parts: int = 1
    share: float = 1.0
    steps: int = 1
    does_more: bool = False
    drawn: Callable[[int], SharpnessAware] | None = None

    @property
    def whole(self) -> bool:
        """Whether it climbs the whole batch at once."""
        return self.parts == 1 and self.share == 1

    def of_batch(self, number: int) -> "Adversary":
        """Return it with the random supports of a batch, which are others on each one, as in training."""
        return self if self.drawn is None else replace(self, opt=self.drawn(number))

    @contextmanager
    def at_perturbed(
        self, model: nn.Module, batch: Batch, logits: Tensor, ascent: Gradients, rho: float
    ) -> Iterator[None]:
        """Move the weights to w + eps for the time of the block.

        Args:
            model: the network.
            batch: that is climbed.
            logits: of the batch at w.
            ascent: gradient of the objective at w, one tensor a parameter that needs one.
            rho: SAM's radius.
        """
        params = [param for param in model.parameters() if param.requires_grad]
        if self.steps > 1:
            with _projected(model, batch, ascent, rho, self.steps, params):
                yield
            return
        for group in self.opt.param_groups:
            group["rho"] = self.ratio * rho
        try:
            for objective in self.opt.passes():
                objective(logits.detach(), batch.y)
                if not objective.is_ascent:
                    yield
                    return
                for param, gradient in zip(params, ascent, strict=True):
                    param.grad = gradient.clone()
        finally:
            self.opt.zero_grad()  # ends the loop, which puts the weights back

    def gradient(self, logits: Tensor, y: Tensor, params: Sequence[Tensor]) -> Gradients:
        """Return what it climbs along: the gradient of its objective at w, or a random vector."""
        if self.objective is None:
            return [torch.randn_like(param) for param in params]
        value = self._value(logits, y)
        return list(torch.autograd.grad(value, params, retain_graph=True, materialize_grads=True, allow_unused=True))

    def weights(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the norm of its objective's gradient at each sample's logits (B,), on the CPU; zeros for none."""
        if self.objective is None:
            return torch.zeros(len(y), dtype=torch.float64)
        at = logits.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(self._value(at, y), at)
        norms: Tensor = gradient.double().norm(dim=1).cpu()
        return norms

    def _value(self, logits: Tensor, y: Tensor) -> Tensor:
        assert self.objective is not None
        value = self.objective(logits, y)
        if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
            raise TypeError(
                f"adversaries[{self.name!r}] returned {_described(value)}: it must return a scalar tensor that has a "
                "gradient at the logits"
            )
        return value


@contextmanager
def _projected(
    model: nn.Module, batch: Batch, ascent: Gradients, rho: float, steps: int, params: Sequence[Tensor]
) -> Iterator[None]:
    """Climb cross-entropy by steps of 2.5 rho / steps, projected into the ball (Madry et al., arXiv 1706.06083)."""
    at_w = [param.detach().clone() for param in params]
    try:
        for step in range(steps):
            if step:
                loss = nn.functional.cross_entropy(logits_of(model, batch), batch.y)
                ascent = list(torch.autograd.grad(loss, params, materialize_grads=True, allow_unused=True))
            length = length_of(ascent)
            if not 0 < length < math.inf:
                break
            with torch.no_grad():
                for param, entry in zip(params, ascent, strict=True):
                    param.add_(entry, alpha=2.5 * rho / steps / length)
                eps = [param - start for param, start in zip(params, at_w, strict=True)]
                factor = rho / max(rho, length_of(eps))  # eps is zero where low precision swallows the step
                for param, start, entry in zip(params, at_w, eps, strict=True):
                    param.copy_(start + factor * entry)
        yield
    finally:
        with torch.no_grad():
            for param, start in zip(params, at_w, strict=True):
                param.copy_(start)


def _described(value: object) -> str:
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    return f"a tensor of shape {tuple(value.shape)}" + ("" if value.requires_grad else " without a gradient")


def length_of(vector: Sequence[Tensor]) -> float:
    """Return the l2 norm of a vector in pieces, also where float32 cannot hold the squares."""
    return math.sqrt(sum(float(piece.double().square().sum()) for piece in vector))


def check_names(wanted: "Sequence[str] | Mapping[str, Objective | None]") -> None:
    """Check adversaries before there is a network.

    Raises:
        TypeError: it is no list of names, nor a mapping from names to objectives.
        ValueError: no adversary, an unknown one, one that is there twice, or that an audit cannot look at.
    """
    if isinstance(wanted, str) or not isinstance(wanted, Iterable):
        raise TypeError(f"adversaries={wanted!r} must be a list of names, such as ['sam', 'bisam-log']")
    given = list(wanted)
    if not given or len(set(given)) < len(given):
        raise ValueError(f"adversaries={shown(given)} must name one adversary or more, each once")
    methods = []
    for name, own in _objectives(wanted).items():
        if not isinstance(name, str):
            raise TypeError(f"adversaries: {name!r} must be a name")
        if own is not None and name == "sam":
            raise ValueError("adversaries: sam is what all are compared with: call an objective of your own otherwise")
        if own is not None and not callable(own):
            raise TypeError(f"adversaries[{name!r}]={own!r} must be callable(logits, target), or None for the method")
        if own is None and name not in OTHERS:
            _method(name)
            methods.append(name)
    if (two := twins([canonical(name) for name in methods])) is not None:
        raise ValueError(f"adversaries: {two[0]} and {two[1]} are the same method: leave one out")


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
    check_names(wanted)
    return [_adversary(name, own, model) for name, own in _objectives(wanted).items()]


def _objectives(wanted: "Sequence[str] | Mapping[str, Objective | None]") -> "dict[str, Objective | None]":
    return dict(wanted) if isinstance(wanted, Mapping) else dict.fromkeys(wanted)


def _adversary(name: str, own: "Objective | None", model: nn.Module) -> Adversary:
    if own is not None:
        return Adversary(name, _climber("sam", model), own)
    if name in OTHERS:
        smoothing = SMOOTHING if name == "smoothed" else 0.0
        objective = None if name == "random" else nn.CrossEntropyLoss(label_smoothing=smoothing)
        return Adversary(name, _climber("sam", model), objective, steps=STEPS if name == "projected" else 1)
    method, opt = _method(name), _climber(name, model)
    assert not isinstance(opt.estimator.ascent, StoredAscent)  # _method has refused it
    part = method.sub_batch
    return Adversary(
        name,
        opt,
        opt.estimator.ascent,
        ratio=method.radius(1.0, {}),
        parts=method.micro_batches,
        share=1.0 if part is None else part.share,
        does_more=_does_more(method),
        drawn=partial(_drawn, name, model) if method.parts_with("seed") else None,
    )


def _drawn(name: str, model: nn.Module, number: int) -> SharpnessAware:
    parts = Method(name, {}).parts_with("seed")
    return _climber(name, model, {part: {"seed": number} for part in parts})


def _method(name: str) -> Method:
    """Return the method of a name, if its perturbation depends on weights and batch alone."""
    _check_parts(name)
    try:
        method = Method(name, {})
    except ValueError as error:
        raise ValueError(f"adversaries: {error}") from None
    if method.plain:
        raise ValueError(f"adversaries: {name} is the optimizer alone, which perturbs nothing: leave it out")
    if method.gives_radius:
        raise ValueError(f"adversaries: {name} has a radius of its own, and rhos= are the radii: leave @rho out")
    for axis, choice in method.choices(steps=1, epochs=1).items():
        if axis in PERTURBS and isinstance(choice, Choice) and _remembers(choice):
            verb = "moves the weights" if axis == "geometry" else "climbs along what"
            raise ValueError(
                f"adversaries: {name} {verb} an optimizer remembers, and weights alone tell nothing of it: leave it out"
            )
    return method


def _check_parts(name: str) -> None:
    unknown = [part for text in name.split("+") if (part := text.partition("@")[0]) not in names()]
    if not unknown:
        return
    if unknown[0] in OTHERS:
        raise ValueError(f"adversaries: {shown(name)}: {unknown[0]} joins no other and takes no number: name it alone")
    hint = nearest(unknown[0].lower(), [*names(), *OTHERS])
    raise ValueError(
        f"adversaries: {shown(unknown[0])} is none of {', '.join(OTHERS)}, and no method that bisam compare knows{hint}"
    )


def _remembers(choice: Choice) -> bool:
    return isinstance(choice, StoredAscent) or bool(choice.memory) or bool(choice.numbers)


def _does_more(method: Method) -> bool:
    couples = any(part in METHODS and METHODS[part].couple is not None for part in method.parts)
    others = method.choices(steps=1, epochs=1).keys() - set(PERTURBS)
    return couples or bool(others) or method.sharpest_samples is not None


def _climber(name: str, model: nn.Module, options: Mapping[str, Mapping[str, int]] = {}) -> SharpnessAware:
    base = torch.optim.SGD([param for param in model.parameters() if param.requires_grad], lr=0.0)
    return Method(name, options).climber(base, model=model)
