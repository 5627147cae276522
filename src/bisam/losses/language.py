"""Language models: any classification loss over the next token."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["CausalLMLoss"]


class CausalLMLoss(nn.Module):
    """Applies a loss of classes to the next token: shifts, flattens, and leaves out what the labels ignore.

    The token at position t is predicted by the logits at t - 1, as in Hugging Face's causal language models, whose
    own loss ``CausalLMLoss(nn.CrossEntropyLoss())`` equals. Logits in 16 bits are widened to float32 first, because a
    sum over a whole vocabulary loses too much in them.

    Args:
        loss: takes logits (N, V) and labels (N,), and has an ``ignore_index``: ``nn.CrossEntropyLoss`` or
            :class:`~bisam.LowerBoundLoss`. With ``reduction="none"`` the losses of all B * T positions come back
            flat, and the last position of each row, which predicts nothing, is among the ignored ones.

    Raises:
        TypeError: ``loss`` cannot be called, or has no ``ignore_index``.

    Example:
        >>> from bisam import BiSAM, LowerBoundLoss
        >>> head = nn.Linear(4, 10)
        >>> opt = BiSAM(
        ...     torch.optim.SGD(head.parameters(), lr=0.1),
        ...     model=head,
        ...     ascent=CausalLMLoss(LowerBoundLoss()),
        ...     descent=CausalLMLoss(nn.CrossEntropyLoss()),
        ... )
        >>> for objective in opt.passes():
        ...     objective(head(torch.ones(2, 3, 4)), torch.tensor([[1, 2, 3], [4, 5, -100]])).backward()
        >>> opt.step()
    """

    def __init__(self, loss: Callable[..., Tensor]) -> None:
        super().__init__()
        if not callable(loss) or isinstance(loss, type):
            raise TypeError(f"loss={loss!r} must be an object that can be called, such as nn.CrossEntropyLoss()")
        if not isinstance(getattr(loss, "ignore_index", None), int):
            raise TypeError(
                f"loss={loss!r} has no ignore_index, which marks the last position of each row: use "
                "nn.CrossEntropyLoss() or bisam.LowerBoundLoss(), or give your loss that attribute and heed it"
            )
        self.loss = loss

    @property
    def ignore_index(self) -> int:
        """The inner loss's own label of positions to leave out."""
        index: int = self.loss.ignore_index  # type: ignore[attr-defined]
        return index

    def forward(self, output: Any, labels: Tensor) -> Tensor:
        """Return the loss of the next tokens.

        Args:
            output: logits (B, T, V), or anything that has them as ``.logits``, such as a ``ModelOutput``.
            labels: the tokens (B, T) themselves, not shifted; ``ignore_index`` where there is nothing to predict.

        Raises:
            TypeError: ``output`` has no logits.
            ValueError: the shapes of logits and labels do not belong together.
        """
        logits = logits_of(output)
        if logits.dim() < 2 or labels.shape != logits.shape[:-1]:
            raise ValueError(
                f"logits {tuple(logits.shape)} and labels {tuple(labels.shape)} do not belong together: "
                "pass logits (B, T, V) of all positions and the labels (B, T), not shifted"
            )
        return self.loss(*next_token(logits, labels, self.ignore_index))


def logits_of(output: Any) -> Tensor:
    """Return the logits of a model's output.

    Raises:
        TypeError: there are none.
    """
    logits = getattr(output, "logits", output)
    if not isinstance(logits, Tensor):
        raise TypeError(
            f"output of type {type(output).__name__} has no logits (found {type(logits).__name__}): pass the logits, "
            "or an output that has them as .logits; a model that returns tuples needs return_dict=True, and a fused "
            "loss (Liger) that skips the logits must be switched off"
        )
    return logits


def next_token(logits: Tensor, labels: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Return logits (N, V) and, one position later, labels (N,).

    The labels are moved rather than the logits cut, because logits are by far the larger tensor.
    """
    shifted = nn.functional.pad(labels, (0, 1), value=ignore_index)[..., 1:]
    return flatten_tokens(logits, shifted)


def flatten_tokens(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits (N, V), at least in float32, and labels (N,)."""
    if logits.dtype in (torch.bfloat16, torch.float16):
        logits = logits.float()
    return logits.reshape(-1, logits.shape[-1]), labels.reshape(-1)
