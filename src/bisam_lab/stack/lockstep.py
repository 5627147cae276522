"""A whole step of several runs at once, for the commonest methods: their weights are the rows of one matrix.

Run by run, a step of a small network is mostly the hundred small operations of its optimizer. SAM and BiSAM in the l2
ball, and the plain optimizer, need of each run only its norm, so one operation serves all rows:

    eps_s = rho_s g_s / ||g_s||,    for each row s

A cadence that goes by the number of the step (TailSAM, one step in k) makes no difference to that. What has any other
choice (ASAM's geometry, LookSAM's memory, AE-SAM's decisions) takes its steps itself. The library's own step is the
reference, and a test compares the two.
"""

from collections.abc import Hashable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bisam import LowerBoundLoss
from bisam._vectors.memory import PREFIX
from bisam.ascent import StoredAscent
from bisam.cadence import Always, Every, Tail, Window
from bisam.geometry import L2Ball

from ..data.examples import Examples
from ..run.seen import effective_samples
from ..run.steps import Steps
from .network import StackedNetwork, side_by_side

__all__ = ["Lockstep", "kind_of", "moment_of"]

#: Base optimizers that treat each entry by itself, so that one of them on all rows is each of them on its row.
_ENTRYWISE = (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)
#: Cadences that go by the number of the step.
_BY_NUMBER = (Always, Every, Tail, Window)


def kind_of(steps: Steps) -> Hashable | None:
    """Return what runs must have in common, from their first step on, to step in lockstep; None: it must step itself.

    Every run takes its first step itself: that makes the optimizer's state, and looks whether all is as it should be.
    """
    if not steps.one_loop or not _has_plain_choices(steps) or not _has_plain_base(steps):
        return None
    group = steps.opt.param_groups[0]
    numbers = {key: group[key] for key in steps.opt.base.defaults if key in group and not _is_its_own(key)}
    cadence = steps.opt.estimator.cadence
    often = repr(cadence) if isinstance(cadence, Every) else ""  # a company that parts every other step gains nothing
    return repr(numbers), steps.clip, often


def moment_of(steps: Steps) -> Hashable:
    """Return what runs of a kind must have in common now: the steps done, the learning rate, whether they climb."""
    return steps.schedule.last_epoch, steps.opt.param_groups[0]["lr"], _climbs(steps)


def _climbs(steps: Steps) -> bool:
    """Whether a run's next step perturbs."""
    perturbs = steps.opt.estimator.cadence(steps.opt.memory.step)
    return bool(perturbs and steps.opt.param_groups[0]["rho"] > 0)


def _is_its_own(key: str) -> bool:
    """Whether a number of a param group may differ, or changes from step to step."""
    return key in ("lr", "rho") or key.startswith(PREFIX)


def _has_plain_choices(steps: Steps) -> bool:
    choices = steps.opt.estimator
    plain = choices.direction is None and choices.radius is None and choices.combine is None
    plain &= type(choices.geometry) is L2Ball and type(choices.cadence) in _BY_NUMBER and not choices.same_dropout
    ascent, descent = choices.ascent, choices.descent
    if isinstance(ascent, StoredAscent) or type(descent) is not nn.CrossEntropyLoss:
        return False
    means = descent.weight is None and descent.reduction == "mean"
    return plain and means and (ascent is descent or (type(ascent) is LowerBoundLoss and ascent.reduction == "mean"))


def _has_plain_base(steps: Steps) -> bool:
    base, params = steps.opt.base, list(steps.model.parameters())
    if type(base) not in _ENTRYWISE or len(base.param_groups) != 1:
        return False
    if list(map(id, base.param_groups[0]["params"])) != list(map(id, params)):
        return False
    alike = len({(param.dtype, param.device) for param in params}) == 1
    return alike and all(param.requires_grad and param.is_floating_point() and param.grad is None for param in params)


class Lockstep:
    """Steps of runs of one kind. Their parameters, optimizer states and buffers become views of one tensor each.

    Args:
        runs: of one :func:`kind_of`, those with one ascent objective beside each other.
        network: computes their passes.
    """

    def __init__(self, runs: Sequence[Steps], network: StackedNetwork) -> None:
        self.runs, self._network = list(runs), network
        self._models = [steps.model for steps in runs]
        self._params = [list(model.parameters()) for model in self._models]
        self._shapes = {name: param.shape for name, param in self._models[0].named_parameters()}
        self._sizes = [param.numel() for param in self._params[0]]
        self._rows = nn.Parameter(self._together([[p.detach() for p in params] for params in self._params]))
        self._buffers = network.stacked(self._models, [name for name, _ in self._models[0].named_buffers()])
        self._base = self._one_base()
        self._share()
        groups = [steps.opt.param_groups[0] for steps in runs]
        self._rho = torch.tensor([group["rho"] for group in groups], dtype=torch.float64, device=self._rows.device)
        self._ascents = _alike([steps.opt.estimator.ascent for steps in runs])
        descent = runs[0].opt.estimator.descent
        assert isinstance(descent, nn.CrossEntropyLoss)
        self._descent = descent

    def step(self, batches: Sequence[Examples]) -> list[Tensor]:
        """Take a step of each run with its batch; return the descent losses before it, scalars."""
        x, y = side_by_side([batch.x for batch in batches]), torch.stack([batch.y for batch in batches])
        out = self._forward(x, self._buffers)
        losses = self._each(out.detach(), y)
        predicted = out.detach().argmax(2)
        climbs, seen = _climbs(self.runs[0]), None
        if climbs:
            gradient: list[Tensor] = []
            out.register_hook(gradient.append)
            self._ascend(out, y)
            before, moved = self._climb()
            later = {name: buffer.clone() for name, buffer in self._buffers.items()}  # the first pass's are kept
            try:
                there = self._forward(x, later)
                (self._descent(there.flatten(0, 1), y.flatten()) * len(y)).backward()
            finally:
                with torch.no_grad():
                    self._rows.copy_(before)
            rise = (predicted.eq(y).sum(1) - there.detach().argmax(2).eq(y).sum(1)) / y.shape[1]
            seen = (moved, effective_samples(gradient[0]), rise, self._each(there.detach(), y))
        else:
            (self._descent(out.flatten(0, 1), y.flatten()) * len(y)).backward()
        norms = self._update()
        for row, steps in enumerate(self.runs):
            climb = None if seen is None else (seen[0][row], seen[1][row], seen[2][row], seen[3][row])
            steps.seen.row(predicted[row], y[row], norms[row], climb)
            steps.count(2 if climbs else 1)
        return list(losses.unbind(0))

    def release(self) -> None:
        """Give each run tensors of its own again."""
        for steps, params in zip(self.runs, self._params, strict=True):
            for param in params:
                param.data = param.data.clone()
                state = steps.opt.base.state[param]
                state.update({key: value.clone() for key, value in state.items() if isinstance(value, Tensor)})
            for module in steps.model.modules():
                for key, buffer in module._buffers.items():  # no public way to set one without its hooks
                    module._buffers[key] = None if buffer is None else buffer.clone()

    # -- the passes ------------------------------------------------------------------------------------------------

    def _forward(self, x: Tensor, buffers: dict[str, Tensor]) -> Tensor:
        """Return the logits (S, B, K)."""
        parts = self._rows.split(self._sizes, 1)
        params = {
            name: part.view(len(part), *shape) for part, (name, shape) in zip(parts, self._shapes.items(), strict=True)
        }
        return self._network.run(params, buffers, x, self.runs[0].fabric, training=True)

    def _each(self, out: Tensor, y: Tensor) -> Tensor:
        """Return the descent loss of each run (S,)."""
        smoothing, ignored = self._descent.label_smoothing, self._descent.ignore_index
        each = F.cross_entropy(
            out.flatten(0, 1), y.flatten(), reduction="none", label_smoothing=smoothing, ignore_index=ignored
        )
        return each.view(y.shape).mean(1)

    def _ascend(self, out: Tensor, y: Tensor) -> None:
        """Compute the gradient of each run's ascent objective.

        The mean over the samples of k runs is 1/k of the sum of their means.
        """
        total = out.new_zeros(())
        for loss, first, end in self._ascents:
            total = total + loss(out[first:end].flatten(0, 1), y[first:end].flatten()) * (end - first)
        total.backward()

    @torch.no_grad()
    def _climb(self) -> tuple[Tensor, Tensor]:
        """Move each row by its radius along its gradient; return the rows as they were, and ||eps|| of each (S,).

        A row whose gradient is zero or not finite stays where it is.
        """
        gradient, self._rows.grad = self._rows.grad, None
        assert gradient is not None
        unit = gradient.abs().amax(1, keepdim=True)
        unit = torch.where(unit > 0, unit, 1)  # squares of tiny gradients would vanish
        norm = torch.linalg.vector_norm(gradient / unit, dim=1, keepdim=True, dtype=torch.float64)
        moves = norm.isfinite() & (norm > 0)
        step = (self._rho[:, None] / torch.where(moves, norm, 1)).to(gradient.dtype)
        before = self._rows.detach().clone()
        self._rows.copy_(torch.where(moves, before + gradient / unit * step, before))
        return before, torch.where(moves[:, 0], self._rho, 0)

    @torch.no_grad()
    def _update(self) -> Tensor:
        """Let the base optimizer update all rows; return the norms of their gradients before clipping (S,)."""
        clip, gradient = self.runs[0].clip, self._rows.grad
        assert gradient is not None
        norm: Tensor = torch.linalg.vector_norm(gradient, dim=1, keepdim=True)
        if clip is not None:  # as torch.nn.utils.clip_grad_norm_ does
            gradient.mul_((clip / (norm + 1e-6)).clamp(max=1.0))
        self._base.param_groups[0]["lr"] = self.runs[0].opt.param_groups[0]["lr"]
        self._base.step()
        self._rows.grad = None
        return norm[:, 0]

    # -- rows ------------------------------------------------------------------------------------------------------

    def _together(self, each: Sequence[Sequence[Tensor]]) -> Tensor:
        """Return tensors of every run as rows (S, n)."""
        return torch.stack([torch.cat([tensor.reshape(-1) for tensor in tensors]) for tensors in each])

    def _views(self, rows: Tensor) -> list[list[Tensor]]:
        """Return the parts of each row, in the parameters' shapes."""
        shapes = list(self._shapes.values())
        return [[part.view(s) for part, s in zip(row.split(self._sizes), shapes, strict=True)] for row in rows]

    def _one_base(self) -> torch.optim.Optimizer:
        """Return the base optimizer of all rows, with the state of the runs' own."""
        kind: Any = type(self.runs[0].opt.base)
        base: torch.optim.Optimizer = kind([self._rows])
        group = self.runs[0].opt.param_groups[0]
        base.param_groups[0].update({key: value for key, value in group.items() if key != "params"})
        first = self.runs[0].opt.base.state[self._params[0][0]]
        for key, value in first.items():
            if isinstance(value, Tensor) and value.shape == self._params[0][0].shape and key != "step":
                states = [[s.opt.base.state[p][key] for p in ps] for s, ps in zip(self.runs, self._params, strict=True)]
                base.state[self._rows][key] = self._together(states)
            else:
                base.state[self._rows][key] = value.clone() if isinstance(value, Tensor) else value
        return base

    def _share(self) -> None:
        """Make parameters, buffers and states of the runs views of the stacked ones."""
        with torch.no_grad():
            for params, views in zip(self._params, self._views(self._rows.detach()), strict=True):
                for param, view in zip(params, views, strict=True):
                    param.data = view
        for key, value in self._base.state[self._rows].items():
            rows = isinstance(value, Tensor) and value.shape == self._rows.shape
            each = self._views(value) if rows else [[value] * len(self._sizes)] * len(self.runs)
            for steps, params, parts in zip(self.runs, self._params, each, strict=True):
                for param, part in zip(params, parts, strict=True):
                    steps.opt.base.state[param][key] = part
        for name, stacked in self._buffers.items():
            owner, _, key = name.rpartition(".")
            for model, row in zip(self._models, stacked.unbind(0), strict=True):
                model.get_submodule(owner)._buffers[key] = row


def _alike(losses: Sequence[Any]) -> list[tuple[Any, int, int]]:
    """Return each objective, and the first and the end of the runs beside each other that have it."""
    found: list[tuple[Any, int, int]] = []
    for number, loss in enumerate(losses):
        if found and repr(found[-1][0]) == repr(loss):
            found[-1] = (found[-1][0], found[-1][1], number + 1)
        else:
            found.append((loss, number, number + 1))
    return found
