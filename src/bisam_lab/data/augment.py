"""Random changes of whole batches of images, on the device where they lie; the random numbers come from the CPU."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .examples import Augment, placed

__all__ = ["AUGMENT", "crop_flip", "crop_flip_cutout", "cutout", "draw_boxes", "flip", "resized_crop_flip"]


def flip(x: Tensor, rng: torch.Generator) -> Tensor:
    """Mirror half of the images (B, C, H, W), left to right."""
    mirrored = placed(torch.rand(len(x), 1, 1, 1, generator=rng) < 0.5, x.device)
    return torch.where(mirrored, x.flip(-1), x)


def crop_flip(x: Tensor, rng: torch.Generator, pad: int | None = None) -> Tensor:
    """Crop each image (B, C, H, W) at random out of itself with ``pad`` empty pixels around, and flip half of them.

    Without ``pad`` it is 4, and an eighth of the width above 32 pixels. Random numbers are drawn on the CPU, so that
    every device sees the same pictures.
    """
    batch, _, height, width = x.shape
    pad = max(4, width // 8) if pad is None else pad
    top, left = (torch.randint(0, 2 * pad + 1, (batch, 1), generator=rng) for _ in range(2))
    mirrored = torch.rand(batch, 1, generator=rng) < 0.5
    rows = top + torch.arange(height)
    columns = left + torch.where(mirrored, torch.arange(width - 1, -1, -1), torch.arange(width))
    rows, columns = placed(rows, x.device), placed(columns, x.device)
    padded = F.pad(x, (pad, pad, pad, pad)).movedim(1, -1)
    each = torch.arange(batch, device=x.device)[:, None, None]
    return padded[each, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)


def cutout(x: Tensor, rng: torch.Generator, side: int | None = None, share: float = 0.5) -> Tensor:
    """Empty one square in a ``share`` of the images (B, C, H, W) (DeVries & Taylor, arXiv 1708.04552).

    The square's centre is any pixel, so that at the border less than the square is cut. Its side is 16 pixels of 32, as
    in the BiSAM paper, and in proportion for other sizes.
    """
    batch, _, height, width = x.shape
    side = max(1, round(16 * width / 32)) if side is None else side
    row, column = (torch.randint(0, extent, (batch, 1), generator=rng) for extent in (height, width))
    chosen = torch.rand(batch, 1, generator=rng) < share
    rows = _inside(torch.arange(height), row, side) & chosen
    columns = _inside(torch.arange(width), column, side)
    rows, columns = placed(rows, x.device), placed(columns, x.device)
    return x.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0)


def _inside(at: Tensor, centre: Tensor, side: int) -> Tensor:
    first = centre - side // 2
    return (at >= first) & (at < first + side)


def crop_flip_cutout(x: Tensor, rng: torch.Generator) -> Tensor:
    """Crop, flip and cut out."""
    return cutout(crop_flip(x, rng), rng)


def draw_boxes(batch: int, rng: torch.Generator) -> Tensor:
    """Draw a part of a picture for each of a batch: (B, 4) of height, width, top and left.

    Its area is 8 to 100 % of the picture, its width to its height 3:4 to 4:3 (Szegedy et al., arXiv 1409.4842). Height
    and width are shares of the picture's, cut where they exceed it; top and left are shares of the room that is left.
    """
    area = torch.empty(batch).uniform_(0.08, 1, generator=rng)
    stretch = torch.empty(batch).uniform_(-1, 1, generator=rng).mul(torch.tensor(4 / 3).log()).exp()
    height, width = ((area / stretch).sqrt().clamp(max=1), (area * stretch).sqrt().clamp(max=1))
    return torch.stack([height, width, *torch.rand(2, batch, generator=rng)], 1)


def resized_crop_flip(x: Tensor, rng: torch.Generator) -> Tensor:
    """Enlarge a random part of each image (B, C, H, W) to the whole size, and flip half of them."""
    height, width, top, left = draw_boxes(len(x), rng).unbind(1)
    mirror = torch.where(torch.rand(len(x), generator=rng) < 0.5, -1.0, 1.0)
    middle_y, middle_x = ((2 * at - 1) * (1 - size) for at, size in ((top, height), (left, width)))
    nothing = torch.zeros_like(height)
    maps = torch.stack([mirror * width, nothing, middle_x, nothing, height, middle_y], 1).reshape(-1, 2, 3)
    grid = F.affine_grid(placed(maps, x.device).to(x.dtype), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


#: What ``data.augment`` may name.
AUGMENT: dict[str, Augment | None] = {
    "none": None,
    "flip": flip,
    "crop-flip": crop_flip,
    "crop-flip-cutout": crop_flip_cutout,
    "resized-crop-flip": resized_crop_flip,
}
