"""How far is the direction off that SAM climbs on a part of the batch?

    python benchmarks/sub_batch.py digits                      # embedded data, about a minute
    python benchmarks/sub_batch.py fashion-mnist --data-dir data

Along a training with SAM: the cosine between the gradient of the first samples of a batch and that of the whole batch,
both in training mode, and beside it the cosine between the gradients of two whole batches, which tells how much of a
direction is the batch's own. Written to ``results/sub_batch.json``.
"""

import argparse
import copy
import itertools
import json
from datetime import date
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from bisam_lab.data.examples import Examples, count_batches
from bisam_lab.recipe import Recipe, load
from bisam_lab.registry.methods import Method
from bisam_lab.run.fabric import build_fabric
from bisam_lab.run.optimizer import build_optimizer
from bisam_lab.run.setup import load_examples_and_model
from bisam_lab.run.steps import Steps

RESULTS = Path(__file__).resolve().parent.parent / "results" / "sub_batch.json"
SHARES = (0.125, 0.25, 0.5)
BATCHES = 8


def gradient(model: nn.Module, batch: Examples, share: float = 1.0) -> Tensor:
    """Return the gradient of the mean cross-entropy of the first samples, as one vector. The model stays as it is."""
    twin, few = copy.deepcopy(model), round(share * len(batch.y))
    loss = nn.functional.cross_entropy(twin(batch.x[:few]), batch.y[:few])
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(twin.parameters()))]).double()


def along_a_training(recipe: Recipe, seed: int, data_dir: Path | None) -> list[dict[str, float]]:
    """Return the cosines after each epoch, medians over the batches."""
    splits, model = load_examples_and_model(recipe, data_dir, seed)
    total = recipe.train.epochs * count_batches(len(splits.train), recipe.train.batch_size)
    opt = build_optimizer("sam", recipe, model, total, splits.classes)
    steps = Steps(build_fabric(recipe.engine), model, opt, Method("sam", {}), recipe.train, total)
    source, found = splits.train, []
    for epoch in range(1, recipe.train.epochs + 1):
        for _ in steps.take(source.shuffled(recipe.train.batch_size, seed, epoch)):
            pass
        batches = list(itertools.islice(source.shuffled(recipe.train.batch_size, seed, epoch + 1000), BATCHES + 1))
        whole = [gradient(model, batch) for batch in batches]
        row = {"epoch": float(epoch), "another batch": _median(whole[:-1], whole[1:])}
        for share in SHARES:
            row[f"{share:g}"] = _median([gradient(model, batch, share) for batch in batches], whole)
        found.append(row)
    return found


def _median(some: list[Tensor], others: list[Tensor]) -> float:
    cosines = [torch.nn.functional.cosine_similarity(a, b, dim=0) for a, b in zip(some, others, strict=True)]
    return round(float(np.median(torch.stack(cosines))), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--name", help="of the entry in the results; the recipe's by default")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    recipe = load(args.recipe, args.overrides)
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    kept[args.name or recipe.name] = {
        "date": str(date.today()),
        "recipe": recipe.model_dump(mode="json", include={"data", "model", "train", "sharpness"}),
        "seeds": [along_a_training(recipe, seed, args.data_dir) for seed in range(args.seeds)],
    }
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
    for share in (*(f"{share:g}" for share in SHARES), "another batch"):
        each = np.array([[row[share] for row in rows] for rows in kept[args.name or recipe.name]["seeds"]])
        print(f"{share}: first epoch {each[:, 0].mean():.2f}, middle {each[:, each.shape[1] // 2].mean():.2f}, "
              f"last {each[:, -1].mean():.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
