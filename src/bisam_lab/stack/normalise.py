"""BatchNorm of several networks at once: it works channel by channel, so their channels stand side by side."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # no public base

__all__ = ["with_stackable_norms"]

#: Of what the running statistics take in: all else leaves torch's own rule for ``vmap``.
_KINDS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def with_stackable_norms(model: nn.Module) -> nn.Module:
    """Replace BatchNorm in ``model`` by layers that ``vmap`` computes for all networks in one call, and return it."""
    for name, child in model.named_children():
        if isinstance(child, _BatchNorm) and type(child) in _KINDS and _moves(child):
            setattr(model, name, _StackableNorm(child))
        else:
            with_stackable_norms(child)
    return model


def _moves(layer: _BatchNorm) -> bool:
    """Whether it has running statistics that move by a fixed share."""
    return layer.track_running_stats and layer.momentum is not None


class _StackableNorm(nn.Module):
    """BatchNorm under ``vmap``, with the parameters and buffers of the layer that it replaces."""

    num_batches_tracked: Tensor

    def __init__(self, layer: _BatchNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps, self.momentum = layer.weight, layer.bias, layer.eps, layer.momentum
        for name, buffer in layer.named_buffers():
            self.register_buffer(name, buffer)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (B, C, ...), the shape of one network's activations."""
        if self.training:
            self.num_batches_tracked.add_(1)
        moves = self.momentum if self.training else None
        out: Tensor = _Normalise.apply(x, self.weight, self.bias, self.running_mean, self.running_var, moves, self.eps)
        return out


class _Normalise(torch.autograd.Function):
    """Its rule for ``vmap``; the gradient is that of the one call of torch's ``batch_norm`` in it."""

    @staticmethod
    def forward(*args: Any) -> Tensor:
        raise RuntimeError("a stackable norm works under torch.func.vmap alone")

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        raise RuntimeError("a stackable norm works under torch.func.vmap alone")

    @staticmethod
    def vmap(info: Any, in_dims: Any, x: Tensor, *rest: Any) -> tuple[Tensor, int]:
        """Normalise (B, S, C, ...): channel c of network s is channel s C + c of one BatchNorm."""
        weight, bias, mean, var, momentum, eps = rest
        x = x.unsqueeze(1).expand(-1, info.batch_size, *x.shape[1:]) if in_dims[0] is None else x.movedim(in_dims[0], 1)
        scale, shift = (None if row is None else row.flatten() for row in (weight, bias))
        flat = x.flatten(1, 2)
        if momentum is None:
            out = torch.batch_norm(flat, scale, shift, mean.flatten(), var.flatten(), False, 0.0, eps, False)
        else:
            out, batch_mean, batch_invstd = torch.native_batch_norm(flat, scale, shift, None, None, True, 0.0, eps)
            with torch.no_grad():
                _move(mean, var, batch_mean, batch_invstd, flat.numel() // flat.shape[1], momentum, eps)
        return out.unflatten(1, x.shape[1:3]), 1


def _move(mean: Tensor, var: Tensor, at: Tensor, invstd: Tensor, count: int, momentum: float, eps: float) -> None:
    """Move the running statistics (S, C) towards the batch's, the variance by the unbiased one.

    The layer itself is not given them: they are a stack's copies, and the optimizer would warn of statistics that it
    does not know.
    """
    unbiased = (invstd.reciprocal().square() - eps).clamp(min=0) * (count / max(count - 1, 1))
    mean.lerp_(at.view_as(mean).to(mean.dtype), momentum)
    var.lerp_(unbiased.view_as(var).to(var.dtype), momentum)
