"""Is the advice of ``bisam rho-range`` any good? A grid of radii, trained to the end, beside it.

    python benchmarks/rho_range.py digits --label-noise 0.4
    python benchmarks/rho_range.py fashion-mnist --data-dir data --seeds 2 train.epochs=8

Every radius in factors of two from 0.05 to 1.6 (asam: 0.25 to 8) is trained for every seed, and each seed is given its
advice, whose sweep starts at the published default. Finished runs are kept in ``--out`` and not run again. Test
accuracies in %, mean over the seeds; "best" is the radius that mean validation accuracy chooses from the grid.
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bisam_lab import recipe as recipes
from bisam_lab.recipe import Recipe, RecipeError
from bisam_lab.run.train import train
from bisam_lab.tuning.rho_range import Advice, advise

GRID = {
    method: [first * 2**k for k in range(6)] for method, first in (("sam", 0.05), ("bisam-log", 0.05), ("asam", 0.25))
}
DEFAULT = {"sam": 0.05, "bisam-log": 0.05, "asam": 0.5}

Key = tuple[str, float, int]


class Grid:
    """Runs by (method, rho, seed), kept in a file of JSON lines that may hold other studies too."""

    def __init__(self, file: Path, recipe: str, given: Sequence[str], data_dir: Path | None) -> None:
        self.file, self.recipe, self.given, self.data_dir = file, recipe, sorted(given), data_dir
        lines = file.read_text().splitlines() if file.exists() else []
        runs = [json.loads(line) for line in lines]
        mine = [run for run in runs if (run["recipe"], run["given"]) == (recipe, self.given)]
        self.runs: dict[Key, dict[str, Any]] = {(run["method"], run["rho"], run["seed"]): run for run in mine}

    def load(self, method: str, rho: float) -> Recipe:
        return recipes.load(self.recipe, [*self.given, f"sharpness.radii.{method}={rho}"])

    def run(self, method: str, rho: float, seed: int) -> None:
        """Train once, if it has not been done."""
        if (method, rho, seed) in self.runs:
            return
        result = train(self.load(method, rho), method, seed, data_dir=self.data_dir)
        run = {"recipe": self.recipe, "given": self.given, "method": method, "rho": rho, "seed": seed}
        run |= {"validation": result.validation_score, "test": result.test_score, "status": result.status}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("a") as stream:
            print(json.dumps(run), file=stream)
        self.runs[method, rho, seed] = run
        print(f"{method} rho {rho:g} seed {seed}: test {100 * result.test_score:.1f} %", flush=True)

    def mean(self, method: str, radii: Sequence[float], what: str) -> float:
        """Mean in % over the seeds, each with a radius of its own."""
        return 100 * statistics.mean([float(self.runs[method, r, seed][what]) for seed, r in enumerate(radii)])

    def cell(self, method: str, radii: Sequence[float]) -> str:
        """Test accuracy, as mean and sample deviation, and the radii."""
        each = [100 * self.runs[method, rho, seed]["test"] for seed, rho in enumerate(radii)]
        spread = f" ± {statistics.stdev(each):.1f}" if len(each) > 1 else ""
        return f"{statistics.mean(each):.1f}{spread} ({', '.join(f'{rho:g}' for rho in sorted(set(radii)))})"


def row(grid: Grid, method: str, advices: Sequence[Advice]) -> str:
    """One line of the table."""
    n, radii = len(advices), GRID[method]
    best = max(radii, key=lambda rho: grid.mean(method, [rho] * n, "validation"))
    starts, ends = ([nearest(radii, getattr(a.range, end)) for a in advices] for end in ("suggestion", "high"))
    cells = [[DEFAULT[method]] * n, starts, ends, [best] * n, [radii[-1]] * n]
    sgd = grid.cell("sgd", [0.0] * n).removesuffix(" (0)")
    return " | ".join(["", method, str(n), sgd, *(grid.cell(method, cell) for cell in cells), ""]).strip()


def nearest(radii: Sequence[float], rho: float) -> float:
    """Return ``rho`` as it stands in the grid, or the end of the grid beyond which it lies."""
    return min(radii, key=lambda other: abs(other - rho))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*", metavar="FIELD=VALUE")
    parser.add_argument("--methods", default="sam,bisam-log,asam")
    parser.add_argument("--label-noise", type=float, default=0.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--out", type=Path, default=Path("studies/rho-range.jsonl"))
    wanted = parser.parse_intermixed_args()
    torch.set_num_threads(1)
    given = [*wanted.overrides, f"data.label_noise={wanted.label_noise}", "engine.accelerator=cpu"]
    grid, seeds, methods = (
        Grid(wanted.out, wanted.recipe, given, wanted.data_dir),
        wanted.seeds,
        wanted.methods.split(","),
    )
    for seed in range(seeds):
        grid.run("sgd", 0.0, seed)
        for method in methods:
            for rho in GRID[method]:
                grid.run(method, rho, seed)
    print("| method | n | sgd | default | suggestion | high | best of the grid | end of the grid |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|")
    for method in methods:
        try:
            start = grid.load(method, DEFAULT[method])
            advices = [advise(start, method, seed, data_dir=wanted.data_dir) for seed in range(seeds)]
        except RecipeError as error:
            print(f"{method}: {error}")
            continue
        print(row(grid, method, advices))
        for a in advices:
            curve = ", ".join(f"{r.rho:g}: {r.cosine:.2f}" for r in a.range.rows)
            print(f"  seed {a.seed}: {a.passes} of {a.epoch} passes; cosines {curve}")


if __name__ == "__main__":
    main()
