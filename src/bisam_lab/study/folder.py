"""A study: a folder of plain files with a recipe and its runs. Several processes may write to it at once."""

import csv
import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import yaml
from filelock import FileLock, Timeout

from ..recipe import Recipe, RecipeError, differences, settings, variant
from ..run.result import Run, RunResult
from .files import UnreadableError, make_folder, read_result, read_results, write_text

__all__ = ["SCHEMA", "Study"]

#: Version of the folder's layout. A folder with a newer layout is refused.
SCHEMA = 2
#: Files that exist before recipe.yaml does, while another call is creating the study or after it was killed.
_BEGUN = (".lock", ".recipe.", "study.json")


class Study:
    """A folder with a recipe and its runs.

    Args:
        folder: created if it does not exist; an existing study continues.
        recipe: what to run.
        data_dir: folder of the data sets.
        note: is called with messages for the user, such as that a damaged run was set aside.

    Raises:
        RecipeError: the folder holds a study of another recipe, or other files.
    """

    def __init__(
        self,
        folder: Path,
        recipe: Recipe,
        data_dir: Path | None = None,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.folder, self.recipe, self.data_dir, self.note = folder, recipe, data_dir, note
        stored = folder / "recipe.yaml"
        make_folder(folder)
        if not stored.is_file() and not all(path.name.startswith(_BEGUN) for path in folder.iterdir()):
            raise RecipeError(f"--out {folder} holds files but no recipe.yaml: choose an empty folder or a study's own")
        with FileLock(folder / ".lock"):  # another process may be creating the study
            if stored.is_file():
                check_schema(folder)
                self._check_same(stored)
            write_text(stored, recipe.to_yaml())
            write_text(folder / "study.json", json.dumps({"schema": SCHEMA}) + "\n")
            write_text(folder / "README.txt", _README)

    @property
    def runs(self) -> list[Run]:
        """All runs, seed by seed, so that the runs of an interrupted study are paired."""
        recipe = self.recipe
        return [
            Run(name, seed, method)
            for name in recipe.variants or [""]
            for seed in range(recipe.seeds)
            for method in recipe.methods
        ]

    def path(self, run: Run) -> Path:
        """Return the folder of a run."""
        return self.folder / "runs" / run.variant / run.method / f"seed-{run.seed}"

    def recipe_of(self, run: Run) -> Recipe:
        """Return the recipe of a run: the study's, with the settings of the run's variant."""
        return variant(self.recipe, run.variant)

    def results(self) -> dict[Run, RunResult]:
        """Read the results of this recipe's finished runs. A damaged run is set aside and counts as not finished."""
        found = {}
        for run in self.runs:
            try:
                result = read_result(self.path(run), run)
            except UnreadableError as error:
                self._quarantine(run, str(error))
                continue
            if result is not None:
                found[run] = result
        return found

    def write_results(self) -> list[RunResult]:
        """Write all results in the folder to results.csv and results.jsonl, one line per run; return this recipe's."""
        mine = list(self.results().values())
        rows = [result.to_dict() for result in read_results(self.folder)[0]]
        write_text(self.folder / "results.jsonl", "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))
        columns = [key for key in (rows[0] if rows else {}) if key not in ("history", "environment")]
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.folder / "results.csv", table.getvalue())
        return mine

    def _quarantine(self, run: Run, reason: str) -> None:
        """Move a damaged run into quarantine/, unless a process is training it."""
        path = self.path(run)
        try:
            with FileLock(path / ".lock", timeout=0):
                place = self.folder / "quarantine" / f"{'-'.join(path.relative_to(self.folder / 'runs').parts)}"
                number = 1
                while (aside := place.with_name(f"{place.name}.{number}")).exists():
                    number += 1
                aside.parent.mkdir(exist_ok=True)
                os.replace(path, aside)
                (aside / "REASON.txt").write_text(reason + "\n")
        except (Timeout, FileNotFoundError):
            return
        self.note(f"{reason}; the run is set aside in {aside} and will be trained again")

    def _check_same(self, stored: Path) -> None:
        """Refuse another recipe, unless no run of the stored one has begun."""
        old, new = (recipe.model_dump(mode="json") for recipe in (read_recipe(stored), self.recipe))
        differing = [
            f"{key}={before!r} there, {after!r} now" for key, before, after in differences(settings(old), settings(new))
        ]
        for name in old["variants"].keys() & new["variants"].keys():
            if old["variants"][name] != new["variants"][name]:
                differing.append(f"variants.{name} has other settings")
        if differing and _begun(self.folder / "runs"):
            raise RecipeError(
                f"--out {self.folder} holds a study of another recipe ({'; '.join(differing)}): choose another folder"
            )


def _begun(runs: Path) -> bool:
    """Whether a run is finished, has a checkpoint, or is being trained."""
    if any(any(runs.rglob(f"seed-*/{name}")) for name in ("result.json", "checkpoints/*.pt")):
        return True
    try:
        for lock in runs.rglob("seed-*/.lock"):
            with FileLock(lock, timeout=0):
                pass
    except Timeout:
        return True
    return False


def read_recipe(path: Path) -> Recipe:
    """Read a study's recipe.

    Raises:
        RecipeError: it is damaged, or another version of bisam wrote it.
    """
    try:
        return Recipe.model_validate(yaml.safe_load(path.read_text()))
    except (ValueError, yaml.YAMLError):
        raise RecipeError(f"{path} is damaged or of another version of bisam: choose another folder") from None


def check_schema(folder: Path) -> None:
    """Refuse a folder with a newer layout.

    Raises:
        RecipeError: the layout is newer, or its version cannot be read.
    """
    path = folder / "study.json"
    try:
        schema = int(json.loads(path.read_text())["schema"])
    except FileNotFoundError:
        schema = 1
    except (ValueError, KeyError, TypeError):
        raise RecipeError(f'{path} is damaged: it should say {{"schema": {SCHEMA}}}') from None
    if schema > SCHEMA:
        raise RecipeError(f"{folder} has the layout {schema}, and this bisam knows {SCHEMA}: update it")


_README = f"""\
A study of bisam, layout {SCHEMA}. All files are plain; copy the folder to move the study.

recipe.yaml           what was run; `bisam compare recipe.yaml --out THIS_FOLDER` continues the study
study.json            the version of this layout
runs/[VARIANT/]METHOD/seed-N/
    result.json       of a finished run: scores, learning curve, hardware, versions
    csv/, tensorboard/    the learning curve (tensorboard --logdir runs)
    checkpoints/      of a run that is not finished
    .lock             held by the process that trains the run; several machines may work on one folder
quarantine/           runs whose files were damaged, each with the reason
results.csv           one line per run; results.jsonl: the same, with learning curves
table.md, figure.png  the comparison; `bisam report THIS_FOLDER` makes an HTML page of it
"""
