"""Is the claim true? SGD, SAM and BiSAM's bounds after equal tuning of rate and radius, on fresh paired seeds.

    python benchmarks/evidence.py digits-40 digits-40-none          # embedded data
    python benchmarks/evidence.py fashion-40 cifar10-worse --data-dir data
    python benchmarks/evidence.py --list                            # all settings

1. Tuning, on the seeds 1000 and on, of the score on validation. Every contestant but SGD searches its learning rate and
   its radius together, with one number of trials: see ``search.py``. SGD has no radius, and searches its rate down to
   the finest step. The FINALISTS best points are trained on more seeds; the best mean over all seeds wins.
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
from evidence_settings import SETTINGS
from filelock import FileLock
from search import Point, Search, rounded
from tuned import Contestant, Setting, as_text, recipe_of, trained

from bisam_lab.parallel.processes import warm_up
from bisam_lab.recipe import load
from bisam_lab.registry.methods import canonical
from bisam_lab.run.result import RunResult
from bisam_lab.tuning.tuning import FIRST_SEED

RESULTS = Path(__file__).resolve().parent.parent / "results" / "evidence.json"
#: The middle of the rates that are tried first, in units of the recipe's.
START = 0.25
#: Points that are trained on more seeds, and how many more.
FINALISTS, FINAL_SEEDS = 4, 6


@dataclass
class Row:
    """What came out for a contestant.

    Attributes:
        like: whose numbers it takes, of the contestants by name.
        tried: rate, radius (not of SGD) and mean validation score of each trial, in order.
        finals: the same of the finalists, over all their seeds.
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
    tried: list[list[float]]
    finals: list[list[float]]
    rate: float
    rho: float
    at_edge: list[str]
    scores: list[float] = field(default_factory=list)
    passes: float = 0.0
    failed: int = 0


class Tuned(NamedTuple):
    """What was tried, and the finalists' means over all seeds."""

    search: Search
    finals: dict[Point, float]

    @property
    def best(self) -> Point:
        """The finalist with the best mean; of two equal ones that with the better rank."""
        return max(self.finals, key=self.finals.__getitem__)


class Evidence:
    """One setting's contestants, in a folder."""

    def __init__(self, name: str, out: Path, data_dir: Path | None, jobs: int, overrides: list[str]) -> None:
        self.name, self.setting = name, SETTINGS[name]
        self.recipe = load(self.setting.recipe, [*self.setting.different, *overrides])
        self.out, self.data_dir, self.jobs = out, data_dir, jobs
        self.environment: dict[str, Any] = {}

    def tune(self, contestant: Contestant) -> Tuned:
        """Search the contestant's rate and radius, SGD's rate alone; then decide between the best ones."""
        rate, tuning = rounded(START * self.recipe.train.lr), self.setting.tuning_seeds
        search = Search(rate) if contestant.plain else Search(rate, rounded(contestant.scale * self.setting.radius))
        while asked := search.next():
            runs = self.train("tuning", contestant, asked, FIRST_SEED, tuning)
            search.tell({p: float(np.mean([run.validation_score for run in runs[p]])) for p in asked})
        points = search.best(FINALISTS)
        more = self.train("finals", contestant, points, FIRST_SEED + tuning, FINAL_SEEDS)
        finals = {}
        for point in points:
            scores = [run.validation_score for run in more[point]]
            finals[point] = (tuning * search.means[point] + sum(scores)) / (tuning + FINAL_SEEDS)
        return Tuned(search, finals)

    def rows(self) -> Iterable[Row]:
        """Tune and test the contestants one by one, and yield what came out."""
        known: dict[str, Tuned] = {}
        for c in self.setting.contestants:
            tuned = known[c.like] if c.like else known.setdefault(c.name, self.tune(c))
            runs = self.train("test", c, [tuned.best], 0, self.setting.seeds)[tuned.best]
            rate, rho = tuned.best if len(tuned.best) == 2 else (*tuned.best, 0.0)
            edges = [
                name for name, edge in zip(("rate", "rho"), tuned.search.at_edge(tuned.best), strict=False) if edge
            ]
            means = [{}, {}] if c.like else [tuned.search.means, tuned.finals]
            tried, finals = ([[*point, round(mean, 6)] for point, mean in each.items()] for each in means)
            row = Row(c.method, c.epochs, c.like, tried, finals, rate, rho, edges)
            row.scores = [round(run.test_score, 6) for run in runs]
            row.failed = sum(run.status != "ok" for run in runs)
            epochs = np.mean([len(run.history) for run in runs])
            row.passes = round(float(np.mean([run.passes for run in runs]) * epochs / self.recipe.train.epochs), 4)
            self.environment = runs[0].environment or {}
            yield row

    def train(
        self, kind: str, contestant: Contestant, points: list[Point], first: int, n: int
    ) -> dict[Point, list[RunResult]]:
        """Train a contestant at points on n seeds from ``first`` on."""
        method = canonical(contestant.method)
        at = {_named(point): point for point in points}
        variants = {
            name: {"train.lr": rate} | ({"sharpness.radii": {method: rho[0]}} if rho else {})
            for name, (rate, *rho) in at.items()
        }
        recipe = recipe_of(
            self.recipe, contestant.epochs, first_seed=first, seeds=n, methods=(method,), variants=variants
        )
        folder = self.out / (self.setting.same or self.name) / f"{kind}-{contestant.epochs:g}" / method
        found: dict[Point, list[RunResult]] = {}
        for run in trained(recipe, folder, self.data_dir, self.jobs, f"{self.name}, {contestant.name}, {kind}"):
            found.setdefault(at[run.variant], []).append(run)
        return found


def _named(point: Point) -> str:
    """Return the name of a point's variant."""
    return "-".join(f"{word}-{value:g}" for word, value in zip(("lr", "rho"), point, strict=False))


def entry(evidence: Evidence, rows: list[Row]) -> dict[str, Any]:
    """Return what is kept of a setting."""
    setting, machine = evidence.setting, evidence.environment
    return {
        "date": str(date.today()),
        "recipe": evidence.recipe.model_dump(mode="json", include={"data", "model", "train"}),
        "tuning_seeds": setting.tuning_seeds,
        "finals": {"points": FINALISTS, "seeds": setting.tuning_seeds + FINAL_SEEDS},
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
