"""Is the claim true? SGD, SAM and BiSAM's bounds after equal tuning of rate and radius, on fresh paired seeds.

    python benchmarks/evidence.py digits-40 digits-40-none          # embedded data
    python benchmarks/evidence.py fashion-40 cifar10-worse --data-dir data
    python benchmarks/evidence.py --list                            # all settings

1. Tuning, on the seeds 1000 and on, of the score on validation. SGD tries six learning rates a factor of 2 apart, then
   four between the best one's neighbours. Every other method tries six radii at SGD's best rate, then four other rates
   at its best radius. Where the best value is the last one of its grid, the grid goes on, until it is not, or until
   six more values are tried. The smaller value wins a tie.
2. Test: fresh seeds from 0 on, with that rate and radius. The test set is read here alone. "tuned as sam" stands for
   a method that takes SAM's numbers, so that the luck of a tuning is no difference between the two.

Everything that is trained lies in OUT, so the same command goes on where it stopped. The numbers are written to
``results/evidence.json`` and ``.csv``, a contestant's as soon as it is tested. ``docs/tables.py`` draws the pages.
"""

import argparse
import csv
import io
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from evidence_settings import SETTINGS, Setting
from filelock import FileLock
from tuned import Contestant, as_text, recipe_of, trained

from bisam_lab.parallel.processes import warm_up
from bisam_lab.recipe import load
from bisam_lab.registry.methods import canonical
from bisam_lab.run.result import RunResult
from bisam_lab.tuning.tuning import FIRST_SEED

RESULTS = Path(__file__).resolve().parent.parent / "results" / "evidence.json"
#: Rates that SGD tries first, in units of the recipe's, and then, in units of the best of them.
RATES = tuple(2.0**power for power in range(-3, 3))
FINER = tuple(2.0 ** (third / 3) for third in (-2, -1, 1, 2))
#: Rates that the others try at their best radius, in units of SGD's best.
BESIDE = tuple(2.0**power for power in (-1, -0.5, 0.5, 1))
#: Values that are tried beyond a grid, at most.
BEYOND = 6


class Point(NamedTuple):
    """A contestant's numbers; ``rho`` is 0 for SGD."""

    contestant: Contestant
    rate: float
    rho: float


@dataclass
class Grid:
    """Values of one number that are tried, each with its mean score.

    Attributes:
        means: by value.
        beyond: how many values were tried beyond the first ones.
    """

    means: dict[float, float] = field(default_factory=dict)
    beyond: int = 0

    @property
    def best(self) -> float:
        """The value with the best mean; the smaller one of two."""
        return max(self.means, key=lambda value: (self.means[value], -value))

    @property
    def at_edge(self) -> bool:
        """Whether the best value is the first or the last one."""
        return self.best in (min(self.means), max(self.means))

    def next(self) -> float | None:
        """Return the value after the edge at which the best one lies; None where it lies inside, or after BEYOND."""
        if not self.at_edge or self.beyond == BEYOND:
            return None
        self.beyond += 1
        first, second, *_ = sorted(self.means, reverse=self.best == max(self.means))
        return rounded(first * first / second)


def rounded(value: float) -> float:
    """Return a rate or radius with four digits, as it stands in names and tables."""
    return float(f"{value:.4g}")


@dataclass
class Row:
    """What came out for a contestant.

    Attributes:
        like: whose numbers it takes, of the contestants by name.
        tried: rate, radius and mean validation score of each trial, in order.
        rate: the learning rate that the tuning chose.
        rho: the radius that it chose; 0 for SGD.
        at_edge: which of them are the last ones of what was tried, even so.
        scores: test scores, seed by seed.
        passes: of its whole training, as a multiple of SGD's with the recipe's epochs.
        failed: tests that collapsed or diverged.
    """

    method: str
    epochs: float
    like: str | None
    tried: list[tuple[float, float, float]]
    rate: float
    rho: float
    at_edge: list[str]
    scores: list[float] = field(default_factory=list)
    passes: float = 0.0
    failed: int = 0


class Evidence:
    """One setting's contestants, in a folder."""

    def __init__(self, name: str, out: Path, data_dir: Path | None, jobs: int, overrides: list[str]) -> None:
        self.name, self.setting = name, SETTINGS[name]
        self.recipe = load(self.setting.recipe, [*self.setting.different, *overrides])
        self.out, self.data_dir, self.jobs = out, data_dir, jobs
        self.tried: dict[Contestant, list[tuple[float, float, float]]] = {}
        self.environment: dict[str, Any] = {}

    def tune(self) -> dict[Contestant, tuple[Grid, Grid]]:
        """Return the grids of rate and radius of each contestant; of SGD the one of the rate alone."""
        tuned = [c for c in self.setting.contestants if c.like is None]
        plain, sharp = [c for c in tuned if c.plain], [c for c in tuned if not c.plain]
        first = {c: tuple(rounded(self.recipe.train.lr * factor) for factor in RATES) for c in plain}
        rates = self._searched("rates", first, lambda c, rate: Point(c, rate, 0.0))
        finer = {c: tuple(rounded(rates[c].best * factor) for factor in FINER) for c in plain}
        rates |= self._searched("finer rates", finer, lambda c, rate: Point(c, rate, 0.0), rates)
        usual = rates[next(c for c in plain if c.epochs == 1)].best
        radii = {c: tuple(rounded(c.scale * radius) for radius in self.setting.radii) for c in sharp}
        rhos = self._searched("radii", radii, lambda c, rho: Point(c, usual, rho))
        known = {c: Grid({usual: rhos[c].means[rhos[c].best]}) for c in sharp}
        beside = {c: tuple(rounded(usual * factor) for factor in BESIDE) for c in sharp}
        rates |= self._searched("rates", beside, lambda c, rate: Point(c, rate, rhos[c].best), known)
        return {c: (rates[c], rhos.get(c, Grid({0.0: 0.0}))) for c in tuned}

    def _searched(
        self,
        stage: str,
        values: Mapping[Contestant, tuple[float, ...]],
        point: Any,
        known: Mapping[Contestant, Grid] | None = None,
    ) -> dict[Contestant, Grid]:
        """Try values of each contestant, and go on at the edges; ``known`` values were tried before."""
        grids = {c: Grid(dict(known[c].means)) if known else Grid() for c in values}
        todo = {point(c, value): (c, value) for c in values for value in values[c] if value not in grids[c].means}
        while todo:
            runs = self.train("tuning", list(todo), FIRST_SEED, self.setting.tuning_seeds, stage)
            for p, (c, value) in todo.items():
                mean = float(np.mean([run.validation_score for run in runs[p]]))
                grids[c].means[value] = mean
                self.tried.setdefault(c, []).append((p.rate, p.rho, round(mean, 6)))
            more = {c: grid.next() for c, grid in grids.items()}
            todo = {point(c, value): (c, value) for c, value in more.items() if value is not None}
        return grids

    def rows(self) -> Iterable[Row]:
        """Tune all contestants, then test them one by one, and yield what came out."""
        tuned = self.tune()
        by_name = {c.name: c for c in tuned}
        for c in self.setting.contestants:
            rates, rhos = tuned[by_name[c.like] if c.like else c]
            edges = [name for name, grid in (("rate", rates), ("rho", rhos)) if len(grid.means) > 1 and grid.at_edge]
            row = Row(c.method, c.epochs, c.like, self.tried.get(c, []), rates.best, rhos.best, edges)
            point = Point(c, row.rate, row.rho)
            runs = self.train("test", [point], 0, self.setting.seeds, "test")[point]
            row.scores = [round(run.test_score, 6) for run in runs]
            row.failed = sum(run.status != "ok" for run in runs)
            epochs = np.mean([len(run.history) for run in runs])
            row.passes = round(float(np.mean([run.passes for run in runs]) * epochs / self.recipe.train.epochs), 4)
            self.environment = runs[0].environment or {}
            yield row

    def train(self, kind: str, points: list[Point], first: int, n: int, stage: str) -> dict[Point, list[RunResult]]:
        """Train points on n seeds from ``first`` on: those together that share epochs and a set of rates."""
        methods: dict[tuple[float, str], list[Point]] = {}
        for p in points:
            name = "sgd" if p.contestant.plain else canonical(f"{p.contestant.method}@rho={p.rho:g}")
            methods.setdefault((p.contestant.epochs, name), []).append(p)
        groups: dict[tuple[float, tuple[float, ...]], dict[str, list[Point]]] = {}
        for (epochs, name), mine in methods.items():
            rates = tuple(sorted(p.rate for p in mine))
            groups.setdefault((epochs, rates), {})[name] = mine
        found: dict[Point, list[RunResult]] = {}
        for number, ((epochs, rates), at_rates) in enumerate(groups.items(), 1):
            variants = {f"lr-{rate:g}": {"train.lr": rate} for rate in rates}
            recipe = recipe_of(
                self.recipe, epochs, first_seed=first, seeds=n, methods=tuple(at_rates), variants=variants
            )
            label = f"{self.name}, {stage} {number} of {len(groups)}"
            folder = self.out / (self.setting.same or self.name) / f"{kind}-{epochs:g}"
            at = {(f"lr-{p.rate:g}", name): p for name, each in at_rates.items() for p in each}
            for run in trained(recipe, folder, self.data_dir, self.jobs, label):
                found.setdefault(at[run.variant, run.method], []).append(run)
        return found


def entry(evidence: Evidence, rows: list[Row]) -> dict[str, Any]:
    """Return what is kept of a setting."""
    setting, machine = evidence.setting, evidence.environment
    return {
        "date": str(date.today()),
        "recipe": evidence.recipe.model_dump(mode="json", include={"data", "model", "train"}),
        "tuning_seeds": setting.tuning_seeds,
        "seeds": setting.seeds,
        "contestants": len(setting.contestants),
        "hardware": {key: machine.get(key) for key in ("processor", "device", "threads")}
        | {"torch": machine.get("packages", {}).get("torch")},
        "rows": [asdict(row) for row in rows],
    }


def keep(path: Path, name: str, kept: dict[str, Any]) -> None:
    """Enter a setting among the results: at once, so that a file is never half a file, in turn with other processes."""
    with FileLock(path.with_suffix(".lock")):
        results = json.loads(path.read_text()) if path.exists() else {}
        results[name] = kept
        ordered = {key: results[key] for key in [*SETTINGS, *results] if key in results}
        for place, text in ((path, as_text(ordered)), (path.with_suffix(".csv"), as_table(ordered))):
            fresh = place.with_suffix(f".{os.getpid()}")
            fresh.write_text(text)
            fresh.replace(place)
    path.with_suffix(".lock").unlink(missing_ok=True)


def as_table(results: Mapping[str, Any]) -> str:
    """Return the results as CSV, a test a line."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["setting", "method", "epochs", "tuned_as", "rate", "rho", "seed", "test_score"])
    for name, setting in results.items():
        for row in setting["rows"]:
            numbers = [row[key] for key in ("method", "epochs", "like", "rate", "rho")]
            writer.writerows([name, *numbers, seed, score] for seed, score in enumerate(row["scores"]))
    return table.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", metavar="SETTING", help="see --list")
    parser.add_argument("--list", action="store_true", help="the settings, and no training")
    parser.add_argument("--out", type=Path, default=Path("studies/evidence"))
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--jobs", type=int, default=1, help="1 is the fastest for the small settings")
    parser.add_argument("--set", action="append", default=[], help="another value of the recipe: train.epochs=2")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.list:
        print("\n".join(f"{name:28} {described(setting)}" for name, setting in SETTINGS.items()))
        return
    if unknown := [name for name in args.settings if name not in SETTINGS]:
        parser.error(f"no setting {unknown[0]!r}: see --list")
    if args.jobs == 1:
        torch.set_num_threads(1)
    else:
        warm_up()
    for name in args.settings:
        evidence, rows = Evidence(name, args.out, args.data_dir, args.jobs, args.set), []
        for row in evidence.rows():
            rows.append(row)
            keep(args.results, name, entry(evidence, rows))


def described(setting: Setting) -> str:
    """Return a setting in a line."""
    what = f"{len(setting.contestants)} contestants, {setting.tuning_seeds} + {setting.seeds} seeds"
    return f"{setting.recipe} {' '.join(setting.different)}: {what}"


if __name__ == "__main__":
    main()
