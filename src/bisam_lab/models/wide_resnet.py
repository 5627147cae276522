"""Wide residual networks for small images."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from .initial import known

__all__ = ["WideResNet"]


class _Block(nn.Module):
    """BatchNorm, ReLU and a 3 x 3 convolution, twice, and dropout between; where the width changes, 1 x 1 beside."""

    def __init__(self, inputs: int, outputs: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        same = inputs == outputs and stride == 1
        self.shortcut = None if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = F.relu(self.bn1(x))
        out: Tensor = self.conv2(self.dropout(F.relu(self.bn2(self.conv1(active)))))
        beside = x if self.shortcut is None else self.shortcut(active)
        return out + beside


class WideResNet(nn.Module):
    """WRN-depth-widen (Zagoruyko & Komodakis, arXiv 1605.07146, Table 1): 6n + 4 layers in three stages.

    Args:
        depth: 6n + 4.
        widen: factor on the stages' 16, 32 and 64 channels.
        channels: of the images.
        classes: logits to return.
        dropout: share of the activations between a block's convolutions set to zero (Section 2.4; 0.3 there).
        units: blocks of each stage; None is n, the paper's. The BiSAM authors' code has n + 1.
        init: ``usual``: convolutions by their outputs, a random head. ``as-code``: convolutions by their inputs, and a
            head of zeros, as in the code that the BiSAM authors' network comes from.

    Raises:
        ValueError: another depth, no width, no unit, an unknown initialisation.
    """

    def __init__(
        self,
        depth: int,
        widen: int,
        channels: int,
        classes: int,
        dropout: float = 0.0,
        units: int | None = None,
        init: Literal["usual", "as-code"] = "usual",
    ) -> None:
        super().__init__()
        if depth < 10 or (depth - 4) % 6:
            nearest = max(10, 6 * round((depth - 4) / 6) + 4)
            raise ValueError(f"depth={depth} must be 6n + 4; the nearest is {nearest}")
        if widen < 1:
            raise ValueError(f"widen={widen} must be at least 1")
        units = (depth - 4) // 6 if units is None else units
        if units < 1:
            raise ValueError(f"units={units} must be at least 1; leave it out for {(depth - 4) // 6}")
        self.conv = nn.Conv2d(channels, 16, 3, 1, 1, bias=False)
        blocks, inputs = [], 16
        for stage in range(3):
            outputs = 16 * widen * 2**stage
            for block in range(units):
                blocks.append(_Block(inputs, outputs, 2 if stage and not block else 1, dropout))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.bn = nn.BatchNorm2d(inputs)
        self.head = nn.Linear(inputs, classes)
        self._initialise(known(init) == "as-code")

    def _initialise(self, as_code: bool) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                mode: Literal["fan_in", "fan_out"] = "fan_in" if as_code else "fan_out"
                nn.init.kaiming_normal_(module.weight, mode=mode, nonlinearity="relu")
        if as_code:
            nn.init.zeros_(self.head.weight)
        else:
            nn.init.kaiming_normal_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, channels, H, W) to logits (B, classes)."""
        x = F.relu(self.bn(self.blocks(self.conv(x))))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits
