"""A tuning: a recipe, a method and a search space, in a folder and a storage that several processes can share."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.pruners import MedianPruner
from optuna.trial import FrozenTrial, TrialState

from ..errors import one_line, some
from ..recipe import Recipe, RecipeError, differences, digest, settings
from ..study.files import make_folder, write_text
from ..untrusted import parse_json
from .space import Space
from .storage import JOURNAL, open_storage

__all__ = ["FIRST_SEED", "TOLD", "Tuning", "ended"]

#: First seed of a tuning. A comparison starts at seed 0, so it never uses the seeds of a tuning.
FIRST_SEED = 1000
#: Trials that run to their end before a trial can be pruned.
UNPRUNED = 5
SCHEMA = 1
#: What is searched, for those who read the folder.
TOLD = "tuning.json"


@dataclass(frozen=True)
class Tuning:
    """What is searched, and where. It is the same in every process that takes part.

    Attributes:
        folder: of the tuning; its name is the name of Optuna's study in the storage.
        recipe: without variants.
        method: by its name.
        space: what is searched.
        seeds: number of seeds that a trial trains on.
        trials: number of trials wanted in all.
        storage: Optuna's URL; None is a journal in the folder.
        data_dir: folder of the data sets.
        every: seconds between checkpoints.
        beat: seconds between two signs of life of a trial in a database.
    """

    folder: Path
    recipe: Recipe
    method: str
    space: Space
    seeds: int
    trials: int
    storage: str | None = None
    data_dir: Path | None = None
    every: float = 30.0
    beat: int = 30

    @property
    def silent(self) -> int:
        """Seconds without a sign of life after which a trial in a database counts as dead."""
        return 4 * self.beat

    @contextmanager
    def turn(self, study: optuna.Study) -> Iterator[None]:
        """Hold the turn: one process at a time counts the trials and claims one."""
        if self.storage is None:
            with self._lock:
                yield
            return
        from .database import turn

        with self._lock, turn(self.storage, study):
            yield

    @property
    def answering(self) -> AbstractContextManager[None]:
        """A ``with`` block in which a database that no longer answers is told in one sentence."""
        if self.storage is None:
            return nullcontext()
        from .database import answering

        return answering(self.storage)

    @property
    def _lock(self) -> FileLock:
        """The lock of the processes of this folder."""
        return FileLock(self.folder / ".claim.lock")

    def create(self) -> optuna.Study:
        """Create Optuna's study with the recipe's own setting as its first trial, or open the existing one.

        Raises:
            RecipeError: the folder or the storage holds another tuning, or other files.
        """
        if self.storage is None and self.folder.is_dir():
            foreign = [path.name for path in self.folder.iterdir() if path.name not in (JOURNAL, ".claim.lock")]
            if foreign and not (self.folder / JOURNAL).is_file():
                raise RecipeError(f"--out {self.folder} holds files but no {JOURNAL}: choose an empty folder")
        make_folder(self.folder)
        with self._lock, self.answering:
            study = self.open()
            self.check(study)
        with self.answering, self.turn(study):
            if self.space.default is not None and not study.get_trials(deepcopy=False):
                study.enqueue_trial(self.space.default, {"default": True}, skip_if_exists=True)
        write_text(self.folder / "recipe.yaml", self.recipe.to_yaml())
        told = {"schema": SCHEMA, "method": self.method, "seeds": self.seeds, "trials": self.trials}
        write_text(self.folder / TOLD, json.dumps({**told, "space": self.space.to_dict()}, indent=1) + "\n")
        write_text(self.folder / "README.txt", _README)
        return study

    def open(self) -> optuna.Study:
        """Open Optuna's study.

        The pruner stops a trial whose best score so far is below the median of the other trials at the same epoch. It
        waits until five trials have run to their end, and it never stops a trial in its first third, because with a
        large radius a network learns slowly at first.
        """
        pruner = MedianPruner(n_startup_trials=UNPRUNED, n_warmup_steps=self.recipe.train.epochs // 3)
        try:
            study = optuna.create_study(
                storage=open_storage(self.folder, self.storage, self.beat, self.silent),
                study_name=self.folder.resolve().name,
                direction="maximize",
                pruner=pruner,
                load_if_exists=True,
            )
            self._check_trials(study)
        except RecipeError:
            raise
        except (LookupError, ValueError, TypeError, AttributeError, AssertionError, RecursionError) as error:
            raise RecipeError(
                f"{self.folder / JOURNAL if self.storage is None else '--storage'} is damaged "
                f"({one_line(f'{type(error).__name__}: {error}', 80)}): choose another folder with --out"
            ) from None
        return study

    def _check_trials(self, study: optuna.Study) -> None:
        """Check that the trials that have a score have the parameters of the space.

        Raises:
            ValueError: one has not.
        """
        for trial in study.get_trials(deepcopy=False):
            numbers = [trial.params.get(dimension.name) for dimension in self.space]
            if trial.value is not None and not all(isinstance(number, int | float) for number in numbers):
                raise ValueError(f"trial {trial.number} has a score, and not its parameters")

    @property
    def identity(self) -> dict[str, Any]:
        """What two calls must agree on to share one tuning."""
        recipe = settings(self.recipe.model_dump(mode="json"))
        return {"method": self.method, "seeds": self.seeds, "space": self.space.to_dict(), **recipe}

    @property
    def digest(self) -> str:
        """What each trial carries, so that a trial of another tuning is told apart."""
        parts = [digest(self.recipe), self.method, self.seeds, self.space.to_dict()]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def check(self, study: optuna.Study) -> None:
        """Refuse a study that is not this tuning's, or one that holds trials of another.

        Two processes may have begun it at once on one storage, from folders of one name.

        Raises:
            RecipeError: it is not this tuning's.
        """
        self._check_identity(study)
        for trial in study.get_trials(deepcopy=False):
            if trial.user_attrs.get("recipe", self.digest) != self.digest:
                raise RecipeError(
                    f"--out {self.folder} holds trials of another tuning (trial {trial.number}): choose another "
                    "folder; with a --storage, a folder of another name"
                )

    def _check_identity(self, study: optuna.Study) -> None:
        stored = study.user_attrs.get("bisam")
        if stored is None:
            if study.get_trials(deepcopy=False):
                raise RecipeError(
                    f"the storage holds a study {study.study_name!r} that bisam did not create: choose another --out"
                )
            study.set_user_attr("bisam", json.dumps({"schema": SCHEMA, **self.identity}))
            return
        there = self._stored(stored)
        if (schema := there.pop("schema")) > SCHEMA:
            raise RecipeError(f"--out {self.folder} has the layout {schema}, and this bisam knows {SCHEMA}: update it")
        there |= settings(there)
        differing = [f"{key}={a!r} there, {b!r} now" for key, a, b in differences(there, self.identity)]
        if differing:
            raise RecipeError(
                f"--out {self.folder} holds another tuning ({some(differing)}): choose another folder "
                + ("of another name" if self.storage else "or --restart, which keeps it beside")
            )

    def _stored(self, text: Any) -> dict[str, Any]:
        """Read what the study says of its tuning."""
        try:
            there = parse_json(text)
            if type(there["schema"]) is int:
                return dict(there)
        except (ValueError, TypeError, KeyError):
            pass
        raise RecipeError(f"--out {self.folder}: what its study says of the tuning is damaged: choose another folder")


def ended(trial: FrozenTrial) -> bool:
    """Whether a trial counts: it ran to its end, was pruned, or cannot be trained. All others are tried again."""
    return trial.state in (TrialState.COMPLETE, TrialState.PRUNED) or "error" in trial.user_attrs


_README = f"""\
A tuning of bisam, layout {SCHEMA}. All files are plain; copy the folder to move the tuning.

best.yaml         a recipe with the best setting: `bisam compare best.yaml` is the next step
trials.csv        one line per trial: its state, validation score and setting
figure.png        history, importances, and score against each parameter
recipe.yaml       what was tuned
{TOLD}       the method, the ranges and the number of trials wanted
report.html       written by `bisam report THIS_FOLDER`: history, importances, parallel coordinates, best trial
{JOURNAL}        all trials, as Optuna's journal, unless a --storage holds them; repeat `bisam tune` to continue
trials/           checkpoints of trials that are not finished, and the locks of the processes that run them

The scores are validation scores. The test set was not read.
"""
