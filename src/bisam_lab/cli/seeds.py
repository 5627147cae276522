"""``bisam train`` of several seeds, or on a cluster: the runs are jobs of an engine."""

import json
from contextlib import closing
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape

from ..parallel.engine import Engine
from ..recipe import Recipe
from ..report.words import count
from ..run.result import Run, RunResult
from ..study.remote import Remote
from ..study.seeds import run_seeds
from ..study.work import How
from .live import Live, ended_line
from .signals import leaving

__all__ = ["train_seeds"]


def train_seeds(
    recipe: Recipe,
    runs: dict[Run, Path],
    engine: Engine,
    folder: Path,
    how: How,
    console: Console,
    remote: Remote | None = None,
    *,
    as_json: bool,
) -> None:
    """Train runs under a live display, and say how each ended.

    Args:
        recipe: of the runs' variant.
        runs: and the folder of each.
        engine: where they run.
        folder: of all of them.
        how: they are trained.
        console: to write to.
        remote: where the folder lies in an object storage.
        as_json: print the results as JSON instead.

    Raises:
        Exit: with code 1 where a run failed.
    """
    shown = str(folder) if remote is None else remote.url
    console.print(f"{count(len(runs), 'run')} of {recipe.name} in [bold]{escape(shown)}[/bold]", highlight=False)
    found: list[RunResult] = []
    events = run_seeds(recipe, runs, engine, folder, how, remote)
    with leaving(), Live(console, "all runs", len(runs), 0) as live, closing(events):
        for done, ended in enumerate(live.ended(events), 1):
            live.set_done(done)
            live.print(*ended_line(ended))
            found += [] if ended.result is None else [ended.result]
    if as_json:
        results = [result.to_dict() for result in sorted(found, key=lambda result: result.run)]
        print(json.dumps({"folder": shown, "runs": results}, allow_nan=False))
    if live.failed:
        raise typer.Exit(1)
