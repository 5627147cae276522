"""Small networks of several kinds, to be stacked or refused."""

import torch
import torch.nn.functional as F
from torch import nn


class Perceptron(nn.Module):
    """Two linear layers around a norm of batches."""

    def __init__(self, num_classes=10, channels=1, norm=nn.BatchNorm1d):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(64 * channels, 12), norm(12), nn.ReLU(), nn.Linear(12, num_classes)
        )

    def forward(self, x):
        return self.layers(x)


class Transformer(nn.Module):
    """One block over the rows of a picture: attention, LayerNorm and a perceptron, without dropout."""

    def __init__(self, num_classes=10, channels=1, dropout=0.0):
        super().__init__()
        self.embed = nn.Linear(8 * channels, 8)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, dropout=dropout, batch_first=True)
        self.head = nn.Linear(8, num_classes)

    def forward(self, x):
        rows = x.movedim(1, 2).flatten(2)
        return self.head(self.block(self.embed(rows)).mean(1))


class Tied(nn.Module):
    """One weight in two layers."""

    def __init__(self, num_classes=10):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, num_classes)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.head(self.second(self.first(x.flatten(1)).tanh()))


class Shy(nn.Module):
    """What it multiplies by lies in a plain attribute, so that a stack does not see each network's own."""

    made = 0

    def __init__(self, num_classes=10):
        super().__init__()
        self.layer = nn.Linear(64, num_classes)
        self.factor = 1.0

    def __deepcopy__(self, memo):
        Shy.made += 1
        copied = Shy(self.layer.out_features)
        copied.load_state_dict(self.state_dict())
        copied.factor = float(Shy.made)
        return copied

    def forward(self, x):
        return self.factor * self.layer(x.flatten(1))


class Branching(nn.Module):
    """What it computes depends on the numbers."""

    def __init__(self, num_classes=10):
        super().__init__()
        self.layer = nn.Linear(64, num_classes)

    def forward(self, x):
        z = self.layer(x.flatten(1))
        return F.relu(z) if z.sum() > 0 else z


def cumulative(num_classes=10):
    """Running statistics that are means of all batches."""
    return Perceptron(num_classes, norm=lambda n: nn.BatchNorm1d(n, momentum=None))


def unlearnt(num_classes=10):
    """Norms without parameters, and without running statistics."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=True),
        nn.BatchNorm2d(4, affine=False, track_running_stats=True),
        nn.BatchNorm2d(4, track_running_stats=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4 * 36, num_classes),
    )


def dropping(num_classes=10):
    """Dropout."""
    return Transformer(num_classes, dropout=0.1)


def slow(num_classes=10):
    """Far too large for its pass to be quick."""
    return nn.Sequential(nn.Flatten(), _Sleep(), nn.Linear(64, num_classes))


class _Sleep(nn.Module):
    def forward(self, x):
        import time

        time.sleep(0.25)
        return x + torch.zeros_like(x)
