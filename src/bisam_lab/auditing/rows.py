"""What was measured, as one row for each adversary, radius and mode of BatchNorm."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..statistics.comparison import holm
from ..statistics.tests import TESTS
from .measure import MARGINS, Climbed, Gradient, Measured
from .modes import Statistics

__all__ = ["Row", "rows_of"]

#: Nats by which the loss must rise for a ratio to it to mean something.
LEAST = 1e-3


@dataclass(frozen=True)
class Row:
    """An adversary at a radius, over all batches. Errors are in percentage points, losses in nats.

    Differences are to SAM, paired by batch, with Student's 95 % interval of their mean and the p-value after Holm's
    correction over all adversaries and radii of the mode. They tell of other batches at these weights, not of other
    trainings.

    Attributes:
        adversary: as in ``bisam compare``, or one of the audit's own.
        rho: SAM's radius; others take it in proportion to their published radii, as in a recipe.
        statistics: by which BatchNorm normalises: "batch", as in training, or "running".
        n: batches.
        eps_norm: mean l2 norm of the perturbation.
        eps_norm_ratio: it over that of SAM's, the mean over the batches on which both are above zero.
        cosine_median: of the ascent gradient and SAM's, over the batches; NaN for none.
        cosine_least: the smallest one.
        eps_cosine_median: of the perturbation and SAM's at this radius.
        no_gradient: share of the batches on which it has none, so that nothing moves.
        effective_samples: mean number of samples that carry its gradient; of a part's where it climbs parts.
        weight_wrong: share of its gradient on samples that are wrong.
        weight_within_2: on those that are right by a margin of up to 2.
        weight_within_5: by a margin from 2 to 5.
        weight_beyond: by more.
        rise_error_batch: mean rise of the error on the batch that was climbed.
        rise_loss_batch: of its cross-entropy.
        rise_error_held_out: mean rise of the error on held-out data.
        rise_loss_held_out: of their cross-entropy.
        error_per_nat: rise of the batch's error for each nat of its cross-entropy, if that rises by .001 or more.
        difference_batch: rise of the batch's error minus that under SAM.
        difference_batch_low: lower end of its interval.
        difference_batch_high: upper end.
        difference_batch_p: after Holm's correction.
        difference_held_out: the same of held-out data.
        difference_held_out_low: lower end.
        difference_held_out_high: upper end.
        difference_held_out_p: after Holm's correction.
        equal_loss_batch: difference of the batch's error to SAM at equal rise of the batch's cross-entropy: at the
            smaller one of both, between the radii along straight lines. NaN where it lowers the loss of a batch.
        equal_loss_batch_low: lower end of its interval.
        equal_loss_batch_high: upper end.
    """

    adversary: str
    rho: float
    statistics: Statistics
    n: int
    eps_norm: float
    eps_norm_ratio: float
    cosine_median: float
    cosine_least: float
    eps_cosine_median: float
    no_gradient: float
    effective_samples: float
    weight_wrong: float
    weight_within_2: float
    weight_within_5: float
    weight_beyond: float
    rise_error_batch: float
    rise_loss_batch: float
    rise_error_held_out: float
    rise_loss_held_out: float
    error_per_nat: float
    difference_batch: float = math.nan
    difference_batch_low: float = math.nan
    difference_batch_high: float = math.nan
    difference_batch_p: float = math.nan
    difference_held_out: float = math.nan
    difference_held_out_low: float = math.nan
    difference_held_out_high: float = math.nan
    difference_held_out_p: float = math.nan
    equal_loss_batch: float = math.nan
    equal_loss_batch_low: float = math.nan
    equal_loss_batch_high: float = math.nan


def rows_of(measured: Measured, adversaries: Sequence[str], sam: str = "sam") -> list[Row]:
    """Return a row for each adversary, radius and mode, in this order of sorting: mode, adversary, radius."""
    found: list[Row] = []
    for kind in dict.fromkeys(at_w.statistics for at_w in measured.at_w):
        climbed = _by(measured.climbed, kind)
        of_sam = climbed[sam]
        rows = []
        for name in adversaries:
            for rho, points in climbed[name].items():
                row = _row(name, rho, kind, measured, points, of_sam[rho])
                rows.append(row if name == sam else _compared(row, climbed[name], of_sam))
        found += _corrected(rows)
    return found


def _by(climbed: Sequence[Climbed], kind: Statistics) -> dict[str, dict[float, list[Climbed]]]:
    """Return the points of a mode by adversary and radius, each list in the order of the batches."""
    found: dict[str, dict[float, list[Climbed]]] = {}
    for point in climbed:
        if point.statistics == kind:
            found.setdefault(point.adversary, {}).setdefault(point.rho, []).append(point)
    return found


def _row(
    name: str, rho: float, kind: Statistics, measured: Measured, points: Sequence[Climbed], of_sam: Sequence[Climbed]
) -> Row:
    gradients = [g for g in measured.gradients if (g.statistics, g.adversary) == (kind, name)]
    cosines = [g.cosine for g in gradients if math.isfinite(g.cosine)]
    error, loss = (_mean([getattr(p.here, of) for p in points]) for of in ("error", "loss"))
    shares = _shares(gradients, {at_w.batch: at_w.margins.numpy() for at_w in measured.at_w if at_w.statistics == kind})
    return Row(
        adversary=name,
        rho=rho,
        statistics=kind,
        n=len(points),
        eps_norm=_mean([p.norm for p in points]),
        eps_norm_ratio=_mean([p.norm / s.norm for p, s in zip(points, of_sam, strict=True) if p.norm * s.norm > 0]),
        cosine_median=float(np.median(cosines)) if cosines else math.nan,
        cosine_least=min(cosines, default=math.nan),
        eps_cosine_median=_median([p.cosine for p in points]),
        no_gradient=_mean([g.vanishes for g in gradients]),
        effective_samples=_mean([g.effective for g in gradients if math.isfinite(g.effective)]),
        weight_wrong=shares[0],
        weight_within_2=shares[1],
        weight_within_5=shares[2],
        weight_beyond=shares[3],
        rise_error_batch=100 * error,
        rise_loss_batch=loss,
        rise_error_held_out=100 * _mean([p.held_out.error for p in points]),
        rise_loss_held_out=_mean([p.held_out.loss for p in points]),
        error_per_nat=100 * error / loss if loss > LEAST else math.nan,
    )


def _shares(gradients: Sequence[Gradient], margins: dict[int, npt.NDArray[np.float32]]) -> list[float]:
    """Return the share of the weight on samples of each kind of margin, of all batches together."""
    totals = np.zeros(len(MARGINS) + 1)
    for gradient in gradients:
        # a sample is wrong below 0, and within 2 at 2
        place = np.searchsorted(MARGINS, margins[gradient.batch], side="left")
        place[margins[gradient.batch] == 0] = 1
        size = float(gradient.weights.sum())
        if 0 < size < math.inf:
            totals += np.bincount(place, gradient.weights.numpy() / size, minlength=len(totals))
    whole = totals.sum()
    return [float(total / whole) if whole > 0 else math.nan for total in totals]


def _compared(row: Row, mine: dict[float, list[Climbed]], sam: dict[float, list[Climbed]]) -> Row:
    """Add the paired differences to SAM."""
    pairs = list(zip(mine[row.rho], sam[row.rho], strict=True))
    found: dict[str, Any] = {}
    for name, where in (("batch", "here"), ("held_out", "held_out")):
        differences = [100 * (getattr(m, where).error - getattr(s, where).error) for m, s in pairs]
        found |= _interval(f"difference_{name}", differences)
    equal = [_at_equal_loss(mine, sam, row.rho, i) for i in range(len(pairs))]
    found |= _interval("equal_loss_batch", equal)
    found.pop("equal_loss_batch_p")
    return replace(row, **found)


def _interval(name: str, differences: Sequence[float]) -> dict[str, float]:
    low, high, p = TESTS["t"](differences)
    return {name: _mean(differences), f"{name}_low": low, f"{name}_high": high, f"{name}_p": p}


def _at_equal_loss(mine: dict[float, list[Climbed]], sam: dict[float, list[Climbed]], rho: float, batch: int) -> float:
    """Return a batch's error minus that under SAM, in points, where both have raised its loss alike.

    NaN where one has lowered it: no radius of the other one does the same.
    """
    loss = min(mine[rho][batch].here.loss, sam[rho][batch].here.loss)
    if not loss >= 0:
        return math.nan
    errors = [_error_at(curve, loss, batch) for curve in (mine, sam)]
    return 100 * (errors[0] - errors[1])


def _error_at(curve: dict[float, list[Climbed]], loss: float, batch: int) -> float:
    """Return the rise of the error where the loss has first risen so far, along straight lines between radii."""
    before = (0.0, 0.0)
    for _, points in sorted(curve.items()):
        score = points[batch].here
        if score.loss >= loss:
            share = (loss - before[0]) / (score.loss - before[0]) if score.loss > before[0] else 1.0
            return before[1] + share * (score.error - before[1])
        before = (score.loss, score.error)
    return math.nan


def _corrected(rows: Sequence[Row]) -> list[Row]:
    """Correct the p-values of one mode, those of the batch and those of held-out data each by themselves."""
    found = list(rows)
    for name in ("difference_batch_p", "difference_held_out_p"):
        adjusted: list[Any] = holm([getattr(row, name) for row in found])
        found = [replace(row, **{name: p}) for row, p in zip(found, adjusted, strict=True)]
    return found


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else math.nan


def _median(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return float(np.median(finite)) if finite else math.nan
