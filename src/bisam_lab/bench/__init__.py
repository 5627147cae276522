"""The cost of methods on this machine and this model, relative to the base optimizer: step time, memory, passes.

All contestants are timed in turn, round by round, in one process. The base optimizer is timed just before each of them,
and only the ratio of the two counts, because a busy machine slows both down. A contestant that fails is a row with the
reason.
"""

import gc
import itertools
from collections.abc import Callable
from pathlib import Path

import torch

from ..recipe import Recipe
from ..registry.methods import Method, names
from ..registry.optimizers import PLAIN
from ..run.environment import environment
from .contestants import Contestant, Problem
from .memory import metered
from .peers import installed, peer, peer_name
from .result import MemoryUse, PassesPerStep, Report, Row
from .timing import Runner, in_turn

__all__ = ["MemoryUse", "PassesPerStep", "Report", "Row", "bench", "every_method", "measure_memory"]

#: Builds a contestant, given how many of its steps will be timed.
Entry = Callable[[int], Contestant]


def every_method(plain: str) -> list[str]:
    """Return the names of all methods, each once, with ``plain`` as the base optimizer alone."""
    return [name for name in names() if name != "bisam" and (name not in PLAIN or name == plain)]


def bench(
    recipe: Recipe,
    *,
    rounds: int = 10,
    minimum: float = 0.3,
    peers: bool = True,
    data_dir: Path | None = None,
    progress: Callable[[str, int, int], None] = lambda doing, done, total: None,
) -> Report:
    """Measure the recipe's methods, and the same methods of other packages, relative to the recipe's base optimizer.

    Args:
        recipe: says which methods.
        rounds: how often each one is timed.
        minimum: least seconds for a measurement of the base optimizer; the others take as many steps.
        peers: whether to measure other packages.
        data_dir: folder of the data sets.
        progress: is called with the current measurement, the number of finished ones and the number of all.

    Raises:
        RecipeError: data are missing, or the network or the optimizer cannot be built.
    """
    problem = Problem(recipe, data_dir)
    entries = _entries(problem, peers)
    total = 1 + (1 + rounds) * len(entries)
    done = itertools.count()

    def tell(doing: str) -> None:
        progress(doing, next(done), total)

    tell("memory of the base")
    floor = measure_memory(lambda timed: problem.plain(), problem)
    rows, remembered = dict(entries), {}
    failed: dict[Row, str] = {}
    for row, enter in rows.items():
        tell(f"memory of {row.name}")
        try:
            remembered[row] = measure_memory(enter, problem)
        except Exception as error:  # noqa: BLE001 a failure is a row; the others continue
            failed[row] = _sentence(error)
    base, runners, steps = _ready(problem, {row: rows[row] for row in remembered}, rounds, minimum, failed)
    _time(base, runners, steps, rounds, failed, tell)
    return Report(
        recipe=recipe.name,
        model=recipe.model.name,
        parameters=sum(p.numel() for p in problem.weights),
        weights=sum(p.numel() * p.itemsize for p in base.contestant.model.parameters() if p.requires_grad),
        batch=len(problem.batches[0]),
        precision=recipe.engine.precision,
        optimizer=recipe.train.optimizer,
        rounds=rounds,
        steps=steps,
        seconds=tuple(base.seconds),
        memory=floor,
        machine=environment(problem.fabric.device),
        rows=tuple(_result(row, failed.get(row), runners.get(row), remembered.get(row), floor) for row in rows),
    )


def measure_memory(enter: Entry, problem: Problem) -> MemoryUse:
    """Return the memory of a contestant in the second of two cycles, which begins and ends without gradients."""
    device = problem.fabric.device
    batches = itertools.cycle(problem.batches)
    cycle = enter(1).cycle
    with metered(device) as meter:
        contestant = enter(2 * cycle)
        contestant.run(itertools.islice(batches, cycle))
        gc.collect()
        meter.reset()
        contestant.run(itertools.islice(batches, cycle))
        peak = meter.peak
        gc.collect()
        return MemoryUse(peak, meter.live)


def _entries(problem: Problem, peers: bool) -> list[tuple[Row, Entry]]:
    """Return all contestants. A method is followed by its peer."""
    found: list[tuple[Row, Entry]] = []
    package = installed() if peers else None
    for name in problem.recipe.methods:
        method = Method(name, problem.recipe.sharpness.options)
        found.append((Row(name), lambda timed, name=name: problem.method(name, timed)))  # type: ignore[misc]
        theirs = peer_name(method)
        if package is not None and theirs is not None:
            label = theirs + name[len(method.parts[0]) :]
            found.append((Row(label, package), lambda timed, method=method: peer(method, problem)))  # type: ignore[misc]
    return found


def _ready(
    problem: Problem, entries: dict[Row, Entry], rounds: int, minimum: float, failed: dict[Row, str]
) -> tuple[Runner, dict[Row, Runner], int]:
    """Return the base and the others after a warm-up, and the number of steps in a measurement."""
    device = problem.fabric.device
    base = Runner(problem.plain(), problem.batches, device)
    base.warm_up()
    steps = base.steps_for(minimum)
    runners = {}
    for row, enter in entries.items():
        try:
            runner = Runner(enter(rounds * steps), problem.batches, device)
            runner.warm_up()
            runners[row] = runner
        except Exception as error:  # noqa: BLE001
            failed[row] = _sentence(error)
    return base, runners, steps


def _time(
    base: Runner,
    runners: dict[Row, Runner],
    steps: int,
    rounds: int,
    failed: dict[Row, str],
    tell: Callable[[str], None],
) -> None:
    """Time each contestant once a round."""
    for number, order in enumerate(in_turn(list(runners.items()), rounds), start=1):
        for row, runner in order:
            tell(f"round {number} of {rounds}: {row.name}")
            if row in failed:
                continue
            try:
                runner.time_beside(base, steps)
            except Exception as error:  # noqa: BLE001
                failed[row] = _sentence(error)


def _result(row: Row, error: str | None, runner: Runner | None, memory: MemoryUse | None, floor: MemoryUse) -> Row:
    if error is not None or runner is None or memory is None:
        return Row(row.name, row.peer, error)
    return Row(
        row.name,
        row.peer,
        expected=runner.contestant.expected,
        passes=runner.passes,
        seconds=tuple(runner.seconds),
        ratios=tuple(runner.ratios),
        memory=memory,
        extra_peak=memory.peak - floor.peak,
        extra_kept=memory.kept - floor.kept,
    )


def _sentence(error: Exception) -> str:
    if isinstance(error, torch.OutOfMemoryError):
        return "out of memory"
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
