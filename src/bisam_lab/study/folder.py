"""A study: a folder of plain files with a recipe and its runs. Several processes may write to it at once."""

import contextlib
import csv
import io
import json
import os
import platform
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from filelock import FileLock, Timeout

from ..budget import Budget, Unit
from ..errors import some
from ..recipe import REGISTERED, Recipe, RecipeError, changed, check_methods, differences, settings, variant
from ..run.result import Run, RunResult
from .digests import Digests, read_recipe
from .files import (
    BUDGET,
    TREES,
    UnreadableError,
    make_folder,
    read_budget,
    read_result,
    read_results,
    write_text,
)
from .layout import README, SCHEMA, check_schema
from .remote import Remote
from .remote_run import WEIGHTS, RemoteRun

__all__ = ["Study"]

#: Files that exist before recipe.yaml does, while another call is creating the study or after it was killed.
_BEGUN = (".lock", ".recipe.", "study.json", ".at-work")
#: Holds a lock for each process that is at work on the study.
_AT_WORK = ".at-work"


class Study:
    """A folder with a recipe and its runs.

    Args:
        folder: created if it does not exist; an existing study continues.
        recipe: what to run.
        data_dir: folder of the data sets.
        note: is called with messages for the user, such as that a damaged run was set aside.
        remote: where the study lies in an object storage; ``folder`` is its working copy on this machine.

    Attributes:
        where: the study lies: the folder, or the URL.
        budget: what each method may spend; None: the methods are compared at equal steps alone.

    Raises:
        RecipeError: the folder holds a study of another recipe, or other files; a hypothesis is about a method that the
            study does not have.
    """

    def __init__(
        self,
        folder: Path,
        recipe: Recipe,
        data_dir: Path | None = None,
        note: Callable[[str], None] = lambda text: None,
        remote: Remote | None = None,
    ) -> None:
        self.folder, self.recipe, self.data_dir, self.note = folder, recipe, data_dir, note
        self.remote, self.where = remote, str(folder) if remote is None else remote.url
        self.budget: Budget | None = None
        self._objects: set[str] = set()  # of the object storage, when the results were read
        check_methods(recipe.hypotheses, recipe.methods)
        stored = folder / "recipe.yaml"
        make_folder(folder)
        if not stored.is_file() and not all(path.name.startswith(_BEGUN) for path in folder.iterdir()):
            raise RecipeError(
                f"--out {self.where} holds files but no recipe.yaml: choose an empty folder or a study's own"
            )
        if (folder / ".claim.lock").exists():
            raise RecipeError(f"--out {self.where} is the folder of a tuning: choose an empty folder or a study's own")
        self._presence = FileLock(folder / _AT_WORK / f"{platform.node()}-{os.getpid()}-{secrets.token_hex(4)}.lock")
        with FileLock(folder / ".lock"):  # another process may be creating the study
            self._put_recipe()

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Keep the folder for this recipe: within, no process can begin a study of another recipe in it.

        Raises:
            RecipeError: a process with another recipe has been faster.
        """
        with FileLock(self.folder / ".lock"):
            self._put_recipe()
            (self.folder / _AT_WORK).mkdir(exist_ok=True)
            self._presence.acquire()
        try:
            yield
        finally:
            self._presence.release()
            if not self._presence.is_locked:  # else another `at_work` of this study goes on
                Path(self._presence.lock_file).unlink(missing_ok=True)

    def _put_recipe(self) -> None:
        """Write the study's own files, unless the folder is another study's. The folder's lock must be held."""
        stored, text = self.folder / "recipe.yaml", self.recipe.to_yaml()
        if self.remote is not None and not self.remote.store.create(stored.name, text.encode()):
            self.remote.bring(("study.json", stored.name))
        if stored.is_file():
            check_schema(self.folder)
            self._check_same(stored)
        write_text(stored, text)
        write_text(self.folder / "study.json", json.dumps({"schema": SCHEMA}) + "\n")
        write_text(self.folder / "README.txt", README)
        if self.remote is not None:
            self.remote.take(stored.name, "study.json", "README.txt")

    @property
    def runs(self) -> list[Run]:
        """All runs, seed by seed, so that the runs of an interrupted study are paired.

        With a budget, a method whose epochs at equal cost are not the recipe's has two runs a seed.
        """
        recipe = self.recipe
        return [
            run
            for name in recipe.variants or [""]
            for seed in range(recipe.first_seed, recipe.first_seed + recipe.seeds)
            for method in recipe.methods
            for run in self._runs(name, seed, method)
        ]

    def _runs(self, variant: str, seed: int, method: str) -> Iterator[Run]:
        yield Run(variant, seed, method)
        if self.budget is not None and self.budget.shares[variant].differs(method):
            yield Run(variant, seed, method, equal_cost=True)

    def path(self, run: Run) -> Path:
        """Return the folder of a run."""
        return self.folder / TREES[run.equal_cost] / run.variant / run.method / f"seed-{run.seed}"

    def there(self, run: Run) -> RemoteRun | None:
        """Return a run in the object storage; None where the study lies in a folder."""
        return None if self.remote is None else RemoteRun.of(self.remote, self.path(run))

    def keeps_weights(self, run: Run) -> bool:
        """Whether a finished run has kept its tested weights."""
        there = self.there(run)
        return (self.path(run) / WEIGHTS).is_file() or (
            there is not None and f"{there.path}/{WEIGHTS}" in self._objects
        )

    def recipe_of(self, run: Run) -> Recipe:
        """Return the recipe of a run: the study's, with the settings of the run's variant and the run's epochs."""
        mine = self.variant(run.variant)
        if not run.equal_cost:
            return mine
        assert self.budget is not None  # for the type checker: `runs` has such runs with a budget only
        return changed(mine, {("train", "epochs"): self.budget.shares[run.variant].epochs_of(run.method)})

    def variant(self, name: str) -> Recipe:
        """Return the study's recipe with the settings of a variant."""
        return variant(self.recipe, name)

    def read_budget(self, unit: Unit) -> Budget:
        """Return the budget that the folder holds, or an empty one.

        Raises:
            RecipeError: it is in another unit, or damaged.
        """
        stored = read_budget(self.folder) or Budget(unit)
        if stored.unit != unit:
            raise RecipeError(
                f"--out {self.where} has a budget in {stored.unit}: say --budget {stored.unit}, or name another folder"
            )
        return stored

    def set_budget(self, unit: Unit, costs: Mapping[str, Mapping[str, float]]) -> Budget:
        """Add the costs of a step, by variant and method, to the budget in the folder, and use it from now on.

        A cost that is there stays, so that a study that goes on or grows, here or elsewhere, has one budget.

        Raises:
            RecipeError: the folder's budget is in another unit, or damaged.
        """
        with FileLock(self.folder / ".lock"):  # another process may be doing the same
            budget = self._extended(unit, costs)
            if self.remote is not None and not self.remote.store.create(BUDGET, (self.folder / BUDGET).read_bytes()):
                self.remote.bring((BUDGET,))
                budget = self._extended(unit, costs)
                self.remote.take(BUDGET)
        self.budget = budget
        return budget

    def _extended(self, unit: Unit, costs: Mapping[str, Mapping[str, float]]) -> Budget:
        budget = self.read_budget(unit)
        for name, each in costs.items():
            budget = budget.extended(name, self.variant(name).train.epochs, each)
        write_text(self.folder / BUDGET, json.dumps(budget.to_dict(), indent=1) + "\n")
        return budget

    def results(self) -> dict[Run, RunResult]:
        """Read the results of this recipe's finished runs. A damaged run is set aside and counts as not finished.

        Raises:
            RecipeError: a result is of another recipe.
        """
        found, digests = {}, Digests(self.recipe, self.budget)
        if self.remote is not None:
            self._objects = self.remote.bring_results()
        for run in self.runs:
            if (there := self.there(run)) is not None:
                there.agree(f"{there.path}/result.json" in self._objects)
            try:
                result = read_result(self.path(run), run, *digests.expected(run))
            except UnreadableError as error:
                self._quarantine(run, str(error))
                continue
            if result is not None:
                found[run] = result
        return found

    def write_results(self) -> list[RunResult]:
        """Write all results in the folder to results.csv and results.jsonl, one line per run; return this recipe's."""
        mine = list(self.results().values())
        if old := sum(not result.recipe for result in mine):
            self.note(
                f"{old} of {len(mine)} results were written before results named their recipe: that they are of this "
                "one is said by recipe.yaml alone"
            )
        rows = [result.to_dict() for result in read_results(self.folder)[0]]
        write_text(self.folder / "results.jsonl", "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))
        columns = [key for key in (rows[0] if rows else {}) if key not in ("history", "environment", "measures")]
        measured = [{f"{m}.{k}": v for m, inner in row["measures"].items() for k, v in inner.items()} for row in rows]
        columns += dict.fromkeys(key for row in measured for key in row)
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, columns, extrasaction="ignore")
        writer.writeheader()
        signed = [{**row, "signatures": " ".join(row["signatures"])} for row in rows]
        writer.writerows(row | numbers for row, numbers in zip(signed, measured, strict=True))
        write_text(self.folder / "results.csv", table.getvalue())
        return mine

    def _quarantine(self, run: Run, reason: str) -> None:
        """Move a damaged run into quarantine/, unless a process is training it."""
        path = self.path(run)
        try:
            with FileLock(path / ".lock", timeout=0):
                parts = path.relative_to(self.folder).parts
                place = self.folder / "quarantine" / "-".join(parts if run.equal_cost else parts[1:])
                number = 1
                while (aside := place.with_name(f"{place.name}.{number}")).exists():
                    number += 1
                aside.parent.mkdir(exist_ok=True)
                os.replace(path, aside)
                (aside / "REASON.txt").write_text(reason + "\n")
                if self.remote is not None:
                    self.remote.set_aside(path.relative_to(self.folder).as_posix(), aside.relative_to(self.folder))
        except (Timeout, FileNotFoundError):
            return
        where = aside if self.remote is None else f"{self.where}/{aside.relative_to(self.folder)}"
        self.note(f"{reason}; the run is set aside in {where} and will be trained again")

    def _check_same(self, stored: Path) -> None:
        """Refuse another recipe, unless no run of the stored one has begun."""
        old, new = (recipe.model_dump(mode="json") for recipe in (read_recipe(stored), self.recipe))
        differing = [
            f"{key}={before!r} there, {after!r} now" for key, before, after in differences(settings(old), settings(new))
        ]
        for name in old["variants"].keys() & new["variants"].keys():
            if old["variants"][name] != new["variants"][name]:
                differing.append(f"variants.{name} has other settings")
        seeds = ("first_seed",) if old["hypotheses"] else ()  # they are decided by the first seeds
        stated = [key for key in (*REGISTERED, *seeds) if old[key] != new[key]]
        if not differing and not stated:
            return
        begun = self.remote is not None  # whether others are at work there, nobody can tell
        if not begun and not self._others_at_work() and not any(_begun(self.folder / tree) for tree in TREES.values()):
            return
        if stated:
            raise RecipeError(
                f"--out {self.where}: {' and '.join(stated)} cannot change once a run has begun, because "
                "what is stated afterwards is no test: choose another folder"
            )
        if differing:
            raise RecipeError(
                f"--out {self.where} holds a study of another recipe ({some(differing)}): choose another folder"
                + (", or --restart, which keeps it beside" if self.remote is None else "")
            )

    def _others_at_work(self) -> bool:
        """Whether another process is at work on the study. The locks of processes that have died are removed."""
        for path in (self.folder / _AT_WORK).glob("*.lock"):
            if path == Path(self._presence.lock_file):
                continue
            try:
                with FileLock(path, timeout=0):
                    path.unlink(missing_ok=True)
            except Timeout:
                return True
        return False


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
