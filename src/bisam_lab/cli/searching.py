"""A tuning while it runs: a line a trial, the best so far, and what is left of the time."""

import time
from collections.abc import Mapping
from contextlib import closing

from optuna.study import Study
from rich.console import Console
from rich.progress import Progress, TaskID

from ..tuning.outcome import Outcome, outcome
from ..tuning.pool import Ended, Failed, Note, run_all
from ..tuning.study import Tuning
from .live import display, lost_processes

__all__ = ["percent", "search", "setting"]


def search(tuning: Tuning, study: Study, jobs: int, timeout: float | None, console: Console) -> bool:
    """Run the missing trials under a live display; return whether none failed.

    Args:
        tuning: what is searched.
        study: as it was created.
        jobs: trials at once.
        timeout: seconds after which the running trials are saved and left.
        console: to write to.
    """
    before = outcome(tuning, study)
    ranges = ", ".join(f"{d.name} {d.low:.4g} to {d.high:.4g}" for d in tuning.space)
    console.print(
        f"{tuning.method} on {tuning.recipe.name}: {ranges}; {tuning.trials} trials in [bold]{tuning.folder}[/bold]"
        + (f", {before.trials} ended before" if before.trials else ""),
        highlight=False,
        soft_wrap=True,
    )
    if tuning.space.default is None:
        console.print("The recipe's own setting lies outside of --space, and is not tried.", style="yellow")
    failed, began = 0, time.monotonic()
    with lost_processes(console) as lost, display(console) as progress:
        whole = progress.add_task("all trials", total=tuning.trials, completed=before.trials)
        lines: dict[int, TaskID] = {}
        with closing(run_all(tuning, study, jobs, timeout)) as events:
            for event in events:
                if isinstance(event, Note):
                    progress.console.print(f"trial {event.trial}: {event.text}", highlight=False, style="yellow")
                elif isinstance(event, Failed):
                    failed += 1
                    progress.console.print(f"[red]{event.text}[/red]", highlight=False)
                elif isinstance(event, Ended):
                    if event.trial in lines:
                        progress.remove_task(lines.pop(event.trial))
                    now = outcome(tuning, study)
                    _ended(event, now, _left(began, before, now, tuning), progress)
                    progress.update(whole, completed=now.trials)
                else:
                    if event.trial not in lines:
                        lines[event.trial] = progress.add_task("", total=event.total)
                    text = f"trial {event.trial}  validation {percent(event.score)}"
                    progress.update(lines[event.trial], completed=event.done, description=text)
    return not failed and not lost


def _ended(event: Ended, now: Outcome, left: str, progress: Progress) -> None:
    pruned = ", pruned" if event.pruned else ""
    best = f"; best {percent(now.best.score)}, trial {now.best.trial}" if now.best is not None else ""
    text = f"trial {event.trial}: {percent(event.score)}{pruned}  {setting(event.settings)}{best}{left}"
    progress.console.print(text, highlight=False, soft_wrap=True)


def _left(began: float, before: Outcome, now: Outcome, tuning: Tuning) -> str:
    missing = tuning.trials - now.trials
    if missing <= 0:
        return ""
    seconds = (time.monotonic() - began) / max(now.trials - before.trials, 1) * missing
    return f"; {seconds:.0f} s left" if seconds < 120 else f"; {seconds / 60:.0f} min left"


def percent(score: float) -> str:
    """Return a share in percent."""
    return f"{100 * score:.2f} %"


def setting(settings: Mapping[str, float]) -> str:
    """Return a setting on one line."""
    return " ".join(f"{name}={value:.4g}" for name, value in settings.items())
