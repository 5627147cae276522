"""What adversaries do to a network, batch by batch, in both modes of BatchNorm.

Each batch costs one pass at w with a backward pass for each objective, and for each adversary and radius a forward pass
over the batch and one over the held-out batch. Weights are moved by the library's own climb and put back.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .adversaries import Adversary, Gradients, length_of
from .batches import Batch, logits_of
from .modes import Statistics, statistics

__all__ = ["MARGINS", "AtW", "Climbed", "Gradient", "Measured", "Score", "measure"]

#: Margins that divide the samples, from wrong to sure: below 0, to 2, to 5, beyond.
MARGINS = (0.0, 2.0, 5.0)


@dataclass(frozen=True)
class Score:
    """Error as a share, and mean cross-entropy in nats."""

    error: float
    loss: float

    def __sub__(self, other: "Score") -> "Score":
        return Score(self.error - other.error, self.loss - other.loss)


NONE = Score(math.nan, math.nan)


@dataclass(frozen=True)
class AtW:
    """A batch before anybody climbs.

    Attributes:
        statistics: mode of BatchNorm.
        batch: its number.
        here: score on the batch.
        held_out: score on its held-out batch.
        margins: logit of the true class minus the largest other one (B,), negative where the sample is wrong.
    """

    statistics: Statistics
    batch: int
    here: Score
    held_out: Score
    margins: Tensor


@dataclass(frozen=True)
class Gradient:
    """The gradient that an adversary climbs, on one batch.

    Attributes:
        statistics: mode of BatchNorm.
        batch: its number.
        adversary: its name.
        vanishes: whether it is zero or not finite, so that nothing moves.
        cosine: with the gradient that SAM climbs; NaN where either vanishes.
        effective: samples that carry it, (sum w)^2 / sum w^2 with w_i the norm of its gradient at sample i's logits.
        weights: w_i of each sample (B,); zeros for a random direction.
    """

    statistics: Statistics
    batch: int
    adversary: str
    vanishes: bool
    cosine: float
    effective: float
    weights: Tensor


@dataclass(frozen=True)
class Climbed:
    """A batch at w + eps.

    Attributes:
        statistics: mode of BatchNorm.
        batch: its number.
        adversary: its name.
        rho: SAM's radius.
        here: rise of the score on the batch that was climbed.
        held_out: rise of the score on the held-out batch.
        norm: l2 norm of eps.
        cosine: of eps and SAM's eps at the same radius.
    """

    statistics: Statistics
    batch: int
    adversary: str
    rho: float
    here: Score
    held_out: Score
    norm: float
    cosine: float


@dataclass
class Measured:
    """Everything that was measured so far."""

    at_w: list[AtW] = field(default_factory=list)
    gradients: list[Gradient] = field(default_factory=list)
    climbed: list[Climbed] = field(default_factory=list)

    @property
    def batches(self) -> int:
        """How many are measured."""
        return len({at_w.batch for at_w in self.at_w})

    def of_first(self, batches: int) -> "Measured":
        """Return what belongs to the first batches."""
        kept = [[one for one in part if one.batch < batches] for part in (self.at_w, self.gradients, self.climbed)]
        return Measured(*kept)  # type: ignore[arg-type]


def measure(
    model: nn.Module,
    batches: Sequence[Batch],
    held_out: Sequence[Batch],
    adversaries: Sequence[Adversary],
    sam: Adversary,
    rhos: Sequence[float],
    modes: Sequence[Statistics],
    *,
    seed: int,
    measured: Measured,
    done: Callable[[], None] = lambda: None,
) -> Iterator[Measured]:
    """Measure batch after batch, and yield all that is measured after each one.

    Args:
        model: the network, untouched between two batches.
        batches: to climb.
        held_out: the i-th one belongs to the i-th batch; where there are fewer, they are used again; may be empty.
        adversaries: who climbs.
        sam: SAM, with whose gradient and eps the others' are compared.
        rhos: radii.
        modes: of BatchNorm.
        seed: of random numbers; each batch has its own.
        measured: of the first batches, which are not measured again.
        done: is called after each adversary.
    """
    for number, batch in list(enumerate(batches))[measured.batches :]:
        torch.manual_seed(seed + number)
        other = held_out[number % len(held_out)] if held_out else None
        for kind in modes:
            with statistics(model, kind):
                _Look(model, kind, number, batch, other, measured).all(adversaries, sam, rhos, done)
        yield measured


class _Look:
    """One batch in one mode."""

    def __init__(
        self, model: nn.Module, kind: Statistics, number: int, batch: Batch, held_out: Batch | None, into: Measured
    ) -> None:
        self.model, self.kind, self.number, self.into = model, kind, number, into
        self.batch, self.held_out = batch, held_out
        self.params = [param for param in model.parameters() if param.requires_grad]
        self.w = [param.detach().clone() for param in self.params]
        self._sam_eps: dict[float, Gradients] = {}

    def all(
        self, adversaries: Sequence[Adversary], sam: Adversary, rhos: Sequence[float], done: Callable[[], None]
    ) -> None:
        """Look at w, at every gradient and at every w + eps."""
        logits = logits_of(self.model, self.batch)
        here, self.held_out_at_w = _score(logits, self.batch.y), self._held_out()
        self.into.at_w.append(AtW(self.kind, self.number, here, self.held_out_at_w, _margins(logits, self.batch.y)))
        self.sam, self.sam_gradient = sam, sam.gradient(logits, self.batch.y, self.params)
        ascents = [  # all of them before a weight moves: autograd refuses a graph over other weights
            self.sam_gradient if adversary is sam else adversary.gradient(logits, self.batch.y, self.params)
            for adversary in adversaries
        ]
        logits = logits.detach()
        for adversary, ascent in zip(adversaries, ascents, strict=True):
            self._look_at(adversary, logits, ascent)
            whole = adversary.parts == 1 and adversary.share == 1
            parts = [(self.batch, self.batch, logits, ascent)] if whole else list(self._parts(adversary))
            for rho in rhos:
                self._climb(adversary, rho, parts, here if whole else None, self._of_sam(rho, logits))
            done()

    def _look_at(self, adversary: Adversary, logits: Tensor, ascent: Gradients) -> None:
        """Record the gradient of the whole batch."""
        weights = _weights(adversary, logits, self.batch.y)
        length, cosine = length_of(ascent), _cosine(ascent, self.sam_gradient)
        total = float(weights.sum())
        effective = total**2 / float(weights.square().sum()) if total > 0 and math.isfinite(total) else math.nan
        vanishes = not 0 < length < math.inf
        found = Gradient(self.kind, self.number, adversary.name, vanishes, cosine, effective, weights)
        self.into.gradients.append(found)

    def _parts(self, adversary: Adversary) -> Iterator[tuple[Batch, Batch, Tensor, Gradients]]:
        """Yield for each perturbation what is looked at and what is climbed, with its logits and gradient at w."""
        for part in self.batch.parts(adversary.parts):
            climbed = part if adversary.share == 1 else part.first(adversary.share)
            logits = logits_of(self.model, climbed)
            yield part, climbed, logits.detach(), adversary.gradient(logits, climbed.y, self.params)

    def _climb(
        self,
        adversary: Adversary,
        rho: float,
        parts: Sequence[tuple[Batch, Batch, Tensor, Gradients]],
        at_w: Score | None,
        of_sam: Gradients,
    ) -> None:
        """Record the mean over the adversary's perturbations, weighted by their samples."""
        rows = []
        for seen, climbed, logits, ascent in parts:
            before = at_w or self._score_of(seen)
            with adversary.at_perturbed(self.model, climbed, logits, ascent, rho):
                eps = self._eps()
                here, there = self._score_of(seen) - before, self._held_out() - self.held_out_at_w
            cosine = _cosine(eps, of_sam)
            rows.append([here.error, here.loss, there.error, there.loss, length_of(eps), cosine])
        shares = [len(part[0]) / len(self.batch) for part in parts]
        means = [sum(s * row[i] for s, row in zip(shares, rows, strict=True)) for i in range(6)]
        found = Climbed(self.kind, self.number, adversary.name, rho, Score(*means[:2]), Score(*means[2:4]), *means[4:])
        self.into.climbed.append(found)

    def _of_sam(self, rho: float, logits: Tensor) -> Gradients:
        """Return SAM's eps on the whole batch."""
        if rho not in self._sam_eps:
            with self.sam.at_perturbed(self.model, self.batch, logits, self.sam_gradient, rho):
                self._sam_eps[rho] = self._eps()
        return self._sam_eps[rho]

    def _eps(self) -> Gradients:
        with torch.no_grad():
            return [param - w for param, w in zip(self.params, self.w, strict=True)]

    def _held_out(self) -> Score:
        return NONE if self.held_out is None else self._score_of(self.held_out)

    def _score_of(self, batch: Batch) -> Score:
        with torch.no_grad():
            return _score(logits_of(self.model, batch), batch.y)


def _score(logits: Tensor, y: Tensor) -> Score:
    logits = logits.detach()
    return Score(float((_margins(logits, y) < 0).double().mean()), float(F.cross_entropy(logits, y)))


def _margins(logits: Tensor, y: Tensor) -> Tensor:
    """Return the true class's logit minus the largest other one (B,); a NaN counts as a mistake without limit."""
    logits = logits.detach()
    true = logits.gather(1, y[:, None])
    others = logits.scatter(1, y[:, None], -math.inf).amax(1, keepdim=True)
    return (true - others).squeeze(1).nan_to_num(nan=-math.inf, posinf=math.inf, neginf=-math.inf)


def _weights(adversary: Adversary, logits: Tensor, y: Tensor) -> Tensor:
    """Return the norm of the objective's gradient at each sample's logits (B,)."""
    if adversary.objective is None:
        return torch.zeros(len(y))
    at = logits.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(adversary.objective(at, y), at)
    weights: Tensor = gradient.double().norm(dim=1).cpu()
    return weights


def _cosine(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    dot = sum(float((x.double() * y.double()).sum()) for x, y in zip(a, b, strict=True))
    norms = length_of(a) * length_of(b)
    return dot / norms if 0 < norms < math.inf else math.nan
