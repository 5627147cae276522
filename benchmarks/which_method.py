"""Which method when: every method at its own best radius, against SGD, on the embedded digits or any recipe.

    python benchmarks/which_method.py digits --out studies/which-digits
    python benchmarks/which_method.py digits --out studies/which-clean data.label_noise=0

1. Radius: each method tries its published radius times 1/2, 1, 2, 4, 8 and 16, each on the three seeds 1000 to 1002;
   the best mean accuracy on validation wins. SGD's learning rate is tried at 1/4, 1/2, 1, 2 times the recipe's.
2. Test: the ten seeds 0 to 9 with that radius. The test set is read here alone.

SGD is also given twice the epochs, for that is what a second pass costs. Finished runs are kept in OUT/runs.jsonl.
"""

import argparse
import json
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bisam import METHODS
from bisam_lab.recipe import Recipe, load
from bisam_lab.registry.methods import Method
from bisam_lab.report.summary import markdown
from bisam_lab.run.result import RunResult
from bisam_lab.run.train import train
from bisam_lab.statistics import compare, verdict

SINGLE = [name for name in METHODS if name != "bisam"] + ["msam", "bisam-log", "bisam-tanh"]
JOINED = [f"bisam-log+{part}" for part in ("asam", "esam", "looksam", "msam", "friendlysam")]
FACTORS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
RATES = (0.25, 0.5, 1.0, 2.0)
TWICE = "sgd, twice the epochs"
TUNING, TESTING = range(1000, 1003), range(10)


def configured(recipe: Recipe, method: str, factor: float) -> Recipe:
    """Return the recipe with the method's radius (SGD: its learning rate) set to ``factor`` times what is usual."""
    t = recipe.train
    if method in ("sgd", TWICE):
        epochs = t.epochs * (2 if method == TWICE else 1)
        return recipe.model_copy(update={"train": t.model_copy(update={"lr": factor * t.lr, "epochs": epochs})})
    radius = factor * Method(method, recipe.sharpness.options).radius(0.05, {})
    sharpness = recipe.sharpness.model_copy(update={"radii": {method: radius}})
    return recipe.model_copy(update={"sharpness": sharpness})


def run(recipe: Recipe, method: str, factor: float, seed: int, data_dir: Path | None) -> dict[str, Any]:
    """Train once; a process of its own has one thread."""
    torch.set_num_threads(1)
    result = train(configured(recipe, method, factor), "sgd" if method == TWICE else method, seed, data_dir=data_dir)
    return {"factor": factor, **asdict(replace(result, method=method, history=[]))}


class Runs:
    """The runs of a study, each trained once and kept in a file of JSON lines."""

    def __init__(self, recipe: Recipe, out: Path, data_dir: Path | None, jobs: int) -> None:
        self.recipe, self.data_dir, self.jobs = recipe, data_dir, jobs
        self.file = out / "runs.jsonl"
        out.mkdir(parents=True, exist_ok=True)
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        self.done = {self._key(row): row for row in map(json.loads, lines)}

    @staticmethod
    def _key(row: dict[str, Any]) -> tuple[Any, ...]:
        return row["method"], row["factor"], row["seed"]

    def get(self, wanted: list[tuple[str, float, int]]) -> Iterator[dict[str, Any]]:
        """Yield the runs, those that are missing after they are trained."""
        missing = [key for key in wanted if key not in self.done]
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(self.jobs, mp_context=context) as pool, self.file.open("a") as file:
            futures = [pool.submit(run, self.recipe, *key, self.data_dir) for key in missing]
            for number, future in enumerate(as_completed(futures)):
                row = future.result()
                self.done[self._key(row)] = row
                file.write(json.dumps(row) + "\n")
                file.flush()
                print(f"{number + 1}/{len(missing)} {row['method']} x{row['factor']:g} seed {row['seed']}", flush=True)
        yield from (self.done[key] for key in wanted)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--methods", default=",".join(SINGLE + JOINED))
    args = parser.parse_args()
    runs = Runs(load(args.recipe, args.overrides), args.out, args.data_dir, args.jobs)
    methods = ["sgd", TWICE, *args.methods.split(",")]
    tried = [(m, f, s) for m in methods for f in (RATES if "sgd" in m else FACTORS) for s in TUNING]
    validation: dict[str, dict[float, list[float]]] = {}
    for row in runs.get(tried):
        validation.setdefault(row["method"], {}).setdefault(row["factor"], []).append(row["validation_score"])
    chosen = {m: max(by, key=lambda f: (np.mean(by[f]), -f)) for m, by in validation.items()}
    results = []
    for row in runs.get([(m, chosen[m], s) for m in methods for s in TESTING]):
        results.append(RunResult(**{key: value for key, value in row.items() if key != "factor"}))
    text = ""
    for baseline in ("sgd", "sam") if "sam" in methods else ("sgd",):
        rows = compare(results, baseline)
        text += markdown(rows, baseline) + "\n" + verdict(rows, baseline) + "\n\n"
    text += "chosen on validation:\n"
    for method, factor in chosen.items():
        what = f"learning rate {factor * runs.recipe.train.lr:g}"
        if "sgd" not in method:
            what = f"rho {Method(method, {}).radius(0.05, {}) * factor:g}"
        each = ", ".join(f"x{f:g}: {100 * np.mean(v):.1f}" for f, v in validation[method].items())
        text += f"- {method}: {what} (validation accuracy % {each})\n"
    (args.out / "table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
