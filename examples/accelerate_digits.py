"""BiSAM on scikit-learn's digits with Accelerate; prints the test accuracy."""

import argparse

import torch
from accelerate import Accelerator
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from bisam import BiSAM


def main() -> None:
    """Train and test."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    epochs = parser.parse_args().epochs
    torch.manual_seed(0)
    digits = load_digits()
    data = TensorDataset(torch.tensor(digits.data).float() / 16, torch.tensor(digits.target))
    train, test = random_split(data, [1400, len(data) - 1400])

    accelerator = Accelerator(cpu=True)
    model = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10))
    opt = BiSAM(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), model=model, rho=0.1)
    loader = DataLoader(train, 64, shuffle=True, drop_last=True)
    net, stepper, loader = accelerator.prepare(model, opt, loader)
    opt.model = net

    for epoch in range(epochs):
        total = torch.zeros((), device=accelerator.device)
        for x, y in loader:
            with accelerator.accumulate(net):
                for objective in opt.passes():
                    accelerator.backward(objective(net(x), y))
                stepper.step()
                stepper.zero_grad()
            total += opt.last.loss  # cross-entropy at w
        accelerator.print(f"epoch {epoch + 1}: loss {total.item() / len(loader):.3f}")

    net.eval()
    x, y = data[test.indices]
    with torch.no_grad():
        right = net(x).argmax(1) == y
    accelerator.print(f"test accuracy {right.float().mean():.3f}")


if __name__ == "__main__":
    main()
