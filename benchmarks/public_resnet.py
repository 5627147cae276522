"""The ResNet for CIFAR-10 whose weights others have published, under the names that their files have.

    bisam audit resnet20-12fca82f.th --recipe cifar10 model.name=benchmarks/public_resnet.py:PublicResNet \
        data.mean=[0.485,0.456,0.406] data.std=[0.229,0.224,0.225] --data-dir data

The files are those of https://github.com/akamaster/pytorch_resnet_cifar10. He et al., arXiv 1512.03385, Section 4.2;
the shortcut pads with zeros (their option A).
"""

import itertools

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["PublicResNet"]


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.stride, self.pad = outputs // inputs, (outputs - inputs) // 2
        self.conv1 = nn.Conv2d(inputs, outputs, 3, self.stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.pad, self.pad))
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))) + shortcut)


class PublicResNet(nn.Module):
    """A ResNet of 6n + 2 layers, for images (B, 3, 32, 32)."""

    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential

    def __init__(self, num_classes: int = 10, depth: int = 20) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        inputs = 16
        for stage in (1, 2, 3):
            outputs = 16 * 2 ** (stage - 1)
            widths = [inputs, *[outputs] * ((depth - 2) // 6)]
            blocks = [_Block(a, b) for a, b in itertools.pairwise(widths)]
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
            inputs = outputs
        self.linear = nn.Linear(64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        logits: Tensor = self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))
        return logits
