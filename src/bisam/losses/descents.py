"""Which lower bound of the 0-1 loss belongs to a descent objective: one for classes, one for binary labels, or none.

BiSAM asks here what to climb where the user names the descent alone. Losses of ``torch.nn`` are known by their type,
their functions by identity, also as subclasses and inside of ``functools.partial`` and ``torch.compile``. What is known
to have no classes is refused with the line to write. A callable of one's own is taken for a loss of classes, and the
lower bound looks at the targets in its first call.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .bounds import Bound
from .head import ChunkedHeadLoss
from .language import CausalLMLoss
from .modules import BinaryLowerBoundLoss, LowerBoundLoss

__all__ = ["lower_bound_for"]

_FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)

_SAM = "use SAM or ASAM, which climb the descent objective itself, or pass ascent= an objective of your own"
_NUMBERS = f"its targets are numbers: {_SAM}; for one-hot rows say so, ascent=bisam.LowerBoundLoss()"
_DISTANCES = f"it compares vectors and has no logits: {_SAM}"

#: Losses whose targets are binary labels in the shape of the logits: the function, and the dtypes of targets it takes.
_BINARY: dict[str, tuple[str, tuple[torch.dtype, ...]]] = {
    "BCEWithLogitsLoss": ("binary_cross_entropy_with_logits", _FLOATS),
    "MultiLabelSoftMarginLoss": ("multilabel_soft_margin_loss", _FLOATS + _INTEGERS),
}

#: Losses of classes: the function.
_CLASSES = {
    "CrossEntropyLoss": "cross_entropy",
    "NLLLoss": "nll_loss",
    "MultiMarginLoss": "multi_margin_loss",
    "KLDivLoss": "kl_div",
}

#: Losses without classes or without logits: the function, and what to do.
_REFUSED = {
    "MSELoss": ("mse_loss", _NUMBERS),
    "L1Loss": ("l1_loss", _NUMBERS),
    "SmoothL1Loss": ("smooth_l1_loss", _NUMBERS),
    "HuberLoss": ("huber_loss", _NUMBERS),
    "PoissonNLLLoss": ("poisson_nll_loss", _NUMBERS),
    "GaussianNLLLoss": ("gaussian_nll_loss", _NUMBERS),
    "CosineEmbeddingLoss": ("cosine_embedding_loss", _DISTANCES),
    "HingeEmbeddingLoss": ("hinge_embedding_loss", _DISTANCES),
    "MarginRankingLoss": ("margin_ranking_loss", _DISTANCES),
    "TripletMarginLoss": ("triplet_margin_loss", _DISTANCES),
    "TripletMarginWithDistanceLoss": ("triplet_margin_with_distance_loss", _DISTANCES),
    "CTCLoss": ("ctc_loss", f"its targets are sequences without a place for each label: {_SAM}"),
    "BCELoss": (
        "binary_cross_entropy",
        "it takes probabilities, and a lower bound takes logits: leave the sigmoid out of the model and write "
        "descent=nn.BCEWithLogitsLoss()",
    ),
    "SoftMarginLoss": (
        "soft_margin_loss",
        "its labels are -1 and 1: write descent=nn.BCEWithLogitsLoss(), which is the same loss for the labels "
        "(y + 1) / 2, or ascent=lambda z, y: bisam.functional.binary_lower_bound_loss(z, (y + 1) / 2)",
    ),
    "MultiLabelMarginLoss": (
        "multilabel_margin_loss",
        "its targets are lists of classes: write descent=nn.MultiLabelSoftMarginLoss() with rows of 0 and 1, or pass "
        "ascent= an objective of your own",
    ),
    "LinearCrossEntropyLoss": (
        "linear_cross_entropy",
        "it takes features, and a lower bound takes logits: let the model return logits and write "
        "descent=nn.CrossEntropyLoss()",
    ),
}


class _Descent(NamedTuple):
    """A descent objective without what is wrapped around it, and the arguments that ``functools.partial`` has bound."""

    loss: Any
    bound: Mapping[str, Any]

    def option(self, name: str, default: Any) -> Any:
        """Return an option of the loss: bound, or an attribute of its module."""
        return self.bound.get(name, getattr(self.loss, name, default))

    def is_a(self, name: str, function: str) -> bool:
        """Whether it is the loss of that name in ``torch.nn``, or of one of its subclasses, or its function."""
        kind = getattr(nn, name, None)
        if isinstance(self.loss, nn.Module):
            return kind is not None and isinstance(self.loss, kind)
        return any(self.loss is getattr(room, function, None) for room in (nn.functional, torch))


def lower_bound_for(
    bound: str | Bound = "log",
    mu: float | None = None,
    alpha: float | None = None,
    *,
    descent: Callable[..., Tensor] = nn.CrossEntropyLoss(),
) -> LowerBoundLoss | BinaryLowerBoundLoss | CausalLMLoss | ChunkedHeadLoss:
    """Return the lower bound of the 0-1 loss that takes the same logits and targets as ``descent``.

    Binary cross-entropy gives :class:`~bisam.BinaryLowerBoundLoss`, :class:`~bisam.CausalLMLoss` a lower bound that
    shifts like it, :class:`~bisam.ChunkedHeadLoss` one through the same head, everything else
    :class:`~bisam.LowerBoundLoss`. The descent's ``ignore_index`` holds, and where it returns the loss of each sample
    (``reduction="none"``) the bound does too. Weights of classes, ``pos_weight`` and label smoothing have no part in an
    error rate.

    Args:
        bound: as in :class:`~bisam.LowerBoundLoss`.
        mu: as in :class:`~bisam.LowerBoundLoss`.
        alpha: as in :class:`~bisam.LowerBoundLoss`.
        descent: objective of the last pass.

    Raises:
        ValueError: a descent that has no classes, or takes no logits; and whatever the bound refuses.
    """
    inner = _unwrapped(descent)
    if isinstance(inner.loss, CausalLMLoss):
        return CausalLMLoss(lower_bound_for(bound, mu, alpha, descent=inner.loss.loss))
    if isinstance(inner.loss, ChunkedHeadLoss):
        of_logits = LowerBoundLoss(bound, mu, alpha, ignore_index=inner.loss.ignore_index)
        return ChunkedHeadLoss(inner.loss.head, of_logits, inner.loss.samples)
    _refuse(descent, inner)
    for name, (function, dtypes) in _BINARY.items():
        if inner.is_a(name, function):
            each = name == "BCEWithLogitsLoss" and inner.option("reduction", "mean") == "none"
            binary = BinaryLowerBoundLoss(bound, mu, alpha, reduction="none" if each else "mean")
            binary.target_dtypes = dtypes
            return binary
    each = _is_any(inner, "CrossEntropyLoss", "NLLLoss", "MultiMarginLoss")
    each = each and inner.option("reduction", "mean") == "none"
    classes = LowerBoundLoss(
        bound,
        mu,
        alpha,
        ignore_index=inner.option("ignore_index", -100),
        reduction="none" if each else "mean",
    )
    if _is_any(inner, "MultiMarginLoss"):
        classes.target_dtypes = (torch.int64,)
    return classes


def _unwrapped(descent: Any) -> _Descent:
    """Look through ``functools.partial``, ``torch.compile`` and bound methods."""
    options: dict[str, Any] = {}
    while True:
        owner = getattr(descent, "__self__", None)
        if isinstance(descent, functools.partial):
            options = {**descent.keywords, **options}
            descent = descent.func
        elif isinstance(owner, nn.Module) and descent in (owner.forward, owner.__call__):
            descent = owner
        elif isinstance(descent, nn.Module) and isinstance(getattr(descent, "_orig_mod", None), nn.Module):
            descent = descent._orig_mod
        elif inspect.isfunction(descent) and callable(inside := getattr(descent, "__wrapped__", None)):
            descent = inside
        else:
            return _Descent(descent, options)


def _refuse(descent: Any, inner: _Descent) -> None:
    for name, (function, remedy) in _REFUSED.items():
        if inner.is_a(name, function):
            raise ValueError(
                f"descent={descent!r} gives BiSAM no lower bound of the 0-1 loss to climb, because {remedy}"
            )
    if _is_any(inner, "KLDivLoss") and inner.option("log_target", False):
        raise ValueError(
            f"descent={descent!r} takes logarithms of probabilities as targets, and a lower bound takes probabilities: "
            "write descent=nn.KLDivLoss(reduction='batchmean') and pass target.exp(), or use SAM or ASAM"
        )


def _is_any(inner: _Descent, *names: str) -> bool:
    return any(inner.is_a(name, _CLASSES[name]) for name in names)
