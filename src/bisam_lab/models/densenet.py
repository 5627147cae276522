"""DenseNets for small images."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .initial import known

__all__ = ["DenseNet"]


class _Layer(nn.Module):
    """A bottleneck of 1 x 1, then 3 x 3 to ``growth`` channels, which join those that came in."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, 4 * growth, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        new = self.conv2(F.relu(self.bn2(self.conv1(F.relu(self.bn1(x))))))
        return torch.cat((x, new), dim=1)


class _Transition(nn.Module):
    """Half of the channels and half of the pixels a side; an odd side keeps its last pixel."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(inputs)
        self.conv = nn.Conv2d(inputs, inputs // 2, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(self.conv(F.relu(self.bn(x))), 2, ceil_mode=True)


class DenseNet(nn.Module):
    """DenseNet-BC (Huang et al., arXiv 1608.06993), by default DenseNet-121 with the stem that small images get.

    The blocks are those of the paper's ImageNet network (its Table 1); its stem of stride 4 is one 3 x 3 convolution
    instead, which keeps all pixels.

    Args:
        channels: of the images.
        classes: logits to return.
        growth: channels that each layer adds; the stem makes twice as many.
        blocks: layers of each block.
        init: ``usual``: normal weights by their inputs. ``as-code``: what torch draws, as in the BiSAM authors' code.

    Raises:
        ValueError: no growth, no block, a block without layers, or an unknown initialisation.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        growth: int = 32,
        blocks: Sequence[int] = (6, 12, 24, 16),
        init: Literal["usual", "as-code"] = "usual",
    ) -> None:
        super().__init__()
        if growth < 1:
            raise ValueError(f"growth={growth} must be at least 1")
        if not blocks or min(blocks) < 1:
            raise ValueError(
                f"blocks={list(blocks)} must be the number of layers of each block, such as [6, 12, 24, 16]"
            )
        width = 2 * growth
        self.conv = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        parts: list[nn.Module] = []
        for number, layers in enumerate(blocks):
            if number:
                parts.append(_Transition(width))
                width //= 2
            for _ in range(layers):
                parts.append(_Layer(width, growth))
                width += growth
        self.blocks = nn.Sequential(*parts)
        self.bn = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, classes)
        if known(init) == "usual":
            self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, channels, H, W) to logits (B, classes)."""
        x = F.relu(self.bn(self.blocks(self.conv(x))))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits
