"""Param groups with radii of their own."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from bisam._step.estimator import Estimator
from bisam.ascent import StoredAscent
from bisam.cadence import GradientCadence
from bisam.geometry import Ellipsoid
from bisam.optimizer import SharpnessAware

from .models import Make, Net, batches

__all__ = ["check_group_radii", "split_groups"]

#: Steps in which a method must perturb once.
_STEPS = 40


class _Climb(NamedTuple):
    """The first perturbation of a run.

    Attributes:
        step: in which it took place; None where none did.
        eps: the perturbation of each half of the parameters, in one row.
    """

    step: int | None
    eps: tuple[Tensor, Tensor]


@dataclass(frozen=True)
class _Runs:
    """Runs of one method that differ in the radii.

    Attributes:
        make: makes the optimizer.
        choices: of the method.
        rho: its largest radius.
    """

    make: Make
    choices: Estimator
    rho: float

    def climb(
        self,
        first: float,
        second: float,
        *,
        split: bool = True,
        doubled: bool = False,
        frozen: tuple[int, int] | None = None,
    ) -> _Climb:
        """Train until a step perturbs.

        Args:
            first: radius of the first half of each param group, in units of ``rho``.
            second: radius of the second half.
            split: whether the halves are groups of their own.
            doubled: whether the gradients of the second half are doubled before the climb.
            frozen: a half (0 or 1) whose parameters are frozen, and the step from which on.
        """
        model = Net()
        opt = self.make(model)
        whole = list(opt.param_groups)
        halves = [[p for g in opt.param_groups for p in g["params"][half::2]] for half in (0, 1)]
        if split:
            split_groups(opt)
        for group in opt.param_groups:
            group["rho"] = self.rho * (first if any(group is known for known in whole) else second)
        for step, (x, y) in enumerate(batches(_STEPS)):
            if frozen is not None and step == frozen[1]:
                for param in halves[frozen[0]]:
                    param.requires_grad_(False)
            before = [_row(half) for half in halves]
            for objective in opt.passes():
                eps = _row(halves[0]) - before[0], _row(halves[1]) - before[1]
                objective(model(x), y).backward()
                for param in halves[1] if objective.is_ascent and doubled else ():
                    if param.grad is not None:
                        param.grad *= 2
            if opt.last.perturbed:
                return _Climb(step, eps)
            opt.step()
            opt.zero_grad()
        return _Climb(None, (torch.zeros_like(eps[0]), torch.zeros_like(eps[1])))

    def compare(self, ours: _Climb, theirs: _Climb, what: str, *, direction: bool = False) -> None:
        """Compare two perturbations, or their directions alone; an adaptive cadence may choose other steps."""
        if ours.step != theirs.step:
            assert isinstance(self.choices.cadence, GradientCadence), (
                f"{what}: it is in step {ours.step} instead of step {theirs.step}"
            )
            return
        own, other = torch.cat(ours.eps), torch.cat(theirs.eps)
        if direction:
            own, other = own / own.norm(), other / other.norm()
        apart, most = float((own - other).abs().max()), float(other.abs().max())
        assert apart <= 1e-9 * most, f"{what}: off by {apart / most:.2g} of its largest entry"


def check_group_radii(make: Make) -> None:
    """Groups have their own radii: eps_k = rho_k e_k, with e farthest along (rho_k d_k) in the unit set.

    Each group of the optimizer is split into two halves. The first perturbation of a run obeys four laws:

    - Equal radii in two groups are one group. A set that draws the weights that move may draw others for other groups;
      then the directions along those that both draw are compared.
    - A group with radius 0 stays put, and the other moves as if the parameters at rest were frozen.
    - Twice the radii give twice the perturbation. Where a radius rule decides the length, the direction is the same.
    - With radii (rho, 2 rho) the perturbation is that of equal radii under a gradient whose second half is doubled, and
      in that half twice as long. That asks for a gradient that reaches the set as it is. Where there is a direction,
      a radius rule, an ascent without a pass or a set that needs the loss's scale, an ellipsoid's second half moves
      four times as far in proportion, because eps_k is proportional to rho_k^2 T^2 d_k; other sets are not asked.

    An adaptive cadence may decide otherwise for another gradient; then there is nothing to compare.
    """
    opt = make(Net())
    rho = max(group["rho"] for group in opt.param_groups) or 0.05
    runs = _Runs(make, opt.estimator, rho)
    apart = runs.climb(1, 1)
    assert apart.step is not None, (
        f"none of the first {_STEPS} steps perturbs, so there is no radius to check: make the method with a cadence "
        "that opens by then, such as TailSAM(base, model=model, total_steps=1000, tail=1.0)"
    )
    _check_one_group(runs, apart)
    for half in (0, 1):
        _check_rest(runs, half)
    _check_double(runs, apart)
    _check_unequal(runs, apart)


def _check_one_group(runs: _Runs, apart: _Climb) -> None:
    together, what = runs.climb(1, 1, split=False), "two groups of equal radii do not move as one group does"
    for own, other in zip(apart.eps, together.eps, strict=True):
        assert bool(own.any()) == bool(other.any()), f"{what}: a group {'moves' if own.any() else 'stays'} alone"
    both = [(own != 0) & (other != 0) for own, other in zip(apart.eps, together.eps, strict=True)]
    draws = any(bool((own != 0).ne(other != 0).any()) for own, other in zip(apart.eps, together.eps, strict=True))
    runs.compare(_masked(apart, both), _masked(together, both), what, direction=draws)


def _check_rest(runs: _Runs, half: int) -> None:
    radii = (0, 1) if half == 0 else (1, 0)
    resting = runs.climb(*radii)
    assert not resting.eps[half].any(), f"a group with rho=0 moves by {float(resting.eps[half].norm())}"
    if resting.step is not None:
        frozen = runs.climb(*radii, frozen=(half, resting.step))
        what = "a group with rho=0 changes the perturbation of the other group, compared with frozen parameters"
        runs.compare(resting, frozen, what)


def _check_double(runs: _Runs, apart: _Climb) -> None:
    what = "twice the radii do not give twice the perturbation"
    runs.compare(runs.climb(2, 2), _times(apart, 2, 2), what, direction=runs.choices.radius is not None)


def _check_unequal(runs: _Runs, apart: _Climb) -> None:
    choices, unequal = runs.choices, runs.climb(1, 2)
    what = "with radii (rho, 2 rho) the perturbation is not the one of the set's farthest point along (rho_k d_k)"
    between = choices.direction is not None or choices.radius is not None or isinstance(choices.ascent, StoredAscent)
    if not between and not choices.geometry.needs_scale:
        runs.compare(unequal, _times(runs.climb(1, 1, doubled=True), 1, 2), what)
    elif isinstance(choices.geometry, Ellipsoid):
        runs.compare(unequal, _times(apart, 1, 4), what, direction=True)


def split_groups(opt: SharpnessAware) -> None:
    """Move every second parameter of each group into a group of its own."""
    for group in list(opt.param_groups):
        other = dict(group)
        for key in ("params", "param_names"):
            if key in group:
                group[key], other[key] = group[key][::2], group[key][1::2]
        if other["params"]:
            owners = [one for one in getattr(opt.base, "optimizers", []) if any(g is group for g in one.param_groups)]
            opt.add_param_group(other | ({"optimizer": owners[0]} if owners else {}))


def _times(climb: _Climb, first: float, second: float) -> _Climb:
    return _Climb(climb.step, (first * climb.eps[0], second * climb.eps[1]))


def _masked(climb: _Climb, masks: list[Tensor]) -> _Climb:
    return _Climb(climb.step, (climb.eps[0] * masks[0], climb.eps[1] * masks[1]))


def _row(params: list[Tensor]) -> Tensor:
    return torch.cat([param.detach().reshape(-1) for param in params])
