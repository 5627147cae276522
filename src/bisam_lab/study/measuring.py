"""Measures that are asked for after runs have ended: of the weights that these have kept."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from filelock import FileLock

from ..errors import some
from ..recipe import Recipe, RecipeError, digest
from ..run.result import Run, RunResult
from .files import read_result, write_result
from .folder import Study

__all__ = ["lacking", "measure_kept"]

_WEIGHTS = Path("checkpoints") / "best.pt"


def lacking(study: Study, done: Mapping[Run, RunResult]) -> list[Run]:
    """Return the finished runs that lack a measure which the recipe asks for, and have kept their weights.

    Raises:
        RecipeError: some have not kept them, and must train again.
    """
    wanted = study.recipe.measures
    without = [run for run, result in done.items() if any(name not in result.measures for name in wanted)]
    lost = [run for run in without if not (study.path(run) / _WEIGHTS).is_file()]
    if lost:
        raise RecipeError(
            f"measures: {len(lost)} finished runs kept no weights to measure ({some([str(run) for run in lost])}): "
            "train these again, with another --out, or with --restart --keep-weights"
        )
    return without


def measure_kept(recipe: Recipe, run: Run, folder: Path, data_dir: Path | None, names: Sequence[str]) -> RunResult:
    """Take the measures that a finished run lacks, of the weights that it has kept, and add them to its result.

    Raises:
        CheckpointError: the weights are damaged.
        RecipeError: the weights are of another recipe.
    """
    from ..measures.taking import take
    from ..run.checkpoint import read
    from ..run.resumable import Training

    with FileLock(folder / ".lock", timeout=0):
        result = read_result(folder, run, digest(recipe), recipe.train.epochs)
        assert result is not None
        kept = read(folder / _WEIGHTS)
        if kept.get("epoch") != result.selected_epoch:
            raise RecipeError(
                f"{folder / _WEIGHTS} is of epoch {kept.get('epoch')}, not of the tested one: train again"
            )
        training = Training(recipe, run.method, run.seed, data_dir)
        training.model.load_state_dict(kept["model"])
        fresh = take(training, [name for name in names if name not in result.measures])
        result = replace(result, measures={**result.measures, **fresh})
        write_result(folder, result)
    return result
