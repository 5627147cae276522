"""The command ``bisam compare``."""

import json
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement

from ..errors import RecipeError
from ..importing import no_collection
from ..parallel.processes import warm_up
from .completion import complete_method
from .options import DataDir, Json, LabelNoise, Overrides, RecipeName, Smoke, Test, read
from .restart import STUDY, Restart, restart
from .signals import leaving

if TYPE_CHECKING:
    from ..budget import Unit
    from ..parallel.events import JobEnded
    from ..run.result import RunResult
    from ..stack.plan import Stacking
    from ..statistics.by_variant import Outcome
    from ..study.folder import Study

__all__ = ["compare"]


def compare(
    recipe: RecipeName = "digits",
    overrides: Overrides = None,
    methods: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated; + combines methods, as in sgd,sam,bisam-log+asam.", autocompletion=complete_method
        ),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Runs per method; seed k is the same for each method.")
    ] = None,
    variants: Annotated[str | None, typer.Option(help="Only these of the recipe's variants, comma-separated.")] = None,
    baseline: Annotated[str | None, typer.Option(help="Method to compare with; the first one by default.")] = None,
    test: Test = "t",
    difference: Annotated[
        float | None, typer.Option(min=1e-6, help="In points: the verdict says how many seeds show it.")
    ] = None,
    label_noise: LabelNoise = None,
    smoke: Smoke = False,
    budget: Annotated[
        Literal["passes", "seconds"] | None,
        typer.Option(
            help="Compare at equal cost, too: cheaper methods train for more epochs. The verdict is then of these."
        ),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Runs at once; by default one per core, or one on a GPU.")
    ] = None,
    stack: Annotated[
        Literal["auto", "on", "off"],
        typer.Option(help="Train several runs together in one process: where it is faster, wherever it can be, never."),
    ] = "auto",
    out: Annotated[Path | None, typer.Option(help="The study's folder; studies/RECIPE by default.")] = None,
    again: Restart = False,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Train METHODS x SEEDS, paired by seed, and say which methods differ.

    Finished runs are never trained again, and interrupted ones continue. So repeat the command after Ctrl-C or a kill,
    or with more seeds. Several processes or machines may run it on one folder.

    [dim]bisam compare[/dim]
    [dim]bisam compare digits --methods sgd,sam --seeds 10 sharpness.rho=0.2[/dim]
    [dim]bisam compare digits --budget passes[/dim]
    [dim]bisam compare cifar10 --data-dir data --label-noise 0.4[/dim]
    [dim]bisam compare table1-cifar10 --data-dir data --smoke[/dim]
    """
    warm_up()
    chosen = read(
        recipe,
        overrides,
        smoke=smoke,
        label_noise=label_noise,
        methods=None if methods is None else f"[{methods}]",
        seeds=seeds,
    )
    if variants is not None:
        from .. import recipe as recipes

        chosen = recipes.only(chosen, variants.split(","))
    against = baseline or chosen.methods[0]
    if against not in chosen.methods:
        raise RecipeError(f"--baseline {against} is not among the methods {', '.join(chosen.methods)}")
    with no_collection():  # here, while the server of the runs imports the engine: --help must be fast
        from ..parallel.checks import default_jobs
        from ..report.summary import shifts, write_summary
        from ..statistics.by_variant import outcomes
        from ..study.folder import Study

    console = Console(stderr=as_json)
    folder = out or Path("studies") / (chosen.name + ("-smoke" if smoke else ""))
    if again:
        restart(folder, STUDY, console)
    study = Study(folder, chosen, data_dir, lambda text: console.print(text, markup=False))
    with leaving():
        if budget is not None:
            _plan(study, budget, jobs or default_jobs(chosen), console)
        succeeded = _train(study, jobs or default_jobs(chosen), stack, console)
    results = study.write_results()
    found = outcomes(results, against, test, difference, study.budget)
    write_summary(study, results, found)
    if as_json:
        plan = None if study.budget is None else study.budget.to_dict()
        told = {"folder": str(folder), "budget": plan, "outcomes": [row.to_dict() for row in found]}
        print(json.dumps(told, allow_nan=False))
    else:
        for outcome in found:
            _show(outcome, console)
        for text in shifts(chosen):
            console.print(text, highlight=False, markup=False)
        console.print(f"Table, figure, CSV, JSON lines and TensorBoard logs: [bold]{escape(str(study.folder))}[/bold]")
    if not succeeded:
        raise typer.Exit(1)


def _plan(study: "Study", unit: "Unit", jobs: int, console: Console) -> None:
    """Find what each method may spend, and say so."""
    from ..run.environment import cores
    from .budget import plan, sentence
    from .live import Live

    with Live(console, "what a step costs", 1, 0) as live:
        budget = plan(study, unit, max(1, cores() // jobs))
    if live.failed:
        raise typer.Exit(1)
    for name in study.recipe.variants or [""]:
        console.print(sentence(budget, name, study.recipe.methods), highlight=False, markup=False, soft_wrap=True)


def _train(study: "Study", jobs: int, stack: "Stacking", console: Console) -> bool:
    """Train the missing runs under a live display; return whether none failed."""
    from ..report.words import count
    from ..study.pool import run_study
    from .live import Live

    done, total, elsewhere = len(study.results()), len(study.runs), 0
    console.print(
        f"{count(len(study.recipe.methods), 'method')} x {count(study.recipe.seeds, 'seed')}"
        + (f" x {count(len(study.recipe.variants), 'variant')}" if study.recipe.variants else "")
        + (", at equal steps and at equal cost," if study.budget is not None else "")
        + f" in [bold]{escape(str(study.folder))}[/bold]"
        + (f", {done} of {total} runs finished before" if done else "")
    )
    with Live(console, "all runs", total, done) as live, closing(run_study(study, jobs, stack=stack)) as events:
        for ended in live.ended(events):
            done += 1
            live.set_done(done)
            live.print(*_line(ended))
            elsewhere += ended.elsewhere
    if elsewhere:
        console.print(
            f"Another process is training {count(elsewhere, 'run')}: the same command shows the results later."
        )
    return not live.failed


def _line(ended: "JobEnded[RunResult]") -> tuple[str, str | None]:
    """Return a run's line, and its style."""
    if ended.error is not None:
        return f"{ended.job} failed: {ended.error}; the same command tries it again", "red"
    if ended.result is None:
        return f"{ended.job} is being trained by another process", None
    r = ended.result
    status, style = ("", None) if r.status == "ok" else (f"  {r.status}", "red")
    return f"{ended.job}: test {100 * r.test_score:.2f} % (epoch {r.selected_epoch}, {r.seconds:.1f} s){status}", style


def _show(outcome: "Outcome", console: Console) -> None:
    from ..report.summary import table

    if outcome.variant:
        console.print(f"\n[bold]{escape(outcome.variant)}[/bold]")
    if outcome.rows:
        view = table(outcome.rows, outcome.baseline)
        whole = Measurement.get(console, console.options.update(max_width=200), view).maximum
        # A line that is too long is better than a lost column.
        Console(width=max(console.width, whole)).print(view, crop=False)
    console.print(outcome.verdict, highlight=False, markup=False)
    if outcome.cost:
        console.print(outcome.cost, highlight=False, markup=False)
