"""ResNets for small images."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from .initial import known

__all__ = ["ResNet"]


class _Block(nn.Module):
    """Two 3 x 3 convolutions with BatchNorm and a shortcut, which zero channels on both sides widen with the block."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride = stride
        self.before, self.after = (outputs - inputs) // 2, (outputs - inputs + 1) // 2

    def forward(self, x: Tensor) -> Tensor:
        shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + shortcut)


class ResNet(nn.Module):
    """ResNet for small images (He et al., arXiv 1512.03385, Section 4.2): 6n + 2 layers in three stages.

    Args:
        depth: 6n + 2.
        channels: of the images.
        classes: logits to return.
        width: channels of the first stage, doubled in each next one.
        init: ``usual``: a head without bias at first. ``as-code``: its bias as torch initialises it, as in the BiSAM
            authors' code. All weights start alike in both.

    Raises:
        ValueError: another depth, an unknown initialisation.
    """

    def __init__(
        self,
        depth: int,
        channels: int,
        classes: int,
        width: int = 16,
        init: Literal["usual", "as-code"] = "usual",
    ) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            nearest = max(8, 6 * round((depth - 2) / 6) + 2)
            raise ValueError(f"depth={depth} must be 6n + 2; the nearest is {nearest}")
        blocks = (depth - 2) // 6
        self.conv = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        stages, inputs = [], width
        for stage in range(3):
            outputs = width * 2**stage
            for block in range(blocks):
                stages.append(_Block(inputs, outputs, 2 if stage and not block else 1))
                inputs = outputs
        self.blocks = nn.Sequential(*stages)
        self.head = nn.Linear(inputs, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)
        if known(init) == "usual":
            nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, channels, H, W) to logits (B, classes)."""
        x = self.blocks(F.relu(self.bn(self.conv(x))))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits
