"""What an audit found, in words."""

import math
from collections.abc import Collection, Sequence

from .rows import Row

__all__ = ["verdicts"]

#: From this cosine of the perturbations on, and up to this difference of their lengths, a method is SAM.
SAME = 0.999
LENGTH = 0.05
#: Where fewer samples carry the gradient, it is said.
FEW = 2.0
LEVEL = 0.05


def verdicts(rows: Sequence[Row], sam: str = "sam", more: Collection[str] = ()) -> list[str]:
    """Return one sentence or two for each adversary but SAM.

    Args:
        rows: of an audit.
        sam: its name.
        more: adversaries that are methods with steps or gradients of their own, which an audit does not look at.
    """
    names = [name for name in dict.fromkeys(row.adversary for row in rows) if name != sam]
    return [_verdict(name, [row for row in rows if row.adversary == name], name in more) for name in names]


def _verdict(name: str, rows: Sequence[Row], more: bool) -> str:
    cosines = [row.eps_cosine_median for row in rows if math.isfinite(row.eps_cosine_median)]
    if not cosines:
        return f"{name}: it has no gradient on any batch, so it perturbs nothing."
    start = f"{name}: cosine {_cosine(min(cosines))} with SAM's perturbation"
    length = _length(rows)
    if min(cosines) >= SAME and not length and not any(_significant(row) for row in rows):
        same = "it perturbs as SAM does; its other choices are not audited" if more else "this method is SAM"
        return f"{start}: on this checkpoint {same}.{_weak(rows)}"
    kinds = list(dict.fromkeys(row.statistics for row in rows))
    kinds = kinds[:1] if _alike(rows) else kinds
    parts = [_of_mode([row for row in rows if row.statistics == kind], len(kinds) > 1) for kind in kinds]
    return f"{' '.join([f'{start}{length}.', *filter(None, parts)])}{_weak(rows)}"


def _length(rows: Sequence[Row]) -> str:
    """Say by what its perturbation is longer or shorter than SAM's, where it is."""
    ratios = [row.eps_norm_ratio for row in rows if row.eps_norm_ratio > 0]
    far = max(ratios, key=lambda ratio: abs(math.log(ratio)), default=1.0)
    return "" if abs(far - 1) <= LENGTH else f", and {far:.2g} times its length"


def _alike(rows: Sequence[Row]) -> bool:
    """Whether both modes gave the same numbers, as without BatchNorm."""
    of_batch = {row.rho: str(row.rise_loss_batch) for row in rows if row.statistics == "batch"}  # NaN is NaN here
    return all(of_batch[row.rho] == str(row.rise_loss_batch) for row in rows)


def _of_mode(rows: Sequence[Row], name_mode: bool) -> str:
    """Tell the radius at which the batch's error differs most surely from that under SAM, and held-out error there."""
    rows = [row for row in rows if math.isfinite(row.difference_batch)]
    if not rows:
        return ""
    row = min(rows, key=lambda row: (_p(row.difference_batch_p), -abs(row.difference_batch)))
    where = f"With {row.statistics} statistics, at" if name_mode else "At"
    here = _judged(row.difference_batch, row.difference_batch_low, row.difference_batch_high, row.difference_batch_p)
    batches = "1 batch" if row.n == 1 else f"{row.n} batches"
    text = f"{where} rho {row.rho:g}, {batches}: the batch's error against SAM {here}"
    if not math.isfinite(row.difference_held_out):
        return f"{text}."
    low, high = row.difference_held_out_low, row.difference_held_out_high
    return f"{text}; held-out error {_judged(row.difference_held_out, low, high, row.difference_held_out_p)}."


def _p(value: float) -> float:
    """Return a p-value for sorting: there is none without spread over the batches."""
    return 1.0 if math.isnan(value) else value


def _judged(difference: float, low: float, high: float, p: float) -> str:
    interval = f" [{low:+.2f}, {high:+.2f}]" if math.isfinite(low + high) else ""
    judged = "no evidence of a difference" if not p < LEVEL else f"{'more' if difference > 0 else 'fewer'} mistakes"
    return f"{difference:+.2f} points{interval}, {judged}"


def _significant(row: Row) -> bool:
    return row.difference_batch_p < LEVEL or row.difference_held_out_p < LEVEL


def _weak(rows: Sequence[Row]) -> str:
    """Say where its gradient vanishes or rests on few samples."""
    said = ""
    empty = max(row.no_gradient for row in rows)
    few = min((row.effective_samples for row in rows if math.isfinite(row.effective_samples)), default=math.inf)
    if empty > 0:
        said += f" It has no gradient on {100 * empty:.0f} % of the batches."
    if few < FEW:
        said += f" Its gradient rests on {few:.1f} samples of a batch."
    return said


def _cosine(value: float) -> str:
    """Return a cosine with as many nines as it has, up to six digits."""
    digits = min(6, max(2, math.ceil(-math.log10(max(1 - value, 1e-6))) + 1))
    return f"{math.floor(value * 10**digits) / 10**digits:.{digits}f}".replace("0.", ".", 1)
