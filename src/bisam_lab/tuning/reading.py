"""Read a tuning's folder as it lies there, whichever version of bisam wrote it and whether it is finished or not."""

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from ..errors import RecipeError
from ..untrusted import parse_json, read_text
from .result import TuningResult, summary
from .space import Dimension, Space
from .storage import JOURNAL, read_journal
from .tuning import TOLD

__all__ = ["Found", "TrialRow", "read_tuning"]


@dataclass(frozen=True)
class TrialRow:
    """A trial as a table shows it.

    Attributes:
        trial: its number.
        state: complete, pruned, running, waiting or fail.
        score: on validation, as a fraction; NaN if it has none.
        settings: the numbers it was trained with, by parameter.
        epochs: that it has trained; 0 if it has not begun.
        seconds: it took; NaN if it has not ended.
        default: whether it is the recipe's own setting.
        error: why it could not be trained; empty otherwise.
    """

    trial: int
    state: str
    score: float
    settings: dict[str, float]
    epochs: int
    seconds: float
    default: bool
    error: str


@dataclass(frozen=True)
class Found:
    """What a tuning's folder holds.

    Attributes:
        told: method, seeds, trials and space, as far as the folder tells them.
        space: what is searched.
        result: what was found so far.
        rows: all trials.
    """

    told: dict[str, Any]
    space: Space
    result: TuningResult
    rows: list[TrialRow]


def read_tuning(folder: Path) -> Found:
    """Read the folder's journal, or, of a tuning whose trials lie in a --storage, its table.

    Raises:
        RecipeError: a file is damaged.
    """
    told, journal = _told(folder / TOLD), read_journal(folder)
    if journal is None:
        trials = _from_table(folder / "trials.csv", told)
    else:
        trials, attributes = journal
        told = _of_older_version(attributes) | told
    space = _space(told, trials)
    names = {dimension.name for dimension in space}
    fitting = [trial for trial in trials if trial.params.keys() >= names]
    return Found(told, space, summary(space, fitting), [_row(space, trial) for trial in trials])


def _told(path: Path) -> dict[str, Any]:
    try:
        told = parse_json(read_text(path))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise RecipeError(f"{path} is damaged ({str(error)[:80]}): repeat bisam tune") from None
    if not isinstance(told, dict) or not isinstance(told.get("space"), dict):
        raise RecipeError(f"{path} is damaged (it holds no space): repeat bisam tune")
    return told


def _of_older_version(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the journal says of the tuning: an older version wrote no other file."""
    try:
        told = parse_json(attributes["bisam"])
        return {key: told[key] for key in ("method", "seeds", "space")}
    except (KeyError, TypeError, ValueError):
        return {}


def _space(told: Mapping[str, Any], trials: Sequence[FrozenTrial]) -> Space:
    """Return the search space: as it is told, or as the trials' own distributions have it."""
    own = next((trial.params for trial in trials if "default" in trial.user_attrs), {})
    ranges: dict[str, dict[str, Any]] = told.get("space") or {
        name: {"low": kind.low, "high": kind.high, "log": kind.log}
        for trial in trials
        for name, kind in trial.distributions.items()
        if isinstance(kind, FloatDistribution)
    }
    try:
        return Space(
            Dimension(
                name,
                (),
                float(each["low"]),
                float(each["high"]),
                bool(each["log"]),
                own.get(name),
                bool(each.get("whole")),
            )
            for name, each in ranges.items()
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RecipeError(f"{TOLD} is damaged ({type(error).__name__}: {str(error)[:80]}): repeat bisam tune") from None


def _from_table(path: Path, told: Mapping[str, Any]) -> list[FrozenTrial]:
    try:
        rows = list(csv.DictReader(read_text(path).splitlines()))
        known = ("trial", "state", "score", "epochs", "seconds", "default", "error")
        names = [name for name in (rows[0] if rows else {}) if name not in known]
        values = {name: [float(row[name]) for row in rows if row[name]] for name in names}
        ranges = {name: _range(name, each, told) for name, each in values.items() if each}
        return [_trial(number, row, ranges) for number, row in enumerate(rows)]
    except FileNotFoundError:
        raise RecipeError(f"{path.parent} holds neither {JOURNAL} nor trials.csv: no trial has ended yet") from None
    except (ValueError, KeyError, TypeError) as error:
        raise RecipeError(f"{path} is damaged ({type(error).__name__}: {str(error)[:80]}): repeat bisam tune") from None


def _range(name: str, values: Sequence[float], told: Mapping[str, Any]) -> BaseDistribution:
    stored = told.get("space", {}).get(name, {})
    low, high = float(stored.get("low", min(values))), float(stored.get("high", max(values)))
    log = bool(stored.get("log", low > 0 and high / low > 20))
    return FloatDistribution(low, high, log=log)


def _trial(number: int, row: Mapping[str, str], ranges: Mapping[str, BaseDistribution]) -> FrozenTrial:
    """Return a line of the table as a trial. One that has not ended has no value, and those it cannot place none."""
    state = TrialState[row["state"].upper()]
    scored = state in (TrialState.COMPLETE, TrialState.PRUNED) and row["score"] != ""
    params = {name: float(row[name]) for name in ranges if row[name]}
    trial = create_trial(
        state=state if scored or state == TrialState.FAIL else TrialState.WAITING,
        value=float(row["score"]) if scored else None,
        params=params,
        distributions={name: ranges[name] for name in params},
        user_attrs={
            "seconds": float(row["seconds"] or math.nan),
            "epochs": int(row["epochs"] or 0),
            **({"default": True} if row["default"] == "1" else {}),
            **({"error": row["error"]} if row["error"] else {}),
        },
    )
    trial.number = int(row["trial"] or number)
    return trial


def _row(space: Space, trial: FrozenTrial) -> TrialRow:
    whole = all(dimension.name in trial.params for dimension in space)
    took = trial.duration.total_seconds() if trial.duration else trial.user_attrs.get("seconds", math.nan)
    return TrialRow(
        trial=trial.number,
        state=trial.state.name.lower(),
        score=math.nan if trial.value is None else trial.value,
        settings=space.settings(trial.params) if whole else {},
        epochs=trial.last_step or trial.user_attrs.get("epochs", 0),
        seconds=float(took),
        default="default" in trial.user_attrs,
        error=str(trial.user_attrs.get("error", "")),
    )
