"""What a target may be: its type and shape, which belong to the logits, and its values, which are looked at once.

Shapes cost nothing and are checked in every call. Values are on the device, and a look waits for it: the functions
look on the CPU alone, the modules in their first call. Nobody looks where it cannot be done (``torch.compile``,
``vmap``, the meta device, the capture of a CUDA graph).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ._autograd import wide_dtype

__all__ = ["Samples", "are_distributions", "are_labels", "binary_labels", "classes_last", "explain"]

#: How far probabilities may be off: those that were rounded to 16 bits add up to 1 within 0.004.
_ROUNDING = 0.01

_ONE_LOGIT = (
    "for one logit a label use bisam.BinaryLowerBoundLoss(), which BiSAM climbs by itself under "
    "descent=nn.BCEWithLogitsLoss() (its error rate: ((logits > 0) != (target > 0.5)).float().mean())"
)
_REGRESSION = "numbers to regress have no 0-1 loss: use SAM or ASAM, or pass ascent= a loss of your own"


class Samples(NamedTuple):
    """Logits and targets that belong together.

    Attributes:
        logits: (..., K), classes last.
        target: class indices (...), or probabilities (..., K).
        by_class: whether the target holds class indices.
    """

    logits: Tensor
    target: Tensor
    by_class: bool


def classes_last(logits: Tensor, target: Tensor) -> Samples:
    """Return logits with classes last and the target to match.

    Args:
        logits: (B, K), (K,) or (B, K, d1, ...).
        target: class indices (B,), () or (B, d1, ...), or probabilities of the shape of ``logits``.

    Raises:
        TypeError: logits that are not floating point; a target that is no tensor of class indices or probabilities.
        ValueError: shapes or devices that do not belong together; fewer than two classes; floating targets (K,) for
            logits (K,), which may as well be K binary labels.
    """
    _check_tensors(logits, target)
    if logits.ndim == 2 and target.dtype == torch.int64 and logits.shape[:1] == target.shape and logits.shape[1] > 1:
        return Samples(logits, target, True)  # what nearly every call is
    if logits.ndim == 0:
        raise ValueError("logits of shape () have no class dimension: pass (B, K), (K,) or (B, K, d1, ...)")
    dim = 0 if logits.ndim == 1 else 1
    if logits.shape[dim] < 2:
        count = ("no classes", "one class")[logits.shape[dim]]
        raise ValueError(
            f"logits of shape {tuple(logits.shape)} have {count} in dimension {dim}, and a 0-1 loss needs two: "
            f"{_ONE_LOGIT}; {_REGRESSION}"
        )
    if target.is_floating_point():
        _check_probabilities(logits, target)
        return Samples(logits.movedim(dim, -1), target.movedim(dim, -1).to(wide_dtype(logits)), False)
    _check_indices(logits, target, logits.shape[:dim] + logits.shape[dim + 1 :])
    return Samples(logits if dim == logits.ndim - 1 else logits.movedim(dim, -1), target.long(), True)


def binary_labels(logits: Tensor, target: Tensor) -> Tensor:
    """Return the labels of binary problems as probabilities of class 1, at least in float32.

    Raises:
        TypeError: logits that are not floating point; a target that is no tensor of labels.
        ValueError: shapes or devices that differ.
    """
    _check_tensors(logits, target)
    if target.is_complex():
        raise TypeError(f"target of dtype {target.dtype} must hold labels 0 and 1, or probabilities: use target.real")
    if logits.shape != target.shape:
        remedy = "use target.reshape(logits.shape)" if logits.numel() == target.numel() else "one label for each logit"
        if target.ndim == logits.ndim - 1 and logits.ndim > 1 and logits.shape[1] > 1:
            remedy += ", or bisam.LowerBoundLoss() if the target holds class indices"
        raise ValueError(
            f"target of shape {tuple(target.shape)} must have the shape of logits, {tuple(logits.shape)}: {remedy}"
        )
    return target.to(wide_dtype(logits))


def are_distributions(probabilities: Tensor) -> bool:
    """Look whether rows (..., K) hold probabilities; return whether they could be looked at.

    Raises:
        ValueError: values below 0, or rows that do not sum to 1.
    """
    if not probabilities.numel():
        return False
    with torch.no_grad():
        sums = probabilities.sum(-1)
        found = _values(probabilities.amin(), sums.amin(), sums.amax())
    if found is None:
        return False
    lowest, least, most = found
    if lowest >= -_ROUNDING and least >= 1 - _ROUNDING and most <= 1 + _ROUNDING:
        return True
    raise ValueError(
        f"target holds rows over {probabilities.shape[-1]} classes that are no probabilities: its "
        f"lowest value is {lowest:.4g}, and rows sum to {least:.4g} .. {most:.4g} instead of 1. For several labels a "
        "sample use bisam.BinaryLowerBoundLoss(), which BiSAM climbs by itself under descent=nn.BCEWithLogitsLoss(); "
        f"leave out samples without a label, logits[keep] and target[keep]; {_REGRESSION}"
    )


def are_labels(probabilities: Tensor) -> bool:
    """Look whether binary labels lie in 0..1; return whether they could be looked at.

    Raises:
        ValueError: they do not.
    """
    if not probabilities.numel():
        return False
    with torch.no_grad():
        found = _values(probabilities.amin(), probabilities.amax())
    if found is None:
        return False
    lowest, highest = found
    if lowest >= -_ROUNDING and highest <= 1 + _ROUNDING:
        return True
    raise ValueError(
        f"target holds values from {lowest:.4g} to {highest:.4g}: binary labels are 0 or 1, or probabilities of class "
        "1 between them. Labels -1 and 1 become (target + 1) / 2, labels that the loop masks become 0, and class "
        f"indices belong to bisam.LowerBoundLoss(); {_REGRESSION}"
    )


def explain(error: Exception, target: Tensor, classes: int, ignore_index: int) -> Exception:
    """Turn the kernel's complaint about an index into one about ``target``; other errors pass unchanged."""
    if "out of bounds" not in str(error) or target.device.type != "cpu":
        return error
    try:
        kept = target[target != ignore_index]
        first = int(kept[(kept < 0) | (kept >= classes)][0])
    except (RuntimeError, IndexError):  # under vmap the values cannot be looked at
        return error
    return ValueError(
        f"target holds class index {first}, but logits have {classes} classes: "
        f"indices must lie in 0..{classes - 1} or equal ignore_index={ignore_index}"
    )


def _check_tensors(logits: Tensor, target: Tensor) -> None:
    for name, tensor in (("logits", logits), ("target", target)):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} of type {type(tensor).__name__} must be a tensor: use torch.as_tensor({name})")
    if not logits.is_floating_point():
        raise TypeError(f"logits of dtype {logits.dtype} must be floating point: pass the network's raw outputs")
    if logits.device != target.device:
        raise ValueError(
            f"target on {target.device} must be on the device of logits, {logits.device}: use target.to(...)"
        )


def _check_probabilities(logits: Tensor, target: Tensor) -> None:
    if target.shape != logits.shape:
        raise TypeError(
            f"target of dtype {target.dtype} and shape {tuple(target.shape)}: class indices must be integers "
            f"(use target.long()) and probabilities must have the shape of logits, {tuple(logits.shape)}"
        )
    if logits.ndim == 1 and not _in_vmap(target):
        raise ValueError(
            f"target of dtype {target.dtype} and shape {tuple(target.shape)} for logits of the same shape may be one "
            f"sample with {len(logits)} classes or {len(logits)} binary labels: pass one sample as a row, logits[None] "
            f"and target[None]; {_ONE_LOGIT}"
        )


def _check_indices(logits: Tensor, target: Tensor, shape: tuple[int, ...]) -> None:
    several = (
        "; rows of 0 and 1 become target.float(), for bisam.BinaryLowerBoundLoss() if they hold several labels a sample"
        if target.shape == logits.shape
        else ""
    )
    if target.dtype == torch.bool or target.is_complex():
        raise TypeError(f"target of dtype {target.dtype} must hold class indices: use target.long(){several}")
    if target.shape != shape:
        raise ValueError(
            f"target of shape {tuple(target.shape)} does not fit logits of shape {tuple(logits.shape)}: "
            f"class indices must have shape {tuple(shape)}{several}"
        )


def _in_vmap(tensor: Tensor) -> bool:
    """Whether the tensor is one of many under ``vmap``, where a single sample is no mistake."""
    if torch.compiler.is_compiling() or tensor.is_meta:
        return False
    return bool(tensor.numel()) and _values(tensor.detach().flatten()[0]) is None


def _values(*scalars: Tensor) -> list[float] | None:
    """Return the values of scalars, or None where they cannot be looked at; waits once for the device."""
    if torch.compiler.is_compiling() or (scalars[0].is_cuda and torch.cuda.is_current_stream_capturing()):
        return None
    try:
        return [float(value) for value in torch.stack(scalars).tolist()]
    except RuntimeError:  # vmap, meta and fake tensors
        return None
