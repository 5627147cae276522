"""What adversaries do to a network, batch by batch, in both modes of BatchNorm.

Each batch costs one pass at w with a backward pass for each objective, and for each adversary and radius a forward pass
over the batch and one over the held-out batch. Weights are moved by the library's own climb and put back.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .adversaries import Adversary, Gradients, length_of
from .batches import Batch, logits_of
from .modes import Modes, Statistics, mode

__all__ = ["MARGINS", "AtW", "Climbed", "Gradient", "Measured", "Score", "cosine", "mean", "measure", "score"]

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
        margins: logit of the true class minus the largest other one (B,), negative where the sample is wrong; on the
            CPU.
    """

    statistics: Statistics
    batch: int
    here: Score
    held_out: Score
    margins: Tensor


@dataclass(frozen=True)
class Gradient:
    """The gradient that an adversary climbs, on one batch; its means where it climbs several parts of the batch.

    Attributes:
        statistics: mode of BatchNorm.
        batch: its number.
        adversary: its name.
        vanishes: share of the parts on which it is zero or not finite, so that nothing moves; 0 or 1 for one part.
        cosine: with the gradient that SAM climbs on the batch; NaN where either vanishes.
        effective: samples that carry it, (sum w)^2 / sum w^2 with w_i the norm of its gradient at sample i's logits.
        weights: w_i of each sample (B,), on the CPU; zeros where it is not climbed, and for a random direction.
    """

    statistics: Statistics
    batch: int
    adversary: str
    vanishes: float
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
        norm: l2 norm of eps, the mean over the parts.
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
    modes: Modes,
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
        adversaries: who climbs; SAM is one of them.
        sam: SAM, with whose gradient and eps the others' are compared.
        rhos: radii.
        modes: of the network.
        seed: of random numbers; each batch has its own.
        measured: of the first batches, which are not measured again.
        done: is called after each adversary.

    Raises:
        ValueError: the loss at w is not finite.
    """
    for number, batch in list(enumerate(batches))[measured.batches :]:
        torch.manual_seed(seed + number)
        everyone = [adversary.of_batch(seed + number) for adversary in adversaries]
        other = held_out[number % len(held_out)] if held_out else None
        for kind, training in modes.items():
            with mode(model, training):
                _Look(model, kind, number, batch, other, measured).all(everyone, sam, rhos, done)
        yield measured


@dataclass(frozen=True)
class _Part:
    """What one perturbation of an adversary is made of.

    Attributes:
        seen: samples whose score is taken at w + eps.
        climbed: samples whose objective is climbed.
        logits: of these, at w.
        ascent: gradient of the objective at w.
        before: score of ``seen`` at w.
    """

    seen: Batch
    climbed: Batch
    logits: Tensor
    ascent: Gradients
    before: Score


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
        self._look_at_w(logits)
        wholes = {  # all of them before a weight moves: autograd refuses a graph over other weights
            adversary.name: self._part(adversary, self.batch, self.batch, logits)
            for adversary in adversaries
            if adversary.whole
        }
        self.of_sam = wholes[sam.name]
        for adversary in adversaries:
            parts = [wholes[adversary.name]] if adversary.whole else list(self._parts(adversary))
            self._look_at(adversary, parts)
            for rho in rhos:
                self._climb(adversary, rho, parts, self._eps_of_sam(sam, rho))
            done()

    def _look_at_w(self, logits: Tensor) -> None:
        """Record the batch at w."""
        self.held_out_at_w = self._held_out()
        here = AtW(
            self.kind,
            self.number,
            score(logits, self.batch.y),
            self.held_out_at_w,
            _margins(logits, self.batch.y).cpu(),
        )
        losses = {"batches": here.here.loss} | ({"held_out": here.held_out.loss} if self.held_out is not None else {})
        for name, loss in losses.items():
            if not math.isfinite(loss):
                raise ValueError(
                    f"model has the loss {loss} on {name}[{self.number}] before anything moves ({self.kind} "
                    "statistics): look for NaN and infinity in its weights and in the inputs"
                )
        self.into.at_w.append(here)

    def _part(self, adversary: Adversary, seen: Batch, climbed: Batch, logits: Tensor) -> _Part:
        before = score(logits, seen.y) if climbed is seen else self._score_of(seen)
        return _Part(seen, climbed, logits.detach(), adversary.gradient(logits, climbed.y, self.params), before)

    def _parts(self, adversary: Adversary) -> Iterator[_Part]:
        for seen in self.batch.parts(adversary.parts):
            climbed = seen if adversary.share == 1 else seen.first(adversary.share)
            yield self._part(adversary, seen, climbed, logits_of(self.model, climbed))

    def _look_at(self, adversary: Adversary, parts: Sequence[_Part]) -> None:
        """Record the gradient."""
        weights = [adversary.weights(part.logits, part.climbed.y) for part in parts]
        found = Gradient(
            self.kind,
            self.number,
            adversary.name,
            vanishes=mean(float(not 0 < length_of(part.ascent) < math.inf) for part in parts),
            cosine=mean(cosine(part.ascent, self.of_sam.ascent) for part in parts),
            effective=mean(map(_effective, weights)),
            weights=torch.cat([F.pad(w, (0, len(part.seen) - len(w))) for w, part in zip(weights, parts, strict=True)]),
        )
        self.into.gradients.append(found)

    def _climb(self, adversary: Adversary, rho: float, parts: Sequence[_Part], of_sam: Gradients) -> None:
        """Record the mean over the adversary's perturbations, weighted by their samples."""
        rows = []
        for part in parts:
            with adversary.at_perturbed(self.model, part.climbed, part.logits, part.ascent, rho):
                eps = self._eps()
                here, there = self._score_of(part.seen) - part.before, self._held_out() - self.held_out_at_w
            rows.append([here.error, here.loss, there.error, there.loss, length_of(eps), cosine(eps, of_sam)])
        shares = [len(part.seen) / len(self.batch) for part in parts]
        means = [sum(s * row[i] for s, row in zip(shares, rows, strict=True)) for i in range(6)]
        found = Climbed(self.kind, self.number, adversary.name, rho, Score(*means[:2]), Score(*means[2:4]), *means[4:])
        self.into.climbed.append(found)

    def _eps_of_sam(self, sam: Adversary, rho: float) -> Gradients:
        """Return SAM's eps on the whole batch."""
        if rho not in self._sam_eps:
            with sam.at_perturbed(self.model, self.batch, self.of_sam.logits, self.of_sam.ascent, rho):
                self._sam_eps[rho] = self._eps()
        return self._sam_eps[rho]

    def _eps(self) -> Gradients:
        with torch.no_grad():
            return [param - w for param, w in zip(self.params, self.w, strict=True)]

    def _held_out(self) -> Score:
        return NONE if self.held_out is None else self._score_of(self.held_out)

    def _score_of(self, batch: Batch) -> Score:
        with torch.no_grad():
            return score(logits_of(self.model, batch), batch.y)


def score(logits: Tensor, y: Tensor) -> Score:
    """Return error and loss; a sample is wrong where another class has a larger logit than the true one, or a NaN."""
    logits = logits.detach()
    return Score(float((_margins(logits, y) < 0).double().mean()), float(F.cross_entropy(logits, y)))


def _margins(logits: Tensor, y: Tensor) -> Tensor:
    """Return the true class's logit minus the largest other one (B,); a NaN counts as a mistake without limit."""
    logits = logits.detach()
    true = logits.gather(1, y[:, None])
    others = logits.scatter(1, y[:, None], -math.inf).amax(1, keepdim=True)
    return (true - others).squeeze(1).nan_to_num(nan=-math.inf, posinf=math.inf, neginf=-math.inf)


def _effective(weights: Tensor) -> float:
    total = float(weights.sum())
    return total**2 / float(weights.square().sum()) if 0 < total < math.inf else math.nan


def mean(values: Iterable[float]) -> float:
    """Return the mean of those that are finite; NaN for none."""
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


def cosine(a: Sequence[Tensor], b: Sequence[Tensor]) -> float:
    """Return the cosine of two vectors in pieces; NaN where one of them is zero or not finite."""
    dot = sum(float((x.double() * y.double()).sum()) for x, y in zip(a, b, strict=True))
    norms = length_of(a) * length_of(b)
    return dot / norms if 0 < norms < math.inf else math.nan
