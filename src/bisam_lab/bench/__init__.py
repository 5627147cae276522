"""What methods cost on this machine and this model, beside the base optimizer: step time, memory, passes.

Everybody is timed in turn, round by round, in one process, the base optimizer just before each, and only the ratio of
such a pair counts: the machine may be busy or slow down, and does so to both. What cannot run is a row with its reason.
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
from .result import Memory, Passes, Report, Row
from .timing import Runner, in_turn

__all__ = ["Memory", "Passes", "Report", "Row", "bench", "every_method", "measure_memory"]

#: Builds a contestant, given how many of its steps will be timed.
Entry = Callable[[int], Contestant]


def every_method(plain: str) -> list[str]:
    """Return all names there are, each method once, with ``plain`` for the base optimizer alone."""
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
    """Measure the recipe's methods, and their installed peers, beside the recipe's base optimizer.

    Args:
        recipe: its methods compete.
        rounds: how often everybody is timed.
        minimum: seconds that the base optimizer is timed for at least, each time; the others take as many steps.
        peers: whether other packages compete.
        data_dir: where data sets lie.
        progress: told what is being done, and how many of how many things are done.

    Raises:
        RecipeError: data that are missing, a model that cannot be built.
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
        except Exception as error:  # noqa: BLE001 any failure of one contestant is a row, and no end
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


def measure_memory(enter: Entry, problem: Problem) -> Memory:
    """Return what a contestant needs in the second of two cycles, from a state with no gradients to the next such."""
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
        return Memory(peak, meter.live)


def _entries(problem: Problem, peers: bool) -> list[tuple[Row, Entry]]:
    """Return everybody who is to compete: a method's peer stands behind it."""
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
    """Return the base and the others, warm, and how many steps a measurement has."""
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
    """Time everybody once a round, each round beginning with another."""
    for number, order in enumerate(in_turn(list(runners.items()), rounds), start=1):
        for row, runner in order:
            tell(f"round {number} of {rounds}: {row.name}")
            if row in failed:
                continue
            try:
                runner.time_beside(base, steps)
            except Exception as error:  # noqa: BLE001
                failed[row] = _sentence(error)


def _result(row: Row, error: str | None, runner: Runner | None, memory: Memory | None, floor: Memory) -> Row:
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
