"""Why a net without normalisation collapses under a large rho, and one with BatchNorm does not.

    python benchmarks/collapse.py [--seeds 3]

A small CNN learns the digits (clean labels, ten epochs). For each rho: test accuracy, and the cosine between the
weights and the gradient that is descended, averaged over the first 20 steps. Where it is positive, descent shrinks
the weights.
"""

import argparse
import statistics

import torch
from torch import Tensor, nn

from bisam import METHODS
from bisam_lab.data import Examples, load_splits, whole
from bisam_lab.recipe import DataRecipe


def cnn(normalised: bool) -> nn.Module:
    """Three convolutions, with BatchNorm after each or with none anywhere."""
    layers: list[nn.Module] = []
    for inputs, outputs, stride in ((1, 16, 1), (16, 32, 2), (32, 32, 2)):
        norm = nn.BatchNorm2d(outputs) if normalised else nn.Identity()
        layers += [nn.Conv2d(inputs, outputs, 3, stride, 1), norm, nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128, 10))


def flat(tensors: list[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def run(method: str, rho: float, normalised: bool, seed: int, train: Examples, test: Examples) -> tuple[float, float]:
    """Return test accuracy and mean cosine(w, gradient) of the first 20 steps."""
    torch.manual_seed(seed)
    model = cnn(normalised)
    cosines: list[float] = []
    opt = METHODS[method](torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), model=model, rho=rho)
    for _ in range(10):
        for index in torch.randperm(len(train)).split(64):
            for objective in opt.passes():
                objective(model(train.x[index]), train.y[index]).backward()
            if len(cosines) < 20:
                w, g = (
                    flat(list(t))
                    for t in (model.parameters(), [p.grad for p in model.parameters() if p.grad is not None])
                )
                cosines.append(float(torch.cosine_similarity(w, g, dim=0)))
            opt.step()
            opt.zero_grad()
    model.eval()
    with torch.no_grad():
        right = (model(test.x).argmax(1) == test.y).float().mean()
    return 100 * float(right), statistics.mean(cosines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    seeds = range(parser.parse_args().seeds)
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, n = {len(seeds)}: mean test accuracy % (each seed), mean cosine(w, gradient)")
    sets = [
        (whole(splits.train), whole(splits.test))
        for splits in (load_splits(DataRecipe(train_size=1000, validation_size=200), None, seed) for seed in seeds)
    ]
    for normalised in (False, True):
        for method in ("sam", "bisam"):
            for rho in (0.0, 0.1, 0.2, 0.3, 0.4):
                runs = [run(method, rho, normalised, seed, *data) for seed, data in enumerate(sets)]
                accuracies = ", ".join(f"{a:.0f}" for a, _ in runs)
                name = "BatchNorm" if normalised else "no norm"
                print(
                    f"{name:10} {method:6} rho {rho:<4} {statistics.mean(a for a, _ in runs):5.1f} ({accuracies})"
                    f"   {statistics.mean(c for _, c in runs):+.3f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
