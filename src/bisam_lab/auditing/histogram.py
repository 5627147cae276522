"""The margins of the samples, and how each objective weights them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .measure import Measured
from .modes import Statistics

__all__ = ["Histogram", "histogram"]

Floats: TypeAlias = npt.NDArray[np.floating[Any]]
BINS = 40
#: Share of the samples that lies beyond each end; it is counted in the outermost bins.
BEYOND = 0.005


@dataclass(frozen=True)
class Histogram:
    """Samples by margin.

    Attributes:
        edges: of the bins, ends of the margins.
        share: of the samples in each bin.
        weights: by adversary: share of its gradient's weight in each bin; empty for a random direction.
    """

    edges: list[float]
    share: list[float]
    weights: dict[str, list[float]]


def histogram(measured: Measured, adversaries: Sequence[str], kind: Statistics) -> Histogram:
    """Return the histogram of one mode's margins, over all batches; a batch's weights add up to one."""
    margins = {at_w.batch: at_w.margins.numpy() for at_w in measured.at_w if at_w.statistics == kind}
    everything = np.concatenate(list(margins.values()))
    finite = everything[np.isfinite(everything)]
    low, high = np.quantile(finite, [BEYOND, 1 - BEYOND]) if len(finite) else (0, 1)
    edges = np.linspace(low, high if high > low else low + 1, BINS + 1)
    weights = {}
    for name in adversaries:
        total = np.zeros(BINS)
        for gradient in measured.gradients:
            size = float(gradient.weights.sum())
            if (gradient.statistics, gradient.adversary) == (kind, name) and 0 < size < np.inf:
                total += _binned(margins[gradient.batch], edges, gradient.weights.numpy() / size)
        if total.sum() > 0:
            weights[name] = (total / total.sum()).tolist()
    counts = _binned(everything, edges, np.ones(len(everything)))
    return Histogram(edges.tolist(), (counts / counts.sum()).tolist(), weights)


def _binned(margins: Floats, edges: Floats, weights: Floats) -> Floats:
    place = np.clip(np.searchsorted(edges, margins, side="right") - 1, 0, BINS - 1)
    return np.bincount(place, weights, minlength=BINS).astype(float)
