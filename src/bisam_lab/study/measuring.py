"""Measures that are asked for after runs have ended: of the weights that these have kept."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import some
from ..recipe import Recipe, RecipeError, digest
from ..run.result import Run, RunResult
from .files import read_result, write_result
from .folder import Study
from .hold import Busy, hold
from .remote_run import WEIGHTS, RemoteRun

if TYPE_CHECKING:
    from torch.nn import Module

__all__ = ["lacking", "measure_kept", "too_late", "without_weights"]


def lacking(study: Study, done: Mapping[Run, RunResult]) -> list[Run]:
    """Return the finished runs that lack a measure which the recipe asks for, and have kept their weights.

    Raises:
        RecipeError: some have not kept them, and must train again.
    """
    wanted = study.recipe.measures
    without = [run for run, result in done.items() if any(name not in result.measures for name in wanted)]
    if lost := without_weights(study, without):
        raise RecipeError(
            f"measures: {len(lost)} finished runs kept no weights to measure ({_some(lost)}): "
            "train these again, with another --out, or with --restart --keep-weights"
        )
    return without


def without_weights(study: Study, done: Iterable[Run]) -> list[Run]:
    """Return the finished runs that have not kept their weights."""
    return [run for run in done if not study.keeps_weights(run)]


def too_late(runs: Sequence[Run]) -> str:
    """Say that ``--keep-weights`` came after the end of some runs."""
    return (
        f"{len(runs)} finished runs kept no weights, which is too late now ({_some(runs)}): "
        "--restart --keep-weights trains all again"
    )


def _some(runs: Sequence[Run]) -> str:
    return some([str(run) for run in runs])


def measure_kept(
    recipe: Recipe, run: Run, folder: Path, data_dir: Path | None, names: Sequence[str], there: RemoteRun | None = None
) -> RunResult:
    """Take the measures that a finished run lacks, of the weights that it has kept, and add them to its result.

    Raises:
        RecipeError: the weights are damaged, or of another epoch or network; another process measures the run.
    """
    from ..measures.taking import take
    from ..run.resumable import Training

    try:
        folder = folder if there is None else there.folder
        folder.mkdir(parents=True, exist_ok=True)
        with hold(folder):
            if there is not None:
                there.bring()
                there.bring_weights()
            result = read_result(folder, run, digest(recipe), recipe.train.epochs)
            assert result is not None
            alone = recipe.model_copy(update={"engine": recipe.engine.on_one_device})
            training = Training(alone, run.method, run.seed, data_dir)
            _load(training.model, folder / WEIGHTS, result.selected_epoch)
            fresh = take(training, [name for name in names if name not in result.measures])
            result = replace(result, measures={**result.measures, **fresh})
            write_result(folder, result)
            if there is not None:
                there.put_result()
    except Busy:
        raise RecipeError(f"measures: another process is at work on {run} in {folder}: wait for its end") from None
    return result


def _load(model: "Module", path: Path, epoch: int) -> None:
    """Load the weights of an epoch.

    Raises:
        RecipeError: they are damaged, or of another epoch or network.
    """
    from ..run.checkpoint import CheckpointError, read

    again = "train the run again, with another --out"
    try:
        kept = read(path)
        if kept.get("epoch") != epoch:
            raise RecipeError(f"{path} is of epoch {kept.get('epoch')}, and epoch {epoch} was tested: {again}")
        model.load_state_dict(kept["model"])
    except (CheckpointError, OSError) as error:
        raise RecipeError(f"{error}: {again}") from None
    except (RuntimeError, KeyError, TypeError):
        raise RecipeError(f"{path} does not fit the recipe's network: {again}") from None
