"""The command ``bisam compare``."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape

from ..errors import RecipeError
from ..importing import no_collection
from ..parallel.processes import warm_up
from .completion import complete_method
from .options import (
    CpusPerRun,
    DataDir,
    EngineOption,
    Export,
    GpusPerRun,
    Json,
    LabelNoise,
    Overrides,
    RayAddress,
    RecipeName,
    Slurm,
    Smoke,
    Test,
    engine_of,
    read,
)
from .places import opened
from .restart import STUDY, Restart, restart
from .signals import leaving

if TYPE_CHECKING:
    from .comparing import Comparing

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
        str | None,
        typer.Option(
            metavar="N|auto",
            help="Runs per method; seed k is the same for each. auto: as many as --difference needs, at most 40.",
        ),
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
    engine: EngineOption = "local",
    ray_address: RayAddress = None,
    slurm: Slurm = None,
    cpus_per_run: CpusPerRun = 1,
    gpus_per_run: GpusPerRun = None,
    stack: Annotated[
        Literal["auto", "on", "off"],
        typer.Option(help="Train several runs together in one process: where it is faster, wherever it can be, never."),
    ] = "auto",
    out: Annotated[
        str | None,
        typer.Option(metavar="PATH|URL", help="The study's folder, or s3://BUCKET/FOLDER; studies/RECIPE by default."),
    ] = None,
    again: Restart = False,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Show the means after each run, and wait for the runs of other processes."),
    ] = False,
    measures: Annotated[
        str | None,
        typer.Option(
            help="Also measure on the test set, comma-separated: calibration, corruptions, quantised, forgetting, "
            "worst-class, weight-noise, or all."
        ),
    ] = None,
    keep_weights: Annotated[
        bool, typer.Option("--keep-weights", help="Keep each run's tested weights, to be measured later.")
    ] = False,
    export: Export = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Train METHODS x SEEDS, paired by seed, and say which methods differ.

    Finished runs are never trained again, and interrupted ones continue. So repeat the command after Ctrl-C or a kill,
    or with more seeds. Several processes or machines may run it on one folder; --engine sends the runs to a cluster.

    [dim]bisam compare[/dim]
    [dim]bisam compare digits --methods sgd,sam --seeds 10 sharpness.rho=0.2[/dim]
    [dim]bisam compare pictures/ --model net.py --epochs 50[/dim]
    [dim]bisam compare digits --budget passes[/dim]
    [dim]bisam compare digits --measures calibration,weight-noise[/dim]
    [dim]bisam compare digits --seeds auto --difference 1[/dim]
    [dim]bisam compare cifar10 --data-dir data --label-noise 0.4[/dim]
    [dim]bisam compare table1-cifar10 --data-dir data --smoke[/dim]
    [dim]bisam compare digits --engine ray --ray-address auto[/dim]
    [dim]bisam compare digits --engine slurm --slurm partition=gpu,time=2:00:00 --gpus-per-run 1[/dim]
    """
    warm_up()
    auto = seeds == "auto"
    if measures is not None and not measures.strip():
        raise RecipeError("--measures names none: say --measures calibration, or leave it out")
    chosen = read(
        recipe,
        overrides,
        smoke=smoke,
        label_noise=label_noise,
        methods=None if methods is None else f"[{methods}]",
        seeds=None if auto else _count(seeds),
        measures=None if measures is None else f"[{measures}]",
    )
    if variants is not None:
        from .. import recipe as recipes

        chosen = recipes.only(chosen, variants.split(","))
    from ..registry.methods import canonical

    against = canonical(baseline or chosen.methods[0])
    if against not in chosen.methods:
        raise RecipeError(f"--baseline {against} is not among the methods {', '.join(chosen.methods)}")
    with no_collection():  # here, while the server of the runs imports the engine: --help must be fast
        from ..report.summary import shifts
        from .comparing import Comparing
        from .looking import check_auto, kept_level, look_by_look

    console = Console(stderr=as_json)
    if auto:
        check_auto(chosen, difference)
    usual = Path("studies") / (chosen.name + ("-smoke" if smoke else ""))
    from ..recipe import variant

    several = any(variant(chosen, name).engine.processes > 1 for name in chosen.variants or [""])
    folder, remote = opened(out, usual, STUDY, again=again, several=several)
    where = engine_of(chosen, engine, jobs, ray_address, slurm, cpus_per_run, gpus_per_run)
    if again:
        restart(folder, STUDY, console)
    work = Comparing(
        folder, data_dir, against, test, difference, budget, where, stack, watch, console, keep_weights, remote=remote
    )
    look = None
    with leaving():
        if auto and difference is not None:
            look = look_by_look(work, chosen, difference)
        else:
            work.run(chosen, kept_level(work))
    exported = _exported(folder, console) if export is not None else ""
    if remote is not None:
        remote.take_top()
    if as_json:
        _print_json(work, look)
    else:
        work.show()
        for text in shifts(chosen):
            console.print(text, highlight=False, markup=False)
        console.print(f"Table, figure, CSV, JSON lines and TensorBoard logs: [bold]{escape(work.where)}[/bold]")
    if exported:
        console.print(f"{work.where}/{exported}", highlight=False, markup=False, soft_wrap=True)
    if work.failed:
        raise typer.Exit(1)


def _exported(folder: Path, console: Console) -> str:
    """Write the runs for benchopt, and return the file's name."""
    from ..report.benchopt import export_benchopt

    return export_benchopt(folder, lambda text: console.print(text, highlight=False, markup=False)).name


def _count(seeds: str | None) -> int | None:
    if seeds is not None and not (seeds.isascii() and seeds.isdigit() and 0 < len(seeds) < 10 and int(seeds)):
        raise RecipeError(f"--seeds {seeds[:20]!r} must be a whole number from 1, or auto")
    return None if seeds is None else int(seeds)


def _print_json(work: "Comparing", look: dict[str, object] | None) -> None:
    from dataclasses import asdict

    from ..run.result import plain
    from ..study.files import read_budget

    budget = None if work.budget is None else read_budget(work.folder)
    plan = None if budget is None else budget.to_dict()
    told = {"folder": work.where, "budget": plan, "outcomes": [row.to_dict() for row in work.found]}
    if work.decided:
        told["hypotheses"] = [plain(asdict(one)) for one in work.decided]
    print(json.dumps(told | ({} if look is None else {"look": look}), allow_nan=False))
