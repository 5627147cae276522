"""A study: methods x seeds in parallel processes, each run written once it is finished and never run again."""

import csv
import json
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from multiprocessing.queues import Queue
from pathlib import Path
from queue import Empty
from typing import Any, TypeAlias

import torch
import yaml

from .data import load_splits
from .recipe import Recipe, RecipeError
from .result import Epoch, RunResult

__all__ = ["Finished", "Progress", "Run", "Study", "default_jobs"]

#: Fields that may differ between two calls on one folder: they choose runs, and do not change any.
_FREE = ("name", "methods", "seeds")

Events: TypeAlias = "Queue[Progress]"

_events: Events


@dataclass(frozen=True, order=True)
class Run:
    """One cell of a study."""

    seed: int
    method: str

    def __str__(self) -> str:
        return f"{self.method} seed {self.seed}"


@dataclass(frozen=True)
class Progress:
    """An epoch that a run has finished."""

    run: Run
    epoch: Epoch


@dataclass(frozen=True)
class Finished:
    """A run that has ended, with its result or with what went wrong."""

    run: Run
    result: RunResult | None
    error: str | None = None


class Study:
    """A folder that holds a recipe and its finished runs, in plain files.

    Args:
        folder: created where it is missing; a study that is there already goes on.
        recipe: what to run.
        data_dir: where data sets lie that are read from disk.

    Raises:
        RecipeError: the folder holds a study of another recipe, or something else.
    """

    def __init__(self, folder: Path, recipe: Recipe, data_dir: Path | None = None) -> None:
        self.folder, self.recipe, self.data_dir = folder, recipe, data_dir
        stored = folder / "recipe.yaml"
        if stored.is_file():
            if any(folder.glob("runs/*/*/result.json")):  # without a finished run the folder is free
                self._check_same(stored)
        elif folder.is_dir() and any(folder.iterdir()):
            raise RecipeError(f"--out {folder} holds files but no recipe.yaml: choose an empty folder or a study's own")
        folder.mkdir(parents=True, exist_ok=True)
        _write(stored, recipe.to_yaml())
        _write(folder / "README.txt", _README)

    @property
    def runs(self) -> list[Run]:
        """All cells, seed by seed, so that an interrupted study holds whole pairs."""
        return [Run(seed, method) for seed in range(self.recipe.seeds) for method in self.recipe.methods]

    def results(self) -> dict[Run, RunResult]:
        """Read the finished runs; a file that cannot be read is set aside and its run counts as not finished."""
        found = {}
        for run in self.runs:
            path = self._path(run) / "result.json"
            try:
                found[run] = RunResult.from_dict(json.loads(path.read_text()))
            except FileNotFoundError:
                continue
            except (ValueError, KeyError, TypeError):
                os.replace(path, path.with_suffix(".unreadable"))
        return found

    def run(self, jobs: int) -> Iterator[Progress | Finished]:
        """Run what is not finished in ``jobs`` processes, and yield what happens.

        Closing the iterator (an exception or Ctrl-C in its loop does) ends the processes; finished runs stay.

        Raises:
            RecipeError: data that are missing, or too few; an accelerator that is not there.
            BrokenProcessPool: a process was killed, perhaps for want of memory.
        """
        done = self.results()
        pending = [run for run in self.runs if run not in done]
        if not pending:
            return
        _check_accelerator(self.recipe.engine.accelerator)
        load_splits(self.recipe.data, self.data_dir, seed=0)  # what is missing is said here, once and at once
        context = _processes()
        events: Events = context.Queue()
        pool = ProcessPoolExecutor(
            max_workers=min(jobs, len(pending)),
            mp_context=context,
            initializer=_start_worker,
            initargs=(max(1, _cores() // jobs), events),
        )
        try:
            futures: dict[Future[RunResult], Run] = {
                pool.submit(_run, self.recipe, run, self.data_dir, self._path(run)): run for run in pending
            }
            while futures:
                ended, _ = wait(futures, timeout=0.2, return_when=FIRST_COMPLETED)
                yield from _drain(events)
                for future in ended:
                    yield _finished(futures.pop(future), future)
        finally:
            processes = list((pool._processes or {}).values())
            pool.shutdown(wait=False, cancel_futures=True)
            for process in processes:
                process.terminate()

    def write_results(self) -> dict[Run, RunResult]:
        """Write results.csv and results.jsonl, a run a line, and return the results."""
        results = self.results()
        rows = [result.to_dict() for result in results.values()]
        _write(self.folder / "results.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        columns = [key for key in (rows[0] if rows else {}) if key != "history"]
        temporary = self.folder / f".results.{os.getpid()}"
        with temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        os.replace(temporary, self.folder / "results.csv")
        return results

    def _path(self, run: Run) -> Path:
        return self.folder / "runs" / run.method / f"seed-{run.seed}"

    def _check_same(self, stored: Path) -> None:
        try:
            before = Recipe.model_validate(yaml.safe_load(stored.read_text()))
        except ValueError as error:
            raise RecipeError(f"{stored} cannot be read ({error}): choose another --out") from None
        old, new = (
            dict(_flatten(recipe.model_dump(mode="json", exclude=set(_FREE)))) for recipe in (before, self.recipe)
        )
        differing = [f"{key}={old[key]!r} there, {new[key]!r} now" for key in new if old[key] != new[key]]
        if differing:
            raise RecipeError(
                f"--out {self.folder} holds a study of another recipe ({'; '.join(differing)}): choose another"
            )


def default_jobs(recipe: Recipe) -> int:
    """Return how many runs to train at once: one a core on CPUs, one on an accelerator."""
    on_cpu = recipe.engine.accelerator == "cpu" or not torch.accelerator.is_available()
    return _cores() if on_cpu else 1


def _run(recipe: Recipe, run: Run, data_dir: Path | None, folder: Path) -> RunResult:
    from .engine import train  # here, for the parent process never trains

    folder.mkdir(parents=True, exist_ok=True)
    result = train(recipe, run.method, run.seed, data_dir=data_dir, log_dir=folder, progress=_report(run))
    _write(folder / "result.json", json.dumps(result.to_dict()))
    return result


def _report(run: Run) -> Callable[[Epoch], None]:
    return lambda epoch: _events.put(Progress(run, epoch))


def _finished(run: Run, future: "Future[RunResult]") -> Finished:
    error = future.exception()
    if isinstance(error, BrokenProcessPool):
        raise error
    if error is None:
        return Finished(run, future.result())
    return Finished(run, None, str(error) if isinstance(error, RecipeError) else f"{type(error).__name__}: {error}")


def _drain(events: "Events") -> Iterator[Progress]:
    while True:
        try:
            yield events.get_nowait()
        except Empty:
            return


def _processes() -> BaseContext:
    """Return how processes start: from one that has imported the engine already, where the system can fork."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["bisam_lab.engine"])
    return context


def _start_worker(threads: int, events: "Events") -> None:
    """Set up a process: its share of the cores, Ctrl-C left to the parent, and an end when the parent is gone."""
    global _events
    _events, parent = events, multiprocessing.parent_process()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)

    def watch() -> None:
        if parent is not None:
            parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _check_accelerator(name: str) -> None:
    there: dict[str, Callable[[], bool]] = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}
    if name in there and not there[name]():
        raise RecipeError(f"engine.accelerator={name!r}: torch {torch.__version__} finds none here; use auto or cpu")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _flatten(fields: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in fields.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    os.replace(temporary, path)


_README = """\
A study of bisam. All files are plain; copy the folder to move the study.

recipe.yaml           what was run; `bisam compare recipe.yaml --out THIS_FOLDER` goes on where it stopped
runs/METHOD/seed-N/   result.json once the run is finished, and tensorboard/ (tensorboard --logdir runs)
results.csv           a run a line; results.jsonl the same with learning curves
table.md, figure.png  the comparison
"""
