"""BiSAM in a plain PyTorch loop: the handwritten digits, a small CNN, a few seconds on one core.

python examples/plain_loop.py                        # BiSAM around SGD
python examples/plain_loop.py --method sam --rho 0   # plain SGD, for comparison
python examples/plain_loop.py --bf16                 # forward passes in bfloat16, weights in float32
python examples/plain_loop.py --compile              # the first step takes a while, the others are faster

The learning rate (among 0.02, 0.05, 0.1) and rho (0.05, 0.1, 0.2) are those with the best mean validation accuracy of
BiSAM over three seeds. The test images are read once, at the end, in a single run: it shows that the loop learns, and
compares nothing. ``bisam compare digits`` does.

Needs scikit-learn, for the data alone: ``pip install 'bisam[lab]'``.
"""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bisam import METHODS


def digits() -> tuple[TensorDataset, TensorDataset, TensorDataset]:
    """Return 1097 training images (1, 8, 8), a fifth of their labels redrawn, and clean ones to validate and test."""
    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    y = torch.tensor(labels)
    rng = torch.Generator().manual_seed(0)
    order = torch.randperm(len(y), generator=rng)
    test, validation, train = order.split([500, 200, len(y) - 700])
    noisy = y[train].clone()
    wrong = torch.rand(len(noisy), generator=rng) < 0.2
    noisy[wrong] = torch.randint(0, 10, (int(wrong.sum()),), generator=rng)
    return TensorDataset(x[train], noisy), TensorDataset(x[validation], y[validation]), TensorDataset(x[test], y[test])


def accuracy(model: nn.Module, data: TensorDataset) -> float:
    """Return the share of ``data`` that the model gets right, in evaluation mode."""
    x, y = data.tensors
    model.eval()
    with torch.no_grad():
        return (model(x).argmax(1) == y).double().mean().item()


def network() -> nn.Module:
    """Two convolutions with BatchNorm, whose running statistics the optimizer keeps for us: ``model=model``."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 16, 10),
    )


def main() -> None:
    """Train and print a line for each epoch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=["sam", "asam", "bisam"], default="bisam")
    parser.add_argument("--rho", type=float, default=0.1)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()

    torch.manual_seed(0)
    torch.set_num_threads(1)
    train, validation, test = digits()
    loader = DataLoader(train, batch_size=64, shuffle=True, drop_last=True)  # one shape: compiled once
    model = network()
    run = torch.compile(model) if args.compile else model
    base = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    opt = METHODS[args.method](base, model=model, rho=args.rho)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(opt, args.epochs * len(loader))

    for epoch in range(args.epochs):
        model.train()
        total = 0.0
        for x, y in loader:
            for objective in opt.passes():
                with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
                    loss = objective(run(x), y)
                loss.backward()
            opt.step()
            opt.zero_grad()
            schedule.step()
            total += opt.last.loss.item()  # cross-entropy at w, whatever the method climbs
        print(
            f"epoch {epoch + 1}: loss {total / len(loader):.3f}, validation accuracy {accuracy(model, validation):.3f}"
        )
    print(f"test accuracy {accuracy(model, test):.3f}")


if __name__ == "__main__":
    main()
