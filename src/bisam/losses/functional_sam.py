"""Functional SAM's descent: the Jacobian at w + eps, the gradient of the loss at w (arXiv 2502.02407)."""

from collections import deque
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["OutputGradient"]


class OutputGradient(nn.Module):
    """Functional SAM's pair of objectives (Singh et al., ICML 2025, arXiv 2502.02407).

    Its descent gradient is J(w + eps)^T dL/dF(w): the Jacobian of the network's output F at w + eps, times the gradient
    of the loss with respect to the output at w. SAM would take the loss's gradient at w + eps too, which in language
    models mostly changes the logits' statistics and not the function.

    The module itself is the descent objective. :meth:`at_w` is the ascent objective, which notes dL/dF(w). The passes
    of a step must see the same samples in the same order. A step with one pass descends the plain loss.

    Example:
        >>> from bisam import SAM
        >>> from bisam.losses.functional_sam import OutputGradient
        >>> pair = OutputGradient(nn.CrossEntropyLoss())
        >>> opt = SAM(base, model=model, ascent=pair.at_w, descent=pair)  # bisam.FunctionalSAM writes this

    Args:
        loss: L, called with (output, target); the output is a tensor.
        ascent: what the perturbation climbs, called with the same arguments; None is L, as in the paper.

    Raises:
        TypeError: ``loss`` or ``ascent`` cannot be called.
    """

    def __init__(self, loss: Callable[..., Tensor], ascent: Callable[..., Tensor] | None = None) -> None:
        super().__init__()
        for name, objective in (("loss", loss), ("ascent", loss if ascent is None else ascent)):
            if not callable(objective) or isinstance(objective, type):
                raise TypeError(
                    f"{name}={objective!r} must be an object that can be called, such as CrossEntropyLoss()"
                )
        self.loss = loss
        self.ascent = ascent
        self._noted: deque[Tensor] = deque()

    def begin_step(self) -> None:
        """Forget what an earlier step, which was left, has noted."""
        self._noted.clear()

    def at_w(self, output: Tensor, *args: Any) -> Tensor:
        """Return the ascent objective's value, and note the gradient of the loss with respect to ``output``.

        Raises:
            TypeError: ``output`` is no tensor, or the loss is not one number.
        """
        if not isinstance(output, Tensor):
            raise TypeError(f"output of type {type(output).__name__} must be a tensor: pass output.logits, say")
        leaf = _wide(output.detach()).requires_grad_()
        with torch.enable_grad(), torch.autocast(output.device.type, enabled=False):
            value = self.loss(leaf, *args)
            if value.dim():
                raise TypeError(f"loss returned a tensor of shape {tuple(value.shape)}: it must be one number")
            (gradient,) = torch.autograd.grad(value, leaf)
        self._noted.append(gradient)
        return (self.loss if self.ascent is None else self.ascent)(output, *args)

    def forward(self, output: Tensor, *args: Any) -> Tensor:
        """Return the loss of ``output``, whose gradient is that of <output, dL/dF(w)>.

        Raises:
            ValueError: the pass at w saw an output of another shape.
        """
        if not self._noted:
            return self.loss(output, *args)
        at_w = self._noted.popleft()
        if at_w.shape != output.shape:
            raise ValueError(
                f"output of shape {tuple(output.shape)}, and the pass at w had {tuple(at_w.shape)}: call the objective "
                "with the same samples in the same order in every pass"
            )
        product = (_wide(output) * at_w).sum()
        with torch.no_grad():
            value = self.loss(output, *args)
        return value + (product - product.detach())


def _wide(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
