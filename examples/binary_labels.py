"""BiSAM on binary labels: one logit (breast cancer) and several labels an image (digits), a few seconds on one core.

    python examples/binary_labels.py
    python examples/binary_labels.py --method sam

The descent is binary cross-entropy, so BiSAM climbs :class:`bisam.BinaryLowerBoundLoss` by itself. The line of an epoch
shows the share of wrong labels at w beside its lower bound, over the same training batches. A run of this size compares
nothing: it shows what to write.

Needs scikit-learn, for the data alone: ``pip install 'bisam[lab]'``.
"""

import argparse

import torch
from sklearn.datasets import load_breast_cancer, load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from bisam import METHODS

#: What is true of a digit: each is a label of its own.
PROPERTIES = {
    "even": (0, 2, 4, 6, 8),
    "above four": (5, 6, 7, 8, 9),
    "prime": (2, 3, 5, 7),
    "has a closed loop": (0, 6, 8, 9),
}


def breast_cancer() -> tuple[Tensor, Tensor]:
    """Return 569 tumours (30 numbers each) and one label: (569, 1), 1 where benign."""
    x, y = load_breast_cancer(return_X_y=True)
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)[:, None]


def digits() -> tuple[Tensor, Tensor]:
    """Return 1797 images (64 pixels each) and four labels: (1797, 4)."""
    x, y = load_digits(return_X_y=True)
    digit = torch.tensor(y)
    labels = [torch.isin(digit, torch.tensor(those)) for those in PROPERTIES.values()]
    return torch.tensor(x, dtype=torch.float32), torch.stack(labels, 1).float()


def wrong_labels(logits: Tensor, labels: Tensor) -> Tensor:
    """Return whether each logit has the wrong sign."""
    return (logits > 0) != (labels > 0.5)


def train(name: str, x: Tensor, y: Tensor, method: str, epochs: int) -> None:
    """Train a small network on all but 200 samples, and print the share of wrong labels on those."""
    torch.manual_seed(0)
    test, rest = torch.randperm(len(x)).split([200, len(x) - 200])
    x = (x - x[rest].mean(0)) / (x[rest].std(0) + 1e-6)  # as the training samples have it
    loader = DataLoader(TensorDataset(x[rest], y[rest]), batch_size=64, shuffle=True, drop_last=True)
    model = nn.Sequential(nn.Linear(x.shape[1], 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, y.shape[1]))
    base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    opt = METHODS[method](base, model=model, rho=0.1, descent=nn.BCEWithLogitsLoss())
    for epoch in range(epochs):
        model.train()
        losses, climbed, wrong = [], [], []
        for inputs, labels in loader:
            for objective in opt.passes():
                objective(model(inputs), labels).backward()
            opt.step()
            opt.zero_grad()
            losses.append(opt.last.loss.item())
            climbed.append(opt.last.ascent_value)
            wrong.append(wrong_labels(opt.last.output, labels).float().mean().item())
        print(
            f"{name}, epoch {epoch + 1}: loss {sum(losses) / len(losses):.4f}, "
            f"climbed {sum(climbed) / len(climbed):+.4f}, wrong labels {sum(wrong) / len(wrong):.4f}"
        )
    model.eval()
    with torch.no_grad():
        each = wrong_labels(model(x[test]), y[test]).float().mean(0)
    print(f"{name}: wrong test labels {each.mean():.4f} (by label: {', '.join(f'{share:.3f}' for share in each)})")


def main() -> None:
    """Train on both problems."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=["sam", "asam", "bisam"], default="bisam")
    parser.add_argument("--epochs", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    train("breast cancer", *breast_cancer(), args.method, args.epochs)
    train("digits", *digits(), args.method, args.epochs)


if __name__ == "__main__":
    main()
