r"""The 0-1 loss and BiSAM's smooth lower bound of it, as functions.

For a sample with logits f, label y and margins F_j = f_j - f_y, the loss is

    Q = 1/mu [ log sum_j exp(mu phi(F_j)) - log K ]  <=  max_j phi(F_j)  <=  1{max_j F_j > 0}.

It differs from the paper's printed Q (Xie et al., ICML 2024, arXiv 2407.12993) by the constant -log(K)/mu, without
which the value is no lower bound (at uniform logits, K = 10 and mu = 1 the printed Q reads 2.303), and from the
authors' script, which logs mu Q, by the factor 1/mu. The gradient is that of the printed Q, and the direction
in which an adversary climbs is the same in all three.
"""

import torch
from torch import Tensor

from .._validation import positive
from ._autograd import BinaryLowerBound, ExpectedLowerBound, LowerBound, wide_dtype
from ._fast import fast_lower_bound
from ._targets import Samples, are_distributions, are_labels, binary_labels, classes_last, explain
from .bounds import Bound, as_bound

__all__ = ["binary_lower_bound_loss", "lower_bound_loss", "zero_one_loss"]


def lower_bound_loss(
    logits: Tensor,
    target: Tensor,
    *,
    bound: str | Bound = "log",
    mu: float | None = None,
    alpha: float | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    r"""Smooth lower bound of the 0-1 loss: 1/mu [logsumexp_j mu phi(f_j - f_y) - log K] for each sample.

    For every input the value is at most the sample's 0-1 loss. It is computed in float32 or better whatever the
    dtype of the logits and whatever autocast says, with the closed-form gradient
    dQ/df_j = softmax_j(mu phi(F)) phi'(F_j) for j != y; the true class gets minus their sum. Logits of -inf
    (masked classes) and +inf are allowed; a NaN gives NaN, as in cross-entropy.

    Args:
        logits: (B, K), (K,) or (B, K, d1, ...), any floating dtype; K is at least 2.
        target: class indices (B,), () or (B, d1, ...), or probabilities of the shape of ``logits`` (mixup, label
            smoothing), not (K,), which mean the expectation over the target's class.
        bound: ``"log"``, ``"tanh"``, ``"ramp"``, ``"softsign"``, ``"shifted-tanh"`` or a :class:`~bisam.bounds.Bound`.
        mu: sharpness of the smoothed maximum, > 0; ``None`` takes the bound's own (log: 1, tanh and the rest: 10).
        alpha: slope at zero of a bound given by name, > 0; ``None`` means 0.1. ``"log"`` has none, and refuses it.
        ignore_index: class index of samples to leave out; not used with probabilities.
        reduction: ``"mean"`` over the samples not ignored (0 where there are none), ``"sum"`` or ``"none"``.

    Returns:
        A scalar, or the shape of the class indices for ``"none"``; float32, or float64 for float64 logits.

    Raises:
        TypeError: logits that are not floating point; a bool target, or a floating one of another shape.
        ValueError: shapes or devices that do not match; fewer than two classes; floating targets for logits (K,),
            which may as well be K binary labels; on the CPU, rows that are negative or do not sum to 1; a class index
            out of range (on CPU; on CUDA the device asserts); ``mu <= 0``, ``alpha <= 0`` or without effect, an
            unknown ``bound`` or ``reduction``.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0, -1.0], [0.0, 3.0, 0.0]])
        >>> lower_bound_loss(logits, torch.tensor([0, 0]), reduction="none")
        tensor([-0.8557,  0.4064])
    """
    bound = as_bound(bound, alpha)
    mu = bound.mu if mu is None else positive("mu", mu)
    samples = classes_last(logits, target)
    if not samples.by_class and target.device.type == "cpu":
        are_distributions(samples.target)
    return lower_bound_of(samples, bound, mu, ignore_index, reduction)


def lower_bound_of(samples: Samples, bound: Bound, mu: float, ignore_index: int, reduction: str) -> Tensor:
    """:func:`lower_bound_loss` of samples, a bound and a mu that have been checked."""
    logits, target, by_class = samples
    if not by_class:
        return _reduce(ExpectedLowerBound.apply(logits, target, bound, mu), reduction, None)
    try:
        fast = fast_lower_bound(logits, target, bound, mu, ignore_index, reduction)
        value = LowerBound.apply(logits, target, bound, mu, ignore_index) if fast is None else fast
    except (RuntimeError, IndexError) as error:
        raise explain(error, target, logits.shape[-1], ignore_index) from error
    return _reduce(value, reduction, target != ignore_index) if fast is None else fast


def binary_lower_bound_loss(
    logits: Tensor,
    target: Tensor,
    *,
    bound: str | Bound = "log",
    mu: float | None = None,
    alpha: float | None = None,
    reduction: str = "mean",
) -> Tensor:
    """:func:`lower_bound_loss` for problems with one logit: the two classes have the logits (0, z).

    Each logit is a problem of its own, so that the mean is a lower bound of the share of labels that are wrong.

    Args:
        logits: any shape, any floating dtype; positive means class 1.
        target: the same shape; 0 or 1 as integers or bools, or floating probabilities of class 1.
        bound: as in :func:`lower_bound_loss`.
        mu: as in :func:`lower_bound_loss`.
        alpha: as in :func:`lower_bound_loss`.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Returns:
        A scalar, or the shape of ``logits`` for ``"none"``; float32, or float64 for float64 logits.

    Raises:
        TypeError: logits that are not floating point; a complex target.
        ValueError: shapes or devices that differ; on the CPU, labels outside 0..1; ``mu <= 0``, ``alpha <= 0`` or
            without effect, an unknown ``bound`` or ``reduction``.

    Example:
        >>> binary_lower_bound_loss(torch.tensor([-2.0, 3.0]), torch.tensor([1.0, 1.0]), reduction="none")
        tensor([ 0.4717, -0.6194])
    """
    bound = as_bound(bound, alpha)
    mu = bound.mu if mu is None else positive("mu", mu)
    labels = binary_labels(logits, target)
    if target.device.type == "cpu":
        are_labels(labels)
    return binary_lower_bound_of(logits, labels, bound, mu, reduction)


def binary_lower_bound_of(logits: Tensor, labels: Tensor, bound: Bound, mu: float, reduction: str) -> Tensor:
    """:func:`binary_lower_bound_loss` of labels, a bound and a mu that have been checked."""
    return _reduce(BinaryLowerBound.apply(logits, labels, bound, mu), reduction, None)


def zero_one_loss(logits: Tensor, target: Tensor, *, ignore_index: int = -100, reduction: str = "mean") -> Tensor:
    """The share of mistakes: 1 where another class beats the true one (max_j F_j > 0), or where a logit is NaN.

    A tie is not a mistake. The gradient is zero everywhere; use it to watch, not to train.

    Example:
        >>> from bisam.functional import zero_one_loss
        >>> zero_one_loss(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0]))
        tensor(0.5000)

    Args:
        logits: (B, K), (K,) or (B, K, d1, ...).
        target: class indices or probabilities, as in :func:`lower_bound_loss`.
        ignore_index: class index of samples to leave out.
        reduction: ``"mean"`` over the samples not ignored (0 where there are none), ``"sum"`` or ``"none"``.

    Returns:
        A scalar, or the shape of the class indices for ``"none"``; float32, or float64 for float64 logits.

    Raises:
        TypeError: as :func:`lower_bound_loss`.
        ValueError: as :func:`lower_bound_loss`.
    """
    samples = classes_last(logits, target)
    if not samples.by_class and target.device.type == "cpu":
        are_distributions(samples.target)
    return mistakes_of(samples, ignore_index, reduction)


def mistakes_of(samples: Samples, ignore_index: int, reduction: str) -> Tensor:
    """:func:`zero_one_loss` of samples that have been checked."""
    logits, target, by_class = samples.logits.detach(), samples.target, samples.by_class
    wrong = (~(logits >= logits.amax(-1, keepdim=True))).to(wide_dtype(logits))  # NaN compares false: a mistake
    if not by_class:
        return _reduce((target * wrong).sum(-1), reduction, None)
    kept = target != ignore_index
    try:
        value = wrong.gather(-1, torch.where(kept, target, 0).unsqueeze(-1)).squeeze(-1)
    except (RuntimeError, IndexError) as error:
        raise explain(error, target, logits.shape[-1], ignore_index) from error
    return _reduce(torch.where(kept, value, 0), reduction, kept)


def _reduce(value: Tensor, reduction: str, kept: Tensor | None) -> Tensor:
    if reduction == "none":
        return value
    if reduction == "sum":
        return value.sum()
    if reduction != "mean":
        raise ValueError(f"reduction={reduction!r} is unknown: choose 'mean', 'sum' or 'none'")
    return value.sum() / (max(value.numel(), 1) if kept is None else kept.sum().clamp(min=1))
