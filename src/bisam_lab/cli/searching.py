"""A tuning while it runs: a line for each trial, with the best one so far and the time left."""

import time
from collections.abc import Mapping
from contextlib import closing

import optuna
from rich.console import Console
from rich.markup import escape

from ..parallel.engine import Engine
from ..parallel.events import JobEnded
from ..tuning.pool import run_trials
from ..tuning.result import TrialResult, TuningResult, read_trials
from ..tuning.tuning import Tuning
from .live import Live, percent

__all__ = ["search", "setting"]


def search(tuning: Tuning, study: optuna.Study, engine: Engine, timeout: float | None, console: Console) -> bool:
    """Run the missing trials under a live display; return whether none failed.

    Args:
        tuning: what is searched.
        study: Optuna's, as :meth:`Tuning.create` returned it.
        engine: where the trials run.
        timeout: seconds after which the running trials save their state and stop.
        console: to write to.
    """
    before = read_trials(tuning, study)
    ranges = ", ".join(f"{d.name} {d.low:.4g} to {d.high:.4g}" for d in tuning.space)
    folder = f"[bold]{escape(str(tuning.folder))}[/bold]"
    console.print(
        f"{tuning.method} on {tuning.recipe.name}: {ranges}; {tuning.trials} trials in {folder}"
        + (f", {before.trials} ended before" if before.trials else ""),
        highlight=False,
        soft_wrap=True,
    )
    if tuning.space.default is None:
        console.print("The recipe's own setting lies outside --space, so it is not tried.", style="yellow")
    began = time.monotonic()
    with (
        Live(console, "all trials", tuning.trials, before.trials) as live,
        closing(run_trials(tuning, study, engine, timeout)) as events,
    ):
        for ended in live.ended(events):
            now = read_trials(tuning, study)
            live.set_done(now.trials)
            live.print(*_line(ended, now, _time_left(began, before, now, tuning)))
    return not live.failed


def _line(ended: JobEnded[TrialResult], now: TuningResult, left: str) -> tuple[str, str | None]:
    """Return a trial's line, and its style."""
    if ended.elsewhere:
        return f"{ended.job}: this process gave no sign of life for long, and another one has taken it", "yellow"
    if ended.result is None:
        return f"{ended.job}: {ended.error}", "red"
    pruned = ", pruned" if ended.result.pruned else ""
    best = f"; best {percent(now.best.score)}, trial {now.best.trial}" if now.best is not None else ""
    return f"{ended.job}: {percent(ended.result.score)}{pruned}  {setting(ended.result.settings)}{best}{left}", None


def _time_left(began: float, before: TuningResult, now: TuningResult, tuning: Tuning) -> str:
    missing = tuning.trials - now.trials
    if missing <= 0:
        return ""
    seconds = (time.monotonic() - began) / max(now.trials - before.trials, 1) * missing
    return f"; {seconds:.0f} s left" if seconds < 120 else f"; {seconds / 60:.0f} min left"


def setting(settings: Mapping[str, float]) -> str:
    """Return a setting on one line."""
    return " ".join(f"{name}={value:.4g}" for name, value in settings.items())
