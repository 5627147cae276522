"""What ``bisam compare`` does with a recipe: train the missing runs, compare them, and show what comes out."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table

from ..budget import Unit
from ..parallel.engine import Engine
from ..parallel.events import JobEnded
from ..parallel.pools import threads
from ..recipe import Recipe
from ..report.summary import table, write_summary
from ..report.survives import survives_tables
from ..report.words import count
from ..run.result import RunResult
from ..stack.plan import Stacking
from ..statistics.by_variant import Outcome, outcomes
from ..statistics.registered import Decided, decided, decision_words
from ..statistics.signatures import in_words
from ..study.elsewhere import wait_for_others
from ..study.folder import Study
from ..study.pool import run_study
from ..study.remote import Remote
from .live import Live, ended_line
from .so_far import SoFar

__all__ = ["Comparing"]


@dataclass
class Comparing:
    """A comparison in a folder.

    Attributes:
        folder: of the study.
        data_dir: folder of the data sets.
        against: the baseline.
        test: a key of ``TESTS``.
        difference: in points; the verdict says how many seeds show it.
        budget: unit of the budget that every method may spend; None: the methods are compared at equal steps alone.
        engine: where the runs run.
        stack: whether several runs are trained together.
        watch: show the means after each run, and wait for the runs of other processes.
        console: to write to.
        keep_weights: keep the tested weights of each run.
        found: the comparison, variant by variant.
        decided: what the runs say of the recipe's hypotheses.
        failed: whether a run failed.
        elsewhere: number of runs that another process is training.
        remote: where the study lies in an object storage; the folder is the working copy here.
    """

    folder: Path
    data_dir: Path | None
    against: str
    test: str
    difference: float | None
    budget: Unit | None
    engine: Engine
    stack: Stacking
    watch: bool
    console: Console
    keep_weights: bool = False
    found: list[Outcome] = field(default_factory=list)
    decided: list[Decided] = field(default_factory=list)
    failed: bool = False
    elsewhere: int = 0
    remote: Remote | None = None

    @property
    def where(self) -> str:
        """The study's folder, or its URL."""
        return str(self.folder) if self.remote is None else self.remote.url

    def run(self, recipe: Recipe, level: float = 0.95) -> Study:
        """Train what is missing of the recipe, compare at the confidence level, and write the results."""
        study = Study(self.folder, recipe, self.data_dir, self._say, self.remote)
        with study.at_work():
            if self.budget is not None:
                self._plan(study, self.budget)
            self._train(study)
            while self.watch and self.elsewhere and not self.failed:
                self.console.print(f"Waiting for {count(self.elsewhere, 'run')} of another process.")
                wait_for_others(study)
                self._train(study)
        results = study.write_results()
        self.found = outcomes(results, self.against, self.test, self.difference, study.budget, level, recipe.margin)
        self.decided = decided(
            recipe.hypotheses, results, recipe.stopping, recipe.first_seed, study.budget, round(1 - level, 12)
        )
        write_summary(study, results, self.found, self.decided)
        return study

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False)

    def _plan(self, study: Study, unit: Unit) -> None:
        """Find what each method may spend, and say so."""
        from .budget import plan, sentence

        with Live(self.console, "what a step costs", 1, 0) as live:
            budget = plan(study, unit, threads(self.engine, study.recipe))
        if live.failed:
            raise typer.Exit(1)
        for name in study.recipe.variants or [""]:
            said = sentence(budget, name, study.recipe.methods)
            self.console.print(said, highlight=False, markup=False, soft_wrap=True)

    def _train(self, study: Study) -> None:
        """Train the missing runs under a live display."""
        before, total, self.elsewhere = study.results(), len(study.runs), 0
        done, so_far = len(before), SoFar(study.runs, before.values())
        self.console.print(
            f"{count(len(study.recipe.methods), 'method')} x {count(study.recipe.seeds, 'seed')}"
            + (f" x {count(len(study.recipe.variants), 'variant')}" if study.recipe.variants else "")
            + (", at equal steps and at equal cost," if study.budget is not None else "")
            + f" in [bold]{escape(study.where)}[/bold]"
            + (f", {done} of {total} runs finished before" if done else "")
        )
        runs = run_study(study, self.engine, stack=self.stack, keep_weights=self.keep_weights)
        with Live(self.console, "all runs", total, done) as live, closing(runs) as events:
            show = self._watched(live, so_far)
            for ended in live.ended(events):
                done += 1
                live.set_done(done)
                live.print(*ended_line(ended))
                show(ended)
                self.elsewhere += ended.elsewhere
        self.failed = live.failed
        if self.elsewhere and not self.watch:
            self.console.print(
                f"Another process is training {count(self.elsewhere, 'run')}: the same command shows the results later."
            )

    def _watched(self, live: Live, so_far: SoFar) -> Callable[[JobEnded[RunResult]], None]:
        """Return what shows the means after a run: above the bars, or on a line where there are none."""

        def show(ended: JobEnded[RunResult]) -> None:
            if ended.result is not None:
                so_far.add(ended.result)
                live.set_above(so_far.table()) if self.console.is_terminal else live.print(so_far.line())

        if self.watch and self.console.is_terminal:
            live.set_above(so_far.table())
        return show if self.watch else lambda ended: None

    def show(self) -> None:
        """Show tables and verdicts."""
        for outcome in self.found:
            if outcome.variant:
                self.console.print(f"\n[bold]{escape(outcome.variant)}[/bold]")
            if outcome.rows:
                self._print_whole(table(outcome.rows, outcome.baseline))
            self.console.print(outcome.verdict, highlight=False, markup=False)
            if outcome.cost:
                self.console.print(outcome.cost, highlight=False, markup=False)
            for view in survives_tables(outcome):
                self._print_whole(view)
            for line in in_words(outcome.signatures):
                self.console.print(line, style="yellow", highlight=False, markup=False)
        for one in self.decided:
            self.console.print(f"Stated beforehand: {one.says}", highlight=False, markup=False)
            self.console.print(f"  {decision_words(one)}", highlight=False, markup=False)

    def _print_whole(self, view: Table) -> None:
        """Print a table; a line that is too long is better than a lost column."""
        whole = Measurement.get(self.console, self.console.options.update(max_width=200), view).maximum
        Console(width=max(self.console.width, whole)).print(view, crop=False)
