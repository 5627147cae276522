"""ResNets for small images."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .initial import known

__all__ = ["ResNet"]


#: What stands after each convolution.
NORMS = ("batch", "group", "none")
#: Channels of a group of ``norm=group``.
GROUP = 8


def _norm(kind: str, channels: int) -> nn.Module:
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    if kind == "group":
        return nn.GroupNorm(channels // GROUP if channels % GROUP == 0 else 1, channels)
    return nn.Identity()


class _Block(nn.Module):
    """Two 3 x 3 convolutions with norms and a shortcut, which zero channels on both sides widen with the block."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: str) -> None:
        super().__init__()
        bare = norm == "none"
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=bare)
        self.bn1 = _norm(norm, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=bare)
        self.bn2 = _norm(norm, outputs)
        self.scale = nn.Parameter(torch.zeros(())) if bare else None
        self.stride = stride
        self.before, self.after = (outputs - inputs) // 2, (outputs - inputs + 1) // 2

    def forward(self, x: Tensor) -> Tensor:
        shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.before, self.after))
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu((out if self.scale is None else self.scale * out) + shortcut)


class ResNet(nn.Module):
    """ResNet for small images (He et al., arXiv 1512.03385, Section 4.2): 6n + 2 layers in three stages.

    Args:
        depth: 6n + 2.
        channels: of the images.
        classes: logits to return.
        width: channels of the first stage, doubled in each next one.
        init: ``usual``: a head without bias at first. ``as-code``: its bias as torch initialises it, as in the BiSAM
            authors' code. All weights start alike in both.
        norm: what follows each convolution. ``batch``: BatchNorm, as published. ``group``: GroupNorm (Wu & He, arXiv
            1803.08494) over groups of 8 channels, or over all where 8 does not divide them. ``none``: nothing. The
            convolutions then have biases, and each block's branch a learnt factor that starts at zero (SkipInit, De &
            Smith, arXiv 2002.10444), so that every block is the identity at first and deep networks train.

    Raises:
        ValueError: another depth, an unknown initialisation, an unknown norm.
    """

    def __init__(
        self,
        depth: int,
        channels: int,
        classes: int,
        width: int = 16,
        init: Literal["usual", "as-code"] = "usual",
        norm: Literal["batch", "group", "none"] = "batch",
    ) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            nearest = max(8, 6 * round((depth - 2) / 6) + 2)
            raise ValueError(f"depth={depth} must be 6n + 2; the nearest is {nearest}")
        if norm not in NORMS:
            raise ValueError(f"norm={norm!r} must be one of {', '.join(NORMS)}")
        blocks = (depth - 2) // 6
        self.conv = nn.Conv2d(channels, width, 3, 1, 1, bias=norm == "none")
        self.bn = _norm(norm, width)
        stages, inputs = [], width
        for stage in range(3):
            outputs = width * 2**stage
            for block in range(blocks):
                stages.append(_Block(inputs, outputs, 2 if stage and not block else 1, norm))
                inputs = outputs
        self.blocks = nn.Sequential(*stages)
        self.head = nn.Linear(inputs, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.zeros_(module.bias)
        if known(init) == "usual":
            nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, channels, H, W) to logits (B, classes)."""
        x = self.blocks(F.relu(self.bn(self.conv(x))))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits
