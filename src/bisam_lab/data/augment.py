"""Random changes of whole batches of images, on the device where they lie; the random numbers come from the CPU."""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["crop_flip"]


def crop_flip(x: Tensor, rng: torch.Generator, pad: int = 4) -> Tensor:
    """Crop each image (B, C, H, W) at random out of itself with ``pad`` empty pixels around, and flip half of them.

    Random numbers are drawn on the CPU, so that every device sees the same pictures.
    """
    batch, _, height, width = x.shape
    top, left = (torch.randint(0, 2 * pad + 1, (batch, 1), generator=rng) for _ in range(2))
    flip = torch.rand(batch, 1, generator=rng) < 0.5
    rows = top + torch.arange(height)
    columns = left + torch.where(flip, torch.arange(width - 1, -1, -1), torch.arange(width))
    rows, columns = rows.to(x.device), columns.to(x.device)
    padded = F.pad(x, (pad, pad, pad, pad)).movedim(1, -1)
    each = torch.arange(batch, device=x.device)[:, None, None]
    return padded[each, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)
