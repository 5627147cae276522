"""The lower bound's fast path for class indices: the value and the gradient in one pass over the logits.

The forward computes the gradient with the value, block by block of rows, so that the margins of a block, and whatever
is made of them, stay in the processor's cache; the backward multiplies by the gradient of the value. Beside the logits
stands one tensor of their size, or two while the backward multiplies. Cross-entropy has three.

On the CPU, which need not be waited for, it looks at three numbers: how many rows count, whether the value is finite,
and whether a slope is NaN. Other devices do what they may have to do. Everything else (transforms of ``torch.func``,
``torch.compile``, second derivatives, infinite logits of the true class) is for the general path of
:mod:`bisam.losses._autograd`, which is written in differentiable operations.
"""

import math
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from ._autograd import lower_bound_slope, wide_dtype
from ._sweeps import Buffers, Sweeps, sweeps_of
from .bounds import Bound

__all__ = ["fast_lower_bound", "transformed"]

_REDUCTIONS = ("mean", "sum", "none")

#: Elements of a block on the CPU, for each thread: few calls, and scratch tensors of 2 MiB that stay in the cache.
_BLOCK = 2**19


class _Choices(NamedTuple):
    sweeps: Sweeps
    bound: Bound
    mu: float
    ignore_index: int
    reduction: str


class _Rows(NamedTuple):
    """The rows: the true classes (N, 1), which rows are kept (None: all), and how many, at least 1."""

    true: Tensor
    kept: Tensor | None
    number: int | Tensor

    def cut(self, some: slice) -> "_Rows":
        """Return some of the rows."""
        return _Rows(self.true[some], None if self.kept is None else self.kept[some], self.number)


def fast_lower_bound(
    logits: Tensor, target: Tensor, bound: Bound, mu: float, ignore_index: int, reduction: str
) -> Tensor | None:
    """Return Q of logits (..., K) and class indices (...), reduced, or None where the general path must serve."""
    if not (_plain(logits) and _plain(target)) or transformed() or not logits.numel() or reduction not in _REDUCTIONS:
        return None
    sweeps = sweeps_of(bound, mu, wide_dtype(logits))
    if sweeps is None:
        return None
    choices = _Choices(sweeps, bound, mu, ignore_index, reduction)
    flat, labels = logits, target
    if logits.dim() != 2:
        flat, labels = logits.reshape(-1, logits.shape[-1]), target.reshape(-1)
    if torch.is_grad_enabled() and logits.requires_grad:
        value: Tensor = _FastLowerBound.apply(flat, labels, choices)
    else:
        value, _ = _run(flat.detach(), labels, choices, False)
    finite = value
    if value.dim():
        finite, value = value.detach().sum(), value.reshape(target.shape)
    return value if not _looks(finite) or math.isfinite(_seen(finite)) else None


def _seen(number: Tensor) -> float:
    """Return the value of a scalar on the CPU; NaN where there is none to see, as under the vmap of autograd itself."""
    try:
        seen: Any = number.tolist()
    except RuntimeError:
        return math.nan
    return float(seen)


def _looks(tensor: Tensor) -> bool:
    """Whether its values can be looked at without waiting for a device."""
    return tensor.is_cpu


def _plain(tensor: Tensor) -> bool:
    kind = type(tensor)
    return (kind is Tensor or kind is nn.Parameter) and not tensor.is_meta


def transformed() -> bool:
    """Whether a compiler, a tracer, ``torch.func`` or forward mode looks on; they need the operations themselves."""
    return (
        torch.compiler.is_compiling()
        or forward_ad._current_level >= 0
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch._C._get_tracing_state() is not None
    )


class _FastLowerBound(torch.autograd.Function):
    """Q of logits (N, K), reduced; saves its own gradient, and the logits for second derivatives."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, choices: _Choices) -> Tensor:
        value, gradient = _run(logits, target, choices, True)
        ctx.choices = choices
        ctx.save_for_backward(logits, target, gradient)
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        logits, target, gradient = ctx.saved_tensors
        if torch.is_grad_enabled() or transformed():
            return _general_slopes(logits, target, ctx.choices, grad), None, None
        if grad.dim():
            gradient = gradient * grad.unsqueeze(-1)
        elif not _looks(grad) or _seen(grad) != 1:
            gradient = gradient * grad
        return gradient.to(logits.dtype), None, None


def _general_slopes(logits: Tensor, target: Tensor, choices: _Choices, grad: Tensor) -> Tensor:
    """The gradient in differentiable operations."""
    _, bound, mu, ignore_index, reduction = choices
    if reduction == "mean":
        grad = grad / (target != ignore_index).sum().clamp(min=1)
    return lower_bound_slope(logits, target, bound, mu, ignore_index, grad.expand(target.shape))


def _run(logits: Tensor, target: Tensor, choices: _Choices, slopes: bool) -> tuple[Tensor, Tensor | None]:
    """Return the reduced value and, with ``slopes``, its gradient (N, K)."""
    rows = _look(target, choices.ignore_index)
    number, classes = logits.shape
    wide, mean = wide_dtype(logits), choices.reduction == "mean"
    size = max(1, _BLOCK * torch.get_num_threads() // classes) if _looks(logits) else number
    blocks = _in_one if size >= number else _in_turn
    scale = _scalar(choices.sweeps.factor / (number if mean and rows.kept is None else 1), wide)
    if mean and rows.kept is not None:
        scale = scale / rows.number
    sums, gradient = blocks(logits, rows, choices.sweeps, scale, slopes, size)
    return _reduced(sums, _scalar(classes, wide), rows, choices), gradient


@lru_cache(maxsize=256)
def _scalar(value: float, dtype: torch.dtype) -> Tensor:
    """A number as a tensor on the CPU, which small kernels take faster than Python's; it goes with every device."""
    return torch.tensor(value, dtype=dtype, device="cpu")


def _look(target: Tensor, ignore_index: int) -> _Rows:
    ignored = target == ignore_index
    if _looks(target) and _seen(ignored.any()) == 0:
        return _Rows(target.unsqueeze(-1), None, len(target))
    kept = ~ignored
    return _Rows(target.where(kept, 0).unsqueeze(-1), kept, kept.sum().clamp(min=1))


def _in_one(
    logits: Tensor, rows: _Rows, sweeps: Sweeps, scale: Tensor, slopes: bool, size: int
) -> tuple[Tensor, Tensor | None]:
    """Return the sums of the weights (N, 1) and the gradient of all rows at once."""
    out = (None,) * sweeps.buffers
    sums, slope = _block(logits, rows, sweeps, scale, slopes, None, out)
    return sums, None if slope is None else slope.to(_kept_dtype(logits))


def _in_turn(
    logits: Tensor, rows: _Rows, sweeps: Sweeps, scale: Tensor, slopes: bool, size: int
) -> tuple[Tensor, Tensor | None]:
    """Return the same, block by block of ``size`` rows in the same scratch tensors."""
    wide = wide_dtype(logits)
    sums = logits.new_empty((len(logits), 1), dtype=wide)
    gradient = torch.empty_like(logits, dtype=_kept_dtype(logits)) if slopes else None
    direct = gradient is not None and gradient.dtype == wide
    scratch = [logits.new_empty((size, logits.shape[1]), dtype=wide) for _ in range(sweeps.buffers + (not direct))]
    for start in range(0, len(logits), size):
        some = slice(start, min(start + size, len(logits)))
        out = [tensor[: some.stop - start] for tensor in scratch]
        margin = gradient[some] if gradient is not None and direct else out.pop()
        sums[some], slope = _block(logits[some], rows.cut(some), sweeps, scale, slopes, margin, out)
        if gradient is not None and slope is not None and not direct:
            gradient[some] = slope
    return sums, gradient


def _kept_dtype(logits: Tensor) -> torch.dtype:
    """In float16 small numbers would vanish before a loss scale reaches them."""
    return torch.float32 if logits.dtype == torch.float16 else logits.dtype


def _block(
    logits: Tensor,
    rows: _Rows,
    sweeps: Sweeps,
    scale: Tensor,
    slopes: bool,
    margin: Tensor | None,
    out: Buffers,
) -> tuple[Tensor, Tensor | None]:
    """Return the sums (n, 1) and, with ``slopes``, the gradient (n, K), which lies in ``margin`` if there is one."""
    margin = _margins(logits, rows.true, margin)
    made = sweeps.weights(margin, out)
    sums = made[0].sum(-1, keepdim=True)
    if not slopes:
        return sums, None
    slope = sweeps.slopes(margin, made)
    inverse = torch.div(scale, sums)
    if rows.kept is not None:  # ignored rows may hold NaN
        slope.nan_to_num_(nan=0.0)
        inverse.masked_fill_(~rows.kept.unsqueeze(-1), 0)
    others = slope.scatter_(-1, rows.true, 0.0).sum(-1, keepdim=True)
    if rows.kept is None and sweeps.holes and not math.isfinite(_seen(others.sum())):
        others = slope.nan_to_num_(nan=0.0).sum(-1, keepdim=True)
    # The true class gets minus the sum over the others, which no rounding of its own weight disturbs.
    return sums, slope.scatter_(-1, rows.true, others.neg_()).mul_(inverse)


def _margins(logits: Tensor, index: Tensor, out: Tensor | None) -> Tensor:
    """F_j = f_j - f_y in wide numbers."""
    wide = wide_dtype(logits)
    true = logits.gather(-1, index)
    if logits.dtype == wide:
        margin = torch.sub(logits, true, out=out)
    else:
        margin = (logits.to(wide) if out is None else out.copy_(logits)).sub_(true.to(wide))
    return margin if _looks(logits) else margin.masked_fill_(logits == true, 0)  # equal infinities


def _reduced(sums: Tensor, classes: Tensor, rows: _Rows, choices: _Choices) -> Tensor:
    """1/mu log(S / K) of each row, held below 1 against rounding, and reduced."""
    value = sums.div_(classes).log_()
    if choices.mu != 1:
        value.div_(choices.mu)
    value.clamp_(max=1.0)
    if rows.kept is not None:
        value.masked_fill_(~rows.kept.unsqueeze(-1), 0)
    if choices.reduction == "none":
        return value.squeeze(-1)
    total = value.sum()
    return total.div_(rows.number) if choices.reduction == "mean" else total
