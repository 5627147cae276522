"""Calibration: expected calibration error and likelihood, as they are and after one temperature.

The error is that of Naeini et al. (AAAI 2015) with 15 bins of equal width, as in Guo et al. (ICML 2017, arXiv
1706.04599), who fit the temperature on validation: softmax(logits / T) with the T of the best likelihood.
"""

import math

import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from torch import Tensor

from .subject import Subject

__all__ = ["calibration", "fitted_temperature"]

BINS = 15
#: The temperature is sought between e^-5 and e^5.
_WIDEST = 5.0


def calibration(subject: Subject) -> dict[str, float]:
    """Return ``ece`` and ``nll`` on the test set, both after a ``temperature``, and that; NaN where a logit is none."""
    test, labels = subject.logits(subject.test).double(), subject.test.labels
    held_out = subject.logits(subject.validation).double()
    if not (test.isfinite().all() and held_out.isfinite().all()):
        return dict.fromkeys(("ece", "nll", "ece_scaled", "nll_scaled", "temperature"), math.nan)
    temperature = fitted_temperature(held_out, subject.validation.labels)
    scaled = test / temperature
    return {
        "ece": _ece(test, labels),
        "nll": float(F.cross_entropy(test, labels)),
        "ece_scaled": _ece(scaled, labels),
        "nll_scaled": float(F.cross_entropy(scaled, labels)),
        "temperature": temperature,
    }


def fitted_temperature(logits: Tensor, labels: Tensor) -> float:
    """Return the T > 0 with the least cross-entropy of ``logits / T`` (N, K) and labels (N,)."""

    def loss(log_temperature: float) -> float:
        return float(F.cross_entropy(logits / math.exp(log_temperature), labels))

    return math.exp(minimize_scalar(loss, bounds=(-_WIDEST, _WIDEST), method="bounded").x)


def _ece(logits: Tensor, labels: Tensor) -> float:
    """Return the mean over the examples of |confidence - accuracy| of an example's bin.

    The bins are (0, 1/15], (1/15, 2/15] and so on. torchmetrics has this number, too, and imports for seconds, in every
    process, all that it knows to measure.
    """
    confidence, predicted = torch.softmax(logits, 1).max(1)
    bins = (confidence * BINS).ceil().long().clamp(1, BINS) - 1
    gaps = torch.zeros(BINS, dtype=torch.float64).index_add_(0, bins, confidence - predicted.eq(labels).double())
    return float(gaps.abs().sum()) / len(labels)
