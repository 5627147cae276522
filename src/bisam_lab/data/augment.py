"""Random changes of batches of images, on their own device, with random numbers from the CPU."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from .examples import Augment, placed

__all__ = [
    "AUGMENT",
    "augmentation",
    "crop_flip",
    "crop_flip_cutout",
    "cutout",
    "draw_boxes",
    "flip",
    "resized_crop_flip",
]


def flip(x: Tensor, rng: torch.Generator) -> Tensor:
    """Mirror half of the images (B, C, H, W), left to right."""
    mirrored = placed(torch.rand(len(x), 1, 1, 1, generator=rng) < 0.5, x.device)
    return torch.where(mirrored, x.flip(-1), x)


def crop_flip(x: Tensor, rng: torch.Generator, pad: int | None = None, border: Tensor | None = None) -> Tensor:
    """Pad each image (B, C, H, W) with ``pad`` pixels on each side, crop its old size at random, and flip half of them.

    By default ``pad`` is an eighth of the width, and at least 4. The pixels are ``border`` (1, C, 1, 1), or 0, which is
    the mean colour of normalised images. Random numbers are drawn on the CPU: every device sees the same pictures.
    """
    batch, _, height, width = x.shape
    pad = max(4, width // 8) if pad is None else pad
    top, left = (torch.randint(0, 2 * pad + 1, (batch, 1), generator=rng) for _ in range(2))
    mirrored = torch.rand(batch, 1, generator=rng) < 0.5
    rows = top + torch.arange(height)
    columns = left + torch.where(mirrored, torch.arange(width - 1, -1, -1), torch.arange(width))
    rows, columns = placed(rows, x.device), placed(columns, x.device)
    padded = _padded(x, pad, border).movedim(1, -1)
    each = torch.arange(batch, device=x.device)[:, None, None]
    return padded[each, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)


def _padded(x: Tensor, pad: int, border: Tensor | None) -> Tensor:
    if border is None:
        return F.pad(x, (pad, pad, pad, pad))
    batch, channels, height, width = x.shape
    wide = placed(border, x.device).to(x.dtype).expand(batch, channels, height + 2 * pad, width + 2 * pad).clone()
    wide[:, :, pad : pad + height, pad : pad + width] = x
    return wide


def cutout(x: Tensor, rng: torch.Generator, side: int | None = None, share: float = 0.5) -> Tensor:
    """Set one square to 0 in a ``share`` of the images (B, C, H, W) (DeVries & Taylor, arXiv 1708.04552).

    The square's centre is any pixel: at the border a part of the square lies outside. By default its side is half the
    width: 16 pixels of 32, as in the BiSAM paper.
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


def crop_flip_cutout(x: Tensor, rng: torch.Generator, border: Tensor | None = None) -> Tensor:
    """Crop, flip and cut out."""
    return cutout(crop_flip(x, rng, border=border), rng)


def draw_boxes(batch: int, rng: torch.Generator) -> Tensor:
    """Draw a part of the picture for each picture of a batch: (B, 4), height, width, top and left.

    The part has 8 to 100 % of the picture's area, and its width is 3/4 to 4/3 of its height (Szegedy et al., arXiv
    1409.4842). Height and width are fractions of the picture's, 1 at most. Top is a fraction of the rest of the height,
    left of the rest of the width.
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


#: Those of them that look outside of a picture.
_CROPS: dict[str, Callable[..., Tensor]] = {"crop-flip": crop_flip, "crop-flip-cutout": crop_flip_cutout}
#: The values of ``data.augment``.
AUGMENT: dict[str, Augment | None] = {
    "none": None,
    "flip": flip,
    **_CROPS,
    "resized-crop-flip": resized_crop_flip,
}


def augmentation(name: str, border: Tensor | None = None) -> Augment | None:
    """Return the augmentation of that name; random crops find ``border`` (1, C, 1, 1) outside of a picture, or 0."""
    return AUGMENT[name] if border is None else partial(_CROPS[name], border=border)
