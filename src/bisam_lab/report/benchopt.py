"""A study's runs as benchopt reads them: a parquet file in the form of ``benchopt run``, hardware and versions too.

A run has a row of the objective "test error", and one an epoch of "validation error". benchopt minimises, so a score is
given as what is missing to 100 %. ``benchopt plot`` and ``benchopt.results.read_results`` read the file.
"""

import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import RecipeError
from ..recipe import Recipe, variant
from ..registry.metrics import metric_name
from ..run.result import RunResult
from ..study.digests import read_recipe
from ..study.files import read_results, temporary

__all__ = ["export_benchopt"]

#: Columns that `benchopt plot` asks for, of what a run does not record.
UNRECORDED = (
    *("platform-architecture", "platform-release", "platform-version", "system-ram (GB)"),
    *("version-cuda", "version-numpy", "version-numpy-libs", "version-scipy"),
)


def export_benchopt(folder: Path, note: Callable[[str], None] = lambda text: None) -> Path:
    """Write ``benchopt.parquet`` into a study's folder, and return its path.

    Args:
        folder: of the study.
        note: is called with the results that are left out: those that cannot be read, and those of other variants.

    Raises:
        RecipeError: the folder is not a study's, has no finished run, or pyarrow is not installed.
    """
    if not (folder / "recipe.yaml").is_file():
        raise RecipeError(f"{folder} is not the folder of a study: name one that bisam compare has written")
    try:
        import pandas as pd
        import pyarrow  # noqa: F401 pandas writes parquet by it
    except ModuleNotFoundError as error:
        raise RecipeError(f"--export benchopt needs {error.name}: pip install {error.name}") from None
    recipe = read_recipe(folder / "recipe.yaml")
    results, unreadable = read_results(folder)
    if unreadable:
        note(f"Left out, because they cannot be read: {', '.join(unreadable)}.")
    known = recipe.variants or ("",)
    if others := dict.fromkeys(run.variant for run in results if run.variant not in known):
        note(f"Left out, because recipe.yaml has no such variant: {', '.join(others)}.")
    rows = [row for run in results if run.variant in known for row in _rows(run, recipe)]
    if not rows:
        raise RecipeError(f"{folder} has no finished run to export: repeat bisam compare first")
    path = folder / "benchopt.parquet"
    fresh = temporary(path)
    try:
        pd.DataFrame(rows).to_parquet(fresh, engine="pyarrow", index=False)
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)
    return path


def _rows(run: RunResult, recipe: Recipe) -> Iterator[dict[str, Any]]:
    """Yield the rows of a run: the test's, then those of its epochs. A score that is no number is left out."""
    own = variant(recipe, run.variant)
    about = _about(run, own)
    missing = "error" if run.metric == "accuracy" else f"100 - {metric_name(run.metric)}"
    if math.isfinite(run.test_score):
        yield _row(f"test {missing}", "Run_once", len(run.history), run.seconds, run.test_score, about)
    seconds = 0.0
    for epoch in run.history:
        seconds += epoch.seconds if math.isfinite(epoch.seconds) else 0.0
        if math.isfinite(epoch.validation_score):
            yield _row(f"validation {missing}", "Iteration", epoch.epoch, seconds, epoch.validation_score, about)


def _row(
    objective: str, strategy: str, stop: int, seconds: float, score: float, about: Mapping[str, Any]
) -> dict[str, Any]:
    numbers = {"stop_val": stop, "time": seconds, "objective_value": 100 * (1 - score)}
    return {"objective_name": objective, "sampling_strategy": strategy, **numbers, **about}


def _about(run: RunResult, recipe: Recipe) -> dict[str, Any]:
    """Return the columns that all rows of a run share: who, on what, where."""
    data = f"{recipe.data.name}[{run.variant}]" if run.variant else recipe.data.name
    return {
        "solver_name": f"{run.method} at equal cost" if run.equal_cost else run.method,
        "dataset_name": data,
        "idx_rep": run.seed,
        "base_seed": recipe.first_seed,
        "obj_description": "",
        "solver_description": "",
        "p_solver_epochs": len(run.history),
        "p_solver_lr": recipe.train.lr,
        "p_solver_batch_size": recipe.train.batch_size,
        "p_solver_model": recipe.model.name,
        "p_dataset_label_noise": recipe.data.label_noise,
        "run_status": run.status,
        **_environment(run.environment),
    }


def _environment(told: Mapping[str, Any]) -> dict[str, Any]:
    """Return hardware and versions in benchopt's columns. What a run did not record is left empty."""
    packages = told.get("packages")
    versions = packages if isinstance(packages, dict) else {}
    return {
        **dict.fromkeys(UNRECORDED, ""),
        "run_date": str(told.get("started") or ""),
        "env-OMP_NUM_THREADS": str(told.get("threads") or ""),
        "env-device": str(told.get("device") or ""),
        "platform": str(told.get("system") or ""),
        "system-processor": str(told.get("processor") or ""),
        "system-cpus": told.get("cores") if isinstance(told.get("cores"), int) else 0,
        "version-python": str(told.get("python") or ""),
        **{f"version-{name}": str(number) for name, number in sorted(versions.items())},
        "benchmark-git-tag": str(told.get("git_commit") or ""),
    }
