"""The estimator: the choices that replace ``backward()``.

A sharpness-aware method does not change how weights are updated, it changes what the gradient is. This file is that
gradient; :mod:`bisam.optimizer` makes it a ``torch.optim.Optimizer``.
"""

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from .._validation import not_negative
from .._vectors.foreach import overlap
from .._vectors.shards import place_gradients
from .._vectors.vector import Vector, unit_of
from ..ascent import StoredAscent
from ..cadence import Always, Cadence, GradientCadence
from ..choice import Choice, require_choice
from ..combine import AfterStepCombine, Combine, EveryStepCombine, combine_, combine_plain_, step_after_
from ..direction import Direction
from ..geometry import Geometry
from ..losses.functional_sam import OutputGradient
from ..radius import Radius
from .climb import climb
from .context import StepContext
from .objective import Objective
from .stats import StepStats

__all__ = ["Estimator", "PassCount"]

Steps = Generator[Objective, None, None]


class PassCount(NamedTuple):
    """Forward-backward passes of a step.

    Attributes:
        plain: on a step that does not perturb.
        sharp: on a step that does.
        mean: on average over the training; None where only the training can tell.
    """

    plain: int
    sharp: int
    mean: float | None


@dataclass(frozen=True)
class Estimator:
    """The choices of a method, and the gradient they make.

    Attributes:
        ascent: objective that the perturbation climbs, or a gradient that is at hand.
        descent: objective whose gradient at w + eps is kept.
        direction: along what of the ascent gradient; None is the gradient.
        geometry: in which set.
        radius: how far, as a function of the gradient; None is ``rho``.
        cadence: on which steps.
        combine: what becomes the gradient; None is the one at w + eps.
        same_dropout: whether all passes of a step draw the same random numbers.
        third_pass: whether the descent objective's gradient at w, if needed and not at hand, has a pass of its own.
        sync_ascent: whether the workers climb one averaged gradient, rather than each its own.
        ascent_differs: whether the ascent is another objective than the descent, or none.
        needs_gradient_at_w: whether the descent objective's gradient at w takes part in the result.
        needs_scale: whether the result depends on the scale of the losses; ``passes(grad_scale=)`` tells it.
        averages_ascent: whether workers climb one averaged gradient: asked for, or because what they keep must agree.
    """

    ascent: Callable[..., Tensor] | StoredAscent
    descent: Callable[..., Tensor]
    direction: Direction | None
    geometry: Geometry
    radius: Radius | None
    cadence: Cadence
    combine: Combine | None
    same_dropout: bool
    third_pass: bool
    sync_ascent: bool
    ascent_differs: bool = field(init=False, repr=False)
    needs_gradient_at_w: bool = field(init=False, repr=False)
    needs_scale: bool = field(init=False, repr=False)
    averages_ascent: bool = field(init=False, repr=False)
    _always: bool = field(init=False, repr=False)
    _alters_plain_steps: bool = field(init=False, repr=False)

    def __post_init__(self) -> None:
        _check_choices(self)
        differs = self.ascent is not self.descent
        needs_at_w = self.combine is not None or isinstance(self.cadence, GradientCadence)
        remembers = isinstance(self.ascent, StoredAscent) and self.ascent.remembers_gradient
        derived = {
            "ascent_differs": differs,
            "needs_gradient_at_w": needs_at_w,
            "needs_scale": any(choice.needs_scale for choice in self.choices.values()),
            "averages_ascent": self.sync_ascent or bool(self.memory) or (needs_at_w and not differs),
            "_always": type(self.cadence) is Always,
            # a choice needs the gradient of every step's last pass by itself
            "_alters_plain_steps": remembers or isinstance(self.combine, EveryStepCombine),
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)
        names = self.memory
        if len(set(names)) < len(names):
            raise ValueError(f"two choices remember something of one name, {names}: leave out one of them")
        if self.needs_gradient_at_w and self.ascent_differs and not self.third_pass:
            what = f"combine={self.combine!r}" if self.combine is not None else f"cadence={self.cadence!r}"
            raise ValueError(
                f"{what} needs the gradient of the descent objective at w, but ascent={self.ascent!r} is another "
                "objective: pass third_pass=True to compute both, or leave out ascent="
            )

    @property
    def choices(self) -> dict[str, Choice]:
        """The choices that declare what they are, by axis."""
        axes = ("ascent", "direction", "geometry", "radius", "cadence", "combine")
        return {axis: choice for axis in axes if isinstance(choice := getattr(self, axis), Choice)}

    @property
    def memory(self) -> tuple[str, ...]:
        """Names of the vectors and numbers that the choices remember."""
        return tuple(name for choice in self.choices.values() for name in (*choice.memory, *choice.numbers))

    @property
    def vectors(self) -> tuple[str, ...]:
        """Names of the vectors that the choices remember."""
        return tuple(name for choice in self.choices.values() for name in choice.memory)

    @property
    def numbers(self) -> Mapping[str, Any]:
        """First values of the numbers that the choices remember."""
        return {name: value for choice in self.choices.values() for name, value in choice.numbers.items()}

    @property
    def passes_per_step(self) -> PassCount:
        """What a step costs, in forward-backward passes."""
        at_w = int(self.needs_gradient_at_w and self.ascent_differs)
        sharp = at_w + (0 if isinstance(self.ascent, StoredAscent) else 1) + 1
        share = None if isinstance(self.cadence, GradientCadence) else self.cadence.fraction
        return PassCount(1, sharp, None if share is None else 1 + share * (sharp - 1))

    @property
    def plain_descent(self) -> Callable[..., Tensor]:
        """The descent objective as a loss of (output, target), whatever the passes before have seen."""
        return self.descent.loss if isinstance(self.descent, OutputGradient) else self.descent

    def check_supplies(self, base: Optimizer) -> None:
        """Refuse a base optimizer that a choice cannot work with."""
        if isinstance(self.ascent, StoredAscent):
            self.ascent.check(base)
        if isinstance(self.combine, AfterStepCombine) and not all("lr" in group for group in base.param_groups):
            raise ValueError(
                f"combine={self.combine!r} takes a step of its own with the learning rate of base, and the param "
                f"groups of base={type(base).__name__} have no lr: use a combination without one, such as Blend"
            )

    def after_step(self, context: StepContext) -> None:
        """Take the step after the base optimizer's, where the combination has one."""
        if isinstance(self.combine, AfterStepCombine):
            step_after_(context.groups, context.memory)

    # -- one step ------------------------------------------------------------------------------------------------

    def passes(self, context: StepContext) -> Steps:
        """Yield the objective of each pass and leave the gradient in ``p.grad``."""
        moves = self._can_move(context)
        sharp = moves and (self._always or self.cadence(context.memory.step))
        context.moves = moves
        context.record.opened |= sharp
        context.memory.forget_owed_without_gradient()
        stored, climbed = (self.ascent, None) if isinstance(self.ascent, StoredAscent) else (None, self.ascent)
        must_be_called = self.ascent_differs and stored is None
        saved = context.start_step(climbs=sharp, same_random=self.same_dropout)
        context.last.release()
        context.last = StepStats(self.plain_descent)
        if isinstance(self.descent, OutputGradient):
            self.descent.begin_step()
        at_w = ascent = None
        try:
            if sharp or (moves and self._alters_plain_steps):
                saved.carried.set_aside()
            if sharp and self.needs_gradient_at_w and self.ascent_differs:  # the third pass
                yield context.start_pass(self.descent, is_ascent=True, must_be_called=must_be_called)
                context.end_pass()
                at_w, sharp = self._gradient_at_w(context)
                if sharp:
                    context.prepare_pass(carry=False)
            if sharp and climbed is not None:
                yield context.start_pass(
                    climbed, is_ascent=True, must_be_called=must_be_called, averages=self.averages_ascent
                )
                ascent = context.end_pass()
                if self.needs_gradient_at_w and not self.ascent_differs:
                    at_w, sharp = self._gradient_at_w(context)
            if sharp:
                climb(
                    context,
                    saved,
                    stored=stored,
                    direction=self.direction,
                    geometry=self.geometry,
                    radius=self.radius,
                    unscale=self.needs_scale,
                    lent=at_w is not None and not self.ascent_differs and not at_w.lies_alone,
                )
                context.last.climbs(ascent)
                context.prepare_pass(carry=self.combine is None and not self._alters_plain_steps)
            if sharp or not context.passes:
                yield context.start_pass(self.descent, is_ascent=False, must_be_called=must_be_called)
                context.end_pass()
            if saved.carried.aside:
                self._finish(context, at_w)
                saved.carried.add_gained()
            saved.finished = True
        finally:
            context.end_step(saved)
        context.memory.commit()
        context.counts = True

    def _can_move(self, context: StepContext) -> bool:
        """Check what may have changed since the last step; return whether some radius is above zero."""
        radii = [group["rho"] for group in context.base.param_groups]
        for rho in radii:
            if type(rho) is not float or not 0 <= rho < math.inf:
                not_negative("rho", rho)
        two_objectives = self.ascent_differs and not isinstance(self.ascent, StoredAscent)
        if two_objectives and any(group.get("maximize") for group in context.base.param_groups):
            raise ValueError(
                f"maximize=True turns the descent objective around, and what ascent={self.ascent!r} should then do is "
                "open: minimise the negative objective instead, or leave out ascent="
            )
        model = context.model
        model.look()
        model.check_synchronised()
        if self.needs_gradient_at_w and not model.averages_gradients:
            raise RuntimeError(
                "this method combines or judges averaged gradients, and under no_sync() each worker has its own, so "
                "the workers would drift apart: call passes() outside of no_sync(), also while accumulating"
            )
        return any(radii)

    @torch.no_grad()
    def _gradient_at_w(self, context: StepContext) -> tuple[Vector | None, bool]:
        """Return the gradient at w, a copy where it is combined, and whether the step still perturbs."""
        at_w = _gradients(context.params)
        if isinstance(self.cadence, GradientCadence):
            scale = context.scale()
            length = _length(at_w, scale)  # the host waits: it must decide
            memory = context.memory
            perturbs, moments = self.cadence.decide(memory.step, length**2, memory.number("moments"))
            memory.write_number("moments", moments)
            if not perturbs:
                return None, False
        if self.combine is None:
            return None, True
        if not _lasts(at_w, context):
            return at_w.copy(), True
        at_w.watch()
        context.watched = at_w
        return (at_w if context.overwrites is False else at_w.copy()), True

    @torch.no_grad()
    def _finish(self, context: StepContext, at_w: Vector | None) -> None:
        """Make the step's gradient out of those of its passes.

        Args:
            context: the running step.
            at_w: the gradient at w, where a combination needs it; None on a plain step.
        """
        memory, perturbed = context.memory, context.last.perturbed_on_device
        if isinstance(self.ascent, StoredAscent) and self.ascent.remembers_gradient:
            self._remember(self.ascent, context)
        if self.combine is not None and at_w is not None and perturbed is not None:
            self._check_watched(context)
            if any(param.grad is None for param in at_w.params):
                at_w = at_w.only({param for param in at_w.params if param.grad is not None})  # a lone gradient stays
            place_gradients(at_w.params)
            scale = context.scale() if isinstance(self.combine, AfterStepCombine) else None
            saved = context.saved
            moved = 0 if saved is None else sum(map(len, saved.moving))
            climbed = not self.ascent_differs and moved == len(at_w.params)
            combine_(self.combine, at_w, _apart(at_w.gradients()), perturbed, memory, scale, climbed=climbed)
        elif isinstance(self.combine, EveryStepCombine) and at_w is None:
            combine_plain_(self.combine, _apart(_gradients(context.params)), memory)

    def _check_watched(self, context: StepContext) -> None:
        """Look whether the gradient at w still is one; the first step has a copy of it, and tells of all others.

        Raises:
            RuntimeError: somebody kept it and wrote into it in a later pass.
        """
        if context.watched is None:
            return
        changed = context.watched.first_changed()
        if context.overwrites is None:
            context.overwrites = changed is not None
        elif changed is not None and not context.overwrites:
            raise RuntimeError(
                f"the gradient of parameter {context.model.params.name(changed)} at w was changed in place in a later "
                f"pass of the step, and combine={self.combine!r} needs it: change a copy, p.grad.clone(), and let each "
                "backward() make a gradient of its own"
            )

    def _remember(self, ascent: StoredAscent, context: StepContext) -> None:
        gradient, scale = _gradients(context.params), context.scale()
        if self.needs_scale and scale is not None:
            gradient = gradient.copy()
            gradient.mul_(1 / scale)
        ascent.remember(gradient, context.memory)


def _length(vector: Vector, scale: Tensor | float | None) -> float:
    """Return the l2 norm over ``scale``, also where float32 cannot hold the squares, as for entries of 1e-25."""
    norm = vector.norm()
    told = norm.new_ones(()) * (1.0 if scale is None else scale)
    length, factor = map(float, torch.stack([norm, told]).tolist())  # one read for both
    if not 1e-15 < length < 1e15:
        unit, scaled = unit_of(vector, vector.max_abs()), vector.copy()
        scaled.mul_(1 / unit)
        length = float(scaled.norm()) * float(unit)
    return length / factor


def _lasts(gradient: Vector, context: StepContext) -> bool:
    """Whether the passes to come leave the storage of a gradient alone: engines overwrite buckets and flat buffers."""
    tensors = [tensor for part in gradient.parts for tensor in part.entries]
    engine = context.model.distributed or context.hooked or any(tensor._is_view() for tensor in tensors)
    return gradient.on_host and not engine and not overlap(tensors)


def _apart(gradients: Vector) -> Vector:
    """Return gradients that lie each in a place of its own, to be written in place; where they do not, copies do."""
    if not overlap([entry for part in gradients.parts for entry in part.entries]):
        return gradients
    for param in gradients.params:
        if param.grad is not None:
            param.grad = param.grad.clone(memory_format=torch.contiguous_format)
    return gradients.gradients()


def _gradients(params: Sequence[Tensor]) -> Vector:
    """Return the gradients that there are, shared."""
    place_gradients(params)
    found = [(param, param.grad) for param in params if param.grad is not None]
    if any(grad.layout != torch.strided for _, grad in found):
        raise ValueError("combine= and adaptive cadences need dense gradients: build the layer with sparse=False")
    return Vector.of(found)


def _check_choices(estimator: Estimator) -> None:
    """Refuse what is no choice, with the reason.

    Raises:
        TypeError: naming the argument, its value and what to pass.
    """
    for name in ("same_dropout", "third_pass", "sync_ascent"):
        if type(getattr(estimator, name)) is not bool:
            raise TypeError(f"{name}={getattr(estimator, name)!r} must be True or False")
    for name in ("descent", "ascent"):
        objective = getattr(estimator, name)
        if not callable(objective) or isinstance(objective, type):
            raise TypeError(
                f"{name}={objective!r} must be an objective, an object called with (output, target), such as "
                "torch.nn.CrossEntropyLoss(): not a name or a class"
            )
    if isinstance(estimator.descent, StoredAscent):
        raise TypeError(f"descent={estimator.descent!r} has no loss to descend: pass it as ascent=")
    axes: dict[str, type[Choice]] = {
        "direction": Direction,
        "geometry": Geometry,
        "radius": Radius,
        "cadence": Cadence,
        "combine": Combine,
    }
    for name, axis in axes.items():
        choice = getattr(estimator, name)
        if choice is None and name in ("direction", "radius", "combine"):
            continue
        require_choice(name, choice, axis)
