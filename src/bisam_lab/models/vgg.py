"""VGG with BatchNorm for small images."""

from typing import Literal

from torch import Tensor, nn

from .initial import known

__all__ = ["VGG"]

#: Configuration E of the paper's Table 1: each stage's convolutions, and its channels in multiples of the first's.
_STAGES = ((2, 1), (2, 2), (4, 4), (4, 8), (4, 8))


class VGG(nn.Module):
    """VGG19 with BatchNorm (Simonyan & Zisserman, arXiv 1409.1556, Table 1 E), one linear layer in place of three.

    Each of the five poolings keeps the last pixel of an odd side, so that images of any size can be read: those of
    28 x 28 or 8 x 8 end, like those of 32 x 32, as one pixel. Where the side is a multiple of 32 that changes nothing.

    Args:
        channels: of the images.
        classes: logits to return.
        width: channels of the first stage; the last has eight times as many.
        dropout: share of the features set to zero before each linear layer but the last of several.
        hidden: linear layers with ReLU before the last one, each as wide as the features: 2 in the paper (of 4096) and
            in the BiSAM authors' code (of 512), which has a dropout of 0.5 before both.
        init: ``usual``: a last layer of small weights. ``as-code``: linear layers as torch initialises them, as in the
            BiSAM authors' code. Convolutions start alike in both.

    Raises:
        ValueError: no width, a negative number of layers, an unknown initialisation.
    """

    def __init__(
        self,
        channels: int,
        classes: int,
        width: int = 64,
        dropout: float = 0.0,
        hidden: int = 0,
        init: Literal["usual", "as-code"] = "usual",
    ) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"width={width} must be at least 1")
        if hidden < 0:
            raise ValueError(f"hidden={hidden} must be 0 or more linear layers; the paper's network has 2")
        layers: list[nn.Module] = []
        inputs = channels
        for convolutions, factor in _STAGES:
            for _ in range(convolutions):
                outputs = factor * width
                layers += [nn.Conv2d(inputs, outputs, 3, 1, 1), nn.BatchNorm2d(outputs), nn.ReLU()]
                inputs = outputs
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
        self.blocks = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        linear: list[nn.Module] = []
        for number in range(hidden):
            linear += [nn.Dropout(dropout)] * (number > 0) + [nn.Linear(inputs, inputs), nn.ReLU()]
        self.hidden = nn.Sequential(*linear)
        self.head = nn.Linear(inputs, classes)
        self._initialise(known(init) == "as-code")

    def _initialise(self, as_code: bool) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
        if not as_code:
            nn.init.normal_(self.head.weight, std=0.01)
            nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, channels, H, W) to logits (B, classes)."""
        logits: Tensor = self.head(self.hidden(self.dropout(self.blocks(x).mean((2, 3)))))
        return logits
