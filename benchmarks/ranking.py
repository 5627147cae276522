"""Does accuracy follow the rise of held-out error? Methods, by what their adversary does and by what they train to.

    python benchmarks/ranking.py digits-40 digits-0 --out ranking    # trains and audits; goes on where it stopped

Registered before the first run. Hypothesis: over methods at one radius, mean test accuracy rises with the rise of
held-out error under their adversaries (Spearman's correlation > 0), and not with the rise of the batch's error. It is
confirmed where the 95 % bootstrap interval over seeds of the first correlation lies above 0 and that of the second one
does not; refuted where that of the first one lies below 0. Ten seeds; nobody looks before all are there.

For each seed SGD is trained, and its weights after half of the epochs are audited with every method's adversary, at the
radius with which the method is trained from the same seed. The numbers are written to results/ranking.json.
"""

import argparse
import json
import math
from contextlib import closing
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import spearmanr

from bisam_lab.auditing import audit
from bisam_lab.auditing.checkpoint import found, loaded
from bisam_lab.parallel.engine import Engine
from bisam_lab.parallel.processes import warm_up
from bisam_lab.recipe import Recipe, RecipeError, load
from bisam_lab.run.environment import environment
from bisam_lab.run.result import Run
from bisam_lab.study.cell import run_cell
from bisam_lab.study.folder import Study
from bisam_lab.study.pool import run_study

RESULTS = Path(__file__).resolve().parent.parent / "results" / "ranking.json"
METHODS = (
    *("sam", "asam", "esam", "msam", "fishersam", "samon", "bisam-log+asam"),
    *("bisam-tanh", "bisam-log", "bisam-ramp", "bisam-softsign", "bisam-shifted-tanh"),
)
SEEDS, BATCHES, RESAMPLES = 10, 20, 2000
#: SAM's radius; the others take it in proportion.
RHO = 0.1
SETTINGS = {
    "digits-40": ("digits", ("data.label_noise=0.4", "train.batch_size=48")),
    "digits-0": ("digits", ("data.label_noise=0", "train.batch_size=48")),
}


def recipe_of(setting: str) -> Recipe:
    name, fields = SETTINGS[setting]
    return load(name, [*fields, f"sharpness.rho={RHO}", f"methods=[{','.join(METHODS)}]", f"seeds={SEEDS}"])


def accuracies(recipe: Recipe, out: Path, data_dir: Path | None) -> "npt.NDArray[np.float64]":
    """Train every method on every seed; return test accuracies in per cent (methods, seeds)."""
    study = Study(out / "study", recipe, data_dir, print)
    done = len(study.results())
    with closing(run_study(study, Engine(jobs=1), stack="auto")) as events:
        for event in events:
            error = getattr(event, "error", None)
            if error is not None:
                raise RecipeError(f"a training failed: {error}")
            if hasattr(event, "result"):
                done += 1
                print(f"{recipe.name}: {done} of {len(study.runs)} trainings", flush=True)
    scores = {(run.method, run.seed): 100 * run.test_score for run in study.results().values()}
    return np.array([[scores[method, seed] for seed in range(SEEDS)] for method in METHODS])


def rises(recipe: Recipe, out: Path, data_dir: Path | None) -> "npt.NDArray[np.float64]":
    """Audit SGD's weights of every seed; return rises of the error in points (batch and held-out, methods, seeds)."""
    every = recipe.train.epochs // 2
    names = recipe.model_copy(update={"methods": ("sgd",), "seeds": 1})
    told = np.full((2, len(METHODS), SEEDS), math.nan)
    for seed in range(SEEDS):
        folder = out / f"sgd-{seed}"
        own = names.model_copy(update={"first_seed": seed})
        run_cell(own, Run("", seed, "sgd"), folder, data_dir=data_dir, keep=True, keep_every=every)
        (folder / "run.yaml").write_text(own.to_yaml())
        place = found(str(folder / "checkpoints" / f"epoch-{every:04d}.pt"), None, (), seed)
        given = loaded(place, BATCHES, None, "validation", data_dir)
        rows = audit(
            given.model, given.batches, adversaries=METHODS, rhos=[RHO], held_out=given.held_out, n=BATCHES, seed=seed
        ).rows()
        by_name = {row["adversary"]: row for row in rows if row["statistics"] == "batch"}
        for i, method in enumerate(METHODS):
            told[:, i, seed] = [by_name[method][f"rise_error_{where}"] for where in ("batch", "held_out")]
        print(f"{recipe.name}: seed {seed} is audited", flush=True)
    return told


def correlation(accuracy: "npt.NDArray[np.float64]", rise: "npt.NDArray[np.float64]") -> dict[str, float]:
    """Return Spearman's correlation of the means over seeds, with a 95 % percentile interval over resampled seeds."""

    def of(seeds: "npt.NDArray[np.int64]") -> float:
        return float(spearmanr(rise[:, seeds].mean(1), accuracy[:, seeds].mean(1)).statistic)

    generator = np.random.default_rng(0)
    drawn = [of(generator.integers(0, SEEDS, SEEDS)) for _ in range(RESAMPLES)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {"spearman": of(np.arange(SEEDS)), "low": float(low), "high": float(high)}


def outcome(held_out: dict[str, float], batch: dict[str, float]) -> str:
    """Return what becomes of the hypothesis."""
    if held_out["high"] < 0:
        return "refuted"
    return "confirmed" if held_out["low"] > 0 and not batch["low"] > 0 else "undecided"


def ranked(setting: str, out: Path, data_dir: Path | None) -> dict[str, Any]:
    """Return everything of a setting."""
    recipe, place = recipe_of(setting), environment(torch.device("cpu"))
    told, accuracy = rises(recipe, out / setting, data_dir), accuracies(recipe, out / setting, data_dir)
    batch, held_out = (correlation(accuracy, one) for one in told)
    return {
        "date": date.today().isoformat(),
        "processor": place["processor"],
        "torch": torch.__version__,
        "rho": RHO,
        "seeds": SEEDS,
        "rise of held-out error": held_out,
        "rise of the batch's error": batch,
        "outcome": outcome(held_out, batch),
        "methods": {
            name: {
                "accuracy": [round(float(value), 3) for value in accuracy[i]],
                "rise_error_batch": round(float(told[0, i].mean()), 3),
                "rise_error_held_out": round(float(told[1, i].mean()), 3),
            }
            for i, name in enumerate(METHODS)
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="+", choices=list(SETTINGS), metavar="SETTING", help=", ".join(SETTINGS))
    parser.add_argument("--out", type=Path, default=Path("studies/ranking"))
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    warm_up()
    for setting in args.settings:
        known = json.loads(args.results.read_text()) if args.results.exists() else {}
        known[setting] = ranked(setting, args.out, args.data_dir)
        args.results.write_text(json.dumps(known, indent=1) + "\n")
        print(f"{setting}: {known[setting]['outcome']}")


if __name__ == "__main__":
    main()
