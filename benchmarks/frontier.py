"""The accuracy that a pass buys: SGD, SAM and its cheaper forms, each after equal tuning, on paired seeds.

    python benchmarks/frontier.py digits-noisy digits-clean          # trains; embedded data
    python benchmarks/frontier.py fashion-noisy --data-dir data      # the data sets are read from there
    python benchmarks/frontier.py digits-noisy --seconds             # measures what a step costs: on an idle machine

1. Tuning: each contestant tries six values on the seeds 1000 and on: SGD of its learning rate, the others of their
   radius. The best mean accuracy on validation wins; the smaller value wins a tie.
2. Test: fresh seeds from 0 on, with that value. The test set is read here alone.

Everything that is trained lies in OUT, so that the same command goes on where it stopped. The numbers are written to
``results/frontier.json``, from which ``docs/tables.py`` draws the pages.
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from tuned import Contestant, Setting, as_text, recipe_of, trained

from bisam_lab.bench import bench
from bisam_lab.parallel.processes import warm_up
from bisam_lab.recipe import load
from bisam_lab.run.result import RunResult
from bisam_lab.tuning.tuning import FIRST_SEED

RESULTS = Path(__file__).resolve().parent.parent / "results" / "frontier.json"
#: Values that each contestant tries: SGD of its learning rate, in units of the recipe's, the others of their radius, in
#: units of the setting's.
RATES = tuple(2.0**power for power in range(-3, 3))
RADII = tuple(2.0**power for power in range(-2, 4))
#: SAM's radius in a setting; noise wants a larger one.
RADIUS = {"noisy": 0.4, "clean": 0.05}


def grid(contestant: Contestant, radius: float, rate: float) -> tuple[float, ...]:
    """Return the values that a contestant tries where SAM has such a radius, and with the recipe's learning rate."""
    if contestant.plain:
        return tuple(rate * factor for factor in RATES)
    return tuple(contestant.scale * radius * factor for factor in RADII)


CHEAPER = (
    *(f"tailsam@tail={tail}" for tail in (0.1, 0.2, 0.4, 0.6)),
    *("every@k=2", "every@k=5", "looksam", "aesam", "samon", "subbatch"),
)
FRONTIER = (
    *(Contestant("sgd", epochs) for epochs in (1, 1.2, 1.5, 2)),
    *(Contestant("sam", epochs) for epochs in (1, 0.5, 0.75)),
    Contestant("bisam-log"),
    *(Contestant(method) for method in CHEAPER),
    *(Contestant(f"bisam-log+{method}") for method in CHEAPER),
    *(Contestant(method) for method in ("momentumsam", "asyncsam")),  # no pass of their own: no bound to climb
)


#: On the smallest set the whole family meets, those that cost as much as SAM, too.
_FAMILY = (
    *("asam", "esam", "gsam", "wsam", "friendlysam", "vasso", "fishersam", "ssam", "msam"),
    *("bisam-tanh", "bisam-log+asam", "bisam-log+msam"),
)
FAMILY = (*FRONTIER, *(Contestant(method) for method in _FAMILY))
_FEWER = (
    *("sgd", "sam", "bisam-log", "tailsam@tail=0.2", "tailsam@tail=0.4", "bisam-log+tailsam@tail=0.2"),
    *("looksam", "subbatch", "momentumsam", "asyncsam"),
)
#: Those that gained nothing on Fashion-MNIST.
_WITHOUT_GAIN = ("looksam", "asyncsam")
#: On the larger sets only these meet, and fewer seeds: a run of them takes several times as long.
FEWER = tuple(
    contestant for contestant in FRONTIER if contestant.epochs in (1, 0.5, 1.2, 2) and contestant.method in _FEWER
)


SETTINGS: dict[str, Setting] = {}
for noise, share in (("noisy", 0.4), ("clean", 0.0)):
    wrong = f"data.label_noise={share}"
    small = ("model.name=resnet-8", "model.options={width: 8}", "train.batch_size=64")
    SETTINGS[f"digits-{noise}"] = Setting("digits", (wrong,), FAMILY, 3, 10, RADIUS[noise])
    SETTINGS[f"fashion-{noise}"] = Setting(
        "fashion-mnist", (wrong, *small, "train.epochs=15", "data.train_size=2000"), FEWER, 2, 8, RADIUS[noise]
    )
    SETTINGS[f"cifar10-{noise}"] = Setting(
        "cifar10",
        (wrong, *small, "train.epochs=12", "data.train_size=2000", "data.validation_size=1000", "data.image_size=16"),
        FEWER,
        2,
        8,
        RADIUS[noise],
    )


_noisy = SETTINGS["digits-noisy"]
SETTINGS["digits-noisy-last"] = replace(
    _noisy, different=(*_noisy.different, "train.select=last"), contestants=FRONTIER, same="digits-noisy"
)
_noisy = SETTINGS["fashion-noisy"]
SETTINGS["fashion-noisy-rate"] = replace(  # with the learning rate that was SGD's best there
    _noisy,
    different=(*_noisy.different, "train.lr=0.4"),
    contestants=tuple(
        c for c in FEWER if c.epochs in (1, 2) and "0.2" not in c.method and c.method not in _WITHOUT_GAIN
    ),
)
_noisy = SETTINGS["cifar10-noisy"]
SETTINGS["cifar10-noisy-8000"] = replace(  # four times the images, and radii down to a quarter
    _noisy,
    different=tuple(d.replace("train_size=2000", "train_size=8000") for d in _noisy.different),
    contestants=tuple(c for c in FEWER if c.epochs in (1, 0.5, 2) and c.method not in _WITHOUT_GAIN),
    seeds=6,
    radius=RADIUS["noisy"] / 4,
)


@dataclass
class Row:
    """What came out for a contestant.

    Attributes:
        tried: mean validation score by value.
        chosen: the value with the best one.
        scores: test scores, seed by seed.
        passes: of its whole training, as a multiple of SGD's with the recipe's epochs.
        seconds: the same, as quartiles of a measurement.
        failed: tests that collapsed or diverged.
    """

    method: str
    epochs: float
    tried: dict[str, float] = field(default_factory=dict)
    chosen: float = 0.0
    scores: list[float] = field(default_factory=list)
    passes: float = 0.0
    seconds: tuple[float, ...] = ()
    failed: int = 0


class Frontier:
    """One setting's contestants, in a folder."""

    def __init__(self, setting: str, out: Path, data_dir: Path | None, jobs: int, overrides: list[str]) -> None:
        self.setting = SETTINGS[setting]
        self.name, self.recipe = setting, load(self.setting.recipe, [*self.setting.different, *overrides])
        self.out, self.data_dir, self.jobs = out, data_dir, jobs

    def rows(self) -> list[Row]:
        """Tune and test the contestants."""
        contestants, tuning = self.setting.contestants, self.setting.tuning_seeds
        rows = [Row(contestant.method, contestant.epochs) for contestant in contestants]
        grids = {c: grid(c, self.setting.radius, self.recipe.train.lr) for c in contestants}
        tuned = self._all(grids, "tuning", FIRST_SEED, tuning)
        last = self.recipe.train.select == "last"
        for row, contestant in zip(rows, contestants, strict=True):
            means = {v: float(np.mean([_validation(r, last) for r in tuned[contestant, v]])) for v in grids[contestant]}
            row.tried = {f"{value:g}": round(mean, 6) for value, mean in means.items()}
            row.chosen = max(means, key=lambda value: (means[value], -value))
        chosen = {c: (row.chosen,) for row, c in zip(rows, contestants, strict=True)}
        tested = self._all(chosen, "test", 0, self.setting.seeds)
        for row, contestant in zip(rows, contestants, strict=True):
            runs = tested[contestant, row.chosen]
            row.scores = [round(run.test_score, 6) for run in runs]
            row.failed = sum(run.status != "ok" for run in runs)
            epochs = np.mean([len(run.history) for run in runs])
            row.passes = round(float(np.mean([run.passes for run in runs]) * epochs / self.recipe.train.epochs), 4)
        return rows

    def _all(
        self,
        values: Mapping[Contestant, tuple[float, ...]],
        kind: str,
        first: int,
        n: int,
    ) -> dict[tuple[Contestant, float], list[RunResult]]:
        """Train each contestant with its values on n seeds from ``first`` on: one study for each number of epochs."""
        found: dict[tuple[Contestant, float], list[RunResult]] = {}
        for factor in dict.fromkeys(c.epochs for c in values):
            mine = [c for c in values if c.epochs == factor]
            sharp = {f"{c.method}@rho={v:g}": (c, v) for c in mine for v in values[c] if c.method != "sgd"}
            if sharp:
                for run in self._study(f"{kind}-{factor:g}", factor, first, n, methods=tuple(sharp)):
                    found.setdefault(sharp[run.method], []).append(run)
            for plain in (c for c in mine if c.method == "sgd"):
                rates = {f"lr-{value:g}": (plain, value) for value in values[plain]}
                variants = {name: {"train.lr": value} for name, (_, value) in rates.items()}
                for run in self._study(f"{kind}-sgd-{factor:g}", factor, first, n, methods=("sgd",), variants=variants):
                    found.setdefault(rates[run.variant], []).append(run)
        return found

    def _study(self, name: str, factor: float, first: int, seeds: int, **given: Any) -> Iterator[RunResult]:
        """Train a study's missing runs, and yield all its results, seed by seed."""
        recipe, setting = self.recipe, self.name
        if name.startswith("tuning") and self.setting.same is not None:
            setting = self.setting.same
            recipe = recipe.model_copy(update={"train": recipe.train.model_copy(update={"select": "best"})})
        recipe = recipe_of(recipe, factor, first_seed=first, seeds=seeds, **given)
        yield from trained(recipe, self.out / setting / name, self.data_dir, self.jobs, f"{self.name} {name}")


def _validation(run: RunResult, last: bool) -> float:
    """Return the score on validation that chooses the value: of the best epoch, or of the last one."""
    return run.history[-1].validation_score if last else run.validation_score


def measured(frontier: Frontier, rows: list[Row], rounds: int) -> None:
    """Measure a step of each method beside one of SGD, and enter what its whole training takes."""
    methods = tuple(dict.fromkeys(row.method for row in rows))
    report = bench(
        frontier.recipe.model_copy(update={"methods": methods}),
        rounds=rounds,
        minimum=0.2,
        peers=False,
        data_dir=frontier.data_dir,
    )
    found = {row.name: row.quartiles() for row in report.rows if row.error is None}
    for row in rows:
        if row.method in found:
            row.seconds = tuple(round(row.epochs * value, 4) for value in found[row.method])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="+", choices=list(SETTINGS), metavar="SETTING", help=", ".join(SETTINGS))
    parser.add_argument("--out", type=Path, default=Path("studies/frontier"))
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--set", action="append", default=[], help="another value of the recipe: train.epochs=2")
    parser.add_argument("--seconds", action="store_true", help="measure what a step costs, and train nothing")
    parser.add_argument("--rounds", type=int, default=9, help="of the measurement")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    warm_up()
    for setting in args.settings:
        frontier = Frontier(setting, args.out, args.data_dir, args.jobs, args.set)
        kept = json.loads(args.results.read_text()) if args.results.exists() else {}
        if args.seconds:
            rows = [Row(**row) for row in kept[setting]["rows"]]
            measured(frontier, rows, args.rounds)
            kept[setting]["rows"] = [asdict(row) for row in rows]
        else:
            rows = frontier.rows()
            seconds = {(row["method"], row["epochs"]): row["seconds"] for row in kept.get(setting, {}).get("rows", ())}
            for row in rows:
                row.seconds = seconds.get((row.method, row.epochs), ())
            kept[setting] = {
                "date": str(date.today()),
                "recipe": frontier.recipe.model_dump(mode="json", include={"data", "model", "train"}),
                "tuning": {"values": len(RATES), "seeds": frontier.setting.tuning_seeds},
                "rows": [asdict(row) for row in rows],
            }
        args.results.write_text(as_text(kept))


if __name__ == "__main__":
    main()
