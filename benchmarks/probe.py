"""A linear probe of pretrained weights: features once, then heads by every method, tuned alike, on fresh seeds.

    bisam data fetch efficientnet-lite0 --data-dir data && bisam data fetch minilm-l6 --data-dir data
    python benchmarks/probe.py cifar10 --data-dir data     # EfficientNet-Lite0 at 64 pixels
    python benchmarks/probe.py sst2 --data-dir data        # MiniLM-L6, mean over the tokens

A fine-tuning of the whole network is a recipe: ``bisam compare finetune-efficientnet``, ``finetune-minilm``. A probe
trains the head alone, which is convex: it says what the features hold, and how methods differ on a linear layer.
A seed draws the training examples out of a pool, the head's weights and the order of the batches. The rest of the pool
is for the choice; the test examples are read in the comparison alone.
"""

import argparse
import functools
import json
import platform
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bisam import ASAM, SAM, BiSAM, SharpnessAware
from bisam_lab.data import load_splits
from bisam_lab.models import TextClassifier, build_model
from bisam_lab.models.published import located
from bisam_lab.recipe import Recipe, load
from bisam_lab.statistics.tuned import markdown, tuned

ROOT = Path(__file__).resolve().parent.parent
RADII = (0.02, 0.05, 0.1, 0.2, 0.5)
RATES = (0.0003, 0.001, 0.003, 0.01, 0.03)
METHODS = {"sam": 1, "asam": 10, "bisam-tanh": 1, "bisam-log": 1}
#: The recipe whose weights and data each probe takes, and how many examples: of the pool, and to test on.
PROBES = {
    "cifar10": ("finetune-efficientnet", {"data.train_size": 1000, "data.test_size": 1000}),
    "sst2": ("finetune-minilm", {"data.train_size": 600, "data.test_size": 400, "data.max_length": 32}),
}
TRAINED, EPOCHS, BATCH = 200, 20, 25


def features(name: str, data_dir: Path) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return features and labels of the pool and of the test set, features standardised by the pool."""
    shipped, sizes = PROBES[name]
    recipe = load(shipped, [f"{key}={value}" for key, value in sizes.items()])
    parts = _encoded(recipe, data_dir)
    (pool, y), (test, t) = parts
    mean, std = pool.mean(0), pool.std(0).clamp(min=1e-6)
    return (pool - mean) / std, y, (test - mean) / std, t


def _encoded(recipe: Recipe, data_dir: Path) -> list[tuple[Tensor, Tensor]]:
    model = located(recipe.model, data_dir)
    splits = load_splits(recipe.data, data_dir, 0, tokenizer=model.tokenizer)
    net = build_model(model, splits.shape, splits.classes, splits.vocabulary).eval()
    found = []
    with torch.no_grad():
        for part in (splits.train, splits.test):
            batches = list(part.in_order(50))
            found.append((torch.cat([_embed(net, b.x) for b in batches]), torch.cat([b.y for b in batches])))
    return found


def _embed(net: Any, x: Tensor) -> Tensor:
    """Return what goes into the head of an image network; of a text, the mean over its tokens."""
    if not isinstance(net, TextClassifier):
        pooled: Tensor = net.forward_head(net.forward_features(x), pre_logits=True)
        return pooled
    inner: Any = net.model
    hidden = inner.base_model(input_ids=x[:, 0], attention_mask=x[:, 1], token_type_ids=x[:, 2]).last_hidden_state
    mask = x[:, 1, :, None].float()
    mean: Tensor = (hidden * mask).sum(1) / mask.sum(1)
    return mean


def optimizer(method: str, rate: float, rho: float, head: nn.Module) -> SharpnessAware:
    """Return a method around AdamW; AdamW alone is SAM of radius 0."""
    base = torch.optim.AdamW(head.parameters(), lr=rate, weight_decay=0.01)
    if method.startswith("bisam-"):
        return BiSAM(base, model=head, rho=rho, bound=method.removeprefix("bisam-"))
    make = ASAM if method == "asam" else SAM
    return make(base, model=head, rho=rho)


def accuracies(
    data: tuple[Tensor, Tensor, Tensor, Tensor], method: str, rate: float, rho: float, seed: int
) -> list[float]:
    """Train one head and return the share that is right: of the rest of the pool, and of the test examples."""
    pool, labels, test, right = data
    torch.manual_seed(seed)
    order = torch.randperm(len(pool))
    chosen, others = order[:TRAINED], order[TRAINED:]
    head = nn.Linear(pool.shape[1], 1 + int(labels.max()))
    opt = optimizer(method, rate, rho, head)
    for _ in range(EPOCHS):
        for part in chosen[torch.randperm(TRAINED)].split(BATCH):
            for objective in opt.passes():
                objective(head(pool[part]), labels[part]).backward()
            opt.step()
            opt.zero_grad()
    with torch.no_grad():
        seen = ((head(pool[others]), labels[others]), (head(test), right))
        return [float((logits.argmax(1) == y).float().mean()) for logits, y in seen]


def main() -> None:
    """Tune, compare, print the table, and keep the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("probe", choices=sorted(PROBES))
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "finetune.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = features(args.probe, args.data_dir)
    print(f"features of {len(data[0])} and {len(data[2])} examples, {data[0].shape[1]} each", flush=True)
    tuning, seeds = range(3), range(1000, 1000 + args.seeds)

    @functools.cache
    def trained(method: str, rate: float, rho: float, seed: int) -> list[float]:
        return accuracies(data, method, rate, rho, seed)

    def of_rate(part: int, method: str, rate: float, seed: int) -> float:
        return trained(method, rate, 0.0, seed)[part]

    def of_radius(part: int, method: str, rho: float, seed: int) -> float:
        return trained(method, rows[0]["chosen"], rho, seed)[part]

    radii = {method: [factor * rho for rho in RADII] for method, factor in METHODS.items()}
    rows: list[dict[str, Any]] = []
    for number, grids in ((of_rate, {"adamw": RATES}), (of_radius, radii)):
        validation, test = (functools.partial(number, part) for part in (0, 1))
        rows += tuned(test, grids, tuning=tuning, seeds=seeds, validation=validation, tell=print)
    print(markdown(rows, ["adamw", "sam"], "test accuracy %"))
    kept = json.loads(args.out.read_text()) if args.out.exists() else {}
    kept[f"probe-{args.probe}"] = {
        "date": time.strftime("%Y-%m-%d"),
        "command": f"python benchmarks/probe.py {args.probe} --data-dir data --seeds {args.seeds}",
        "machine": f"{platform.machine()}, one thread, torch {torch.__version__.partition('+')[0]}",
        "sizes": {"pool": len(data[0]), "trained": TRAINED, "test": len(data[2]), "epochs": EPOCHS},
        "tuning": {"values": len(RADII), "seeds": len(tuning)},
        "rows": rows,
    }
    args.out.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
