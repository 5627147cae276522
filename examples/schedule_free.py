"""BiSAM around a schedule-free optimizer: no learning-rate schedule, and ``train()`` and ``eval()`` on the optimizer.

A schedule-free optimizer (Defazio et al., NeurIPS 2024, arXiv 2405.15682) keeps two versions of the weights: the
weights at which gradients are taken, and their average, which is the model. ``opt.train()`` and ``opt.eval()`` switch
between them; the wrapper forwards both. Train in train mode. Evaluate, and save checkpoints, in eval mode.

    pip install schedulefree 'bisam[lab]'
    python examples/schedule_free.py
"""

import argparse

import schedulefree
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from bisam import BiSAM


def main() -> None:
    """Train and print a line for each epoch."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rho", type=float, default=0.1)
    parser.add_argument("--epochs", type=int, default=8)
    args = parser.parse_args()

    torch.manual_seed(0)
    torch.set_num_threads(1)
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)
    order = torch.randperm(len(y))
    train, test = order[500:], order[:500]
    loader = DataLoader(TensorDataset(x[train], y[train]), batch_size=64, shuffle=True)
    model = nn.Sequential(nn.Linear(64, 64), nn.LayerNorm(64), nn.ReLU(), nn.Linear(64, 10))

    base = schedulefree.AdamWScheduleFree(model.parameters(), lr=0.01, warmup_steps=20)
    opt = BiSAM(base, model=model, rho=args.rho)

    for epoch in range(args.epochs):
        opt.train()
        total = 0.0
        for xs, ys in loader:
            for objective in opt.passes():
                objective(model(xs), ys).backward()
            opt.step()
            opt.zero_grad()
            total += opt.last.loss.item()  # cross-entropy at w
        opt.eval()
        with torch.no_grad():
            accuracy = (model(x[test]).argmax(1) == y[test]).double().mean().item()
        print(f"epoch {epoch + 1}: loss {total / len(loader):.3f}, test accuracy {accuracy:.3f}")

    # BatchNorm needs one more thing, because its statistics belong to the weights of train mode. Before you evaluate,
    # pass a few batches through the model, with the optimizer in eval mode and the model in train mode.


if __name__ == "__main__":
    main()
