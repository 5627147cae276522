"""The command ``bisam compare``."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement

from .. import recipe as recipes
from ..parallel.processes import warm_up
from ..recipe import RecipeError
from .options import DataDir, Json, LabelNoise, Overrides, RecipeName, Smoke, Test, read
from .signals import leaving

if TYPE_CHECKING:
    from ..statistics.by_variant import Outcome

__all__ = ["compare"]


def compare(
    recipe: RecipeName = "digits",
    overrides: Overrides = None,
    methods: Annotated[
        str | None, typer.Option(help="Comma-separated; parts join by +, as in sgd,sam,bisam-log+asam.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Runs a method; seed k is the same for every method.")
    ] = None,
    variants: Annotated[str | None, typer.Option(help="Only these of the recipe's variants, comma-separated.")] = None,
    baseline: Annotated[str | None, typer.Option(help="Method to compare with; the first one by default.")] = None,
    test: Test = "t",
    difference: Annotated[
        float | None, typer.Option(min=1e-6, help="Points that matter: the verdict says how many seeds show them.")
    ] = None,
    label_noise: LabelNoise = None,
    smoke: Smoke = False,
    jobs: Annotated[int | None, typer.Option(min=1, help="Runs at once; a core each by default, one on a GPU.")] = None,
    out: Annotated[Path | None, typer.Option(help="The study's folder; studies/RECIPE by default.")] = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Train METHODS x SEEDS, paired, and say which differ.

    Finished runs are never run again, and half-finished ones go on: after Ctrl-C, a kill or with more seeds, repeat the
    command. Several processes or machines may run it on one folder.

    [dim]bisam compare[/dim]
    [dim]bisam compare digits --methods sgd,sam --seeds 10 sharpness.rho=0.2[/dim]
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
        chosen = recipes.only(chosen, variants.split(","))
    against = baseline or chosen.methods[0]
    if against not in chosen.methods:
        raise RecipeError(f"--baseline {against} is not among the methods {', '.join(chosen.methods)}")
    from ..statistics.by_variant import outcomes  # here: torch takes seconds to import, and --help should not
    from ..study.folder import Study
    from ..study.pool import default_jobs
    from ..summary import write_summary
    from .live import run_live

    console = Console(stderr=as_json)
    folder = out or Path("studies") / (chosen.name + ("-smoke" if smoke else ""))
    study = Study(folder, chosen, data_dir, _tell(console))
    with leaving():
        succeeded = run_live(study, jobs or default_jobs(chosen), console)
    results = study.write_results()
    found = outcomes(results, against, test, difference)
    write_summary(study, results, found)
    if as_json:
        print(json.dumps({"folder": str(folder), "outcomes": [row.to_dict() for row in found]}, allow_nan=False))
    else:
        for outcome in found:
            _show(outcome, console)
        console.print(f"Table, figure, CSV, JSON lines and TensorBoard logs: [bold]{escape(str(study.folder))}[/bold]")
    if not succeeded:
        raise typer.Exit(1)


def _tell(console: Console) -> Callable[[str], None]:
    return lambda text: console.print(text, markup=False)


def _show(outcome: "Outcome", console: Console) -> None:
    from ..summary import table

    if outcome.variant:
        console.print(f"\n[bold]{escape(outcome.variant)}[/bold]")
    if outcome.rows:
        view = table(outcome.rows, outcome.baseline)
        whole = Measurement.get(console, console.options.update(max_width=200), view).maximum
        Console(width=max(console.width, whole)).print(view, crop=False)  # rather a long line than a column lost
    console.print(outcome.verdict, highlight=False, markup=False)
