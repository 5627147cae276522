"""The command ``bisam train``."""

import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from ..errors import RecipeError
from ..importing import no_collection
from .completion import complete_method
from .options import (
    CpusPerRun,
    DataDir,
    EngineOption,
    GpusPerRun,
    Json,
    LabelNoise,
    Overrides,
    RayAddress,
    RecipeName,
    Slurm,
    Smoke,
    engine_of,
    read,
)
from .places import opened
from .restart import RUN, Restart, restart
from .signals import leaving

if TYPE_CHECKING:
    from ..recipe import Recipe
    from ..run.result import Run
    from ..run.tracking import Tracked
    from ..study.remote import Remote
    from .watch import Watch

__all__ = ["train"]


def train(
    recipe: RecipeName = "digits",
    overrides: Overrides = None,
    method: Annotated[
        str | None,
        typer.Option(help="What to train with; the recipe's last method by default.", autocompletion=complete_method),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of initial weights, split, noise, data order.")] = 0,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Train so many runs, from --seed on, each in a folder of its own.")
    ] = None,
    of: Annotated[str | None, typer.Option("--variant", help="Which of the recipe's variants; the first.")] = None,
    label_noise: LabelNoise = None,
    smoke: Smoke = False,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="PATH|URL", help="The run's folder, or s3://BUCKET/FOLDER; runs/RECIPE/METHOD/seed-N by default."
        ),
    ] = None,
    again: Restart = False,
    every: Annotated[
        float, typer.Option("--checkpoint-every", min=0, metavar="SECONDS", help="0 saves after each step.")
    ] = 30.0,
    keep_every: Annotated[
        int | None, typer.Option(min=1, metavar="EPOCHS", help="Keep weights so often, for bisam audit.")
    ] = None,
    wandb: Annotated[str | None, typer.Option(metavar="PROJECT", help="Log to Weights & Biases, too.")] = None,
    mlflow: Annotated[
        str | None,
        typer.Option(metavar="URI|EXPERIMENT", help="Log to MLflow, too: a server, or an experiment's name."),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Runs at once; by default one per core, or one on a GPU.")
    ] = None,
    engine: EngineOption = "local",
    ray_address: RayAddress = None,
    slurm: Slurm = None,
    cpus_per_run: CpusPerRun = 1,
    gpus_per_run: GpusPerRun = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Train once, with checkpoints, and go on exactly where it stopped.

    Ctrl-C and SIGTERM save and leave with code 130 or 143. After them, or after a kill, the same command goes on; on
    a CPU it ends with the same bits as a run that never stopped. The folder holds result.json, csv/metrics.csv,
    tensorboard/ and checkpoints/best.pt and last.pt.

    [dim]bisam train digits --method bisam-log --seed 3[/dim]
    [dim]bisam train cifar10 --data-dir data --method sam engine.precision=bf16-mixed --wandb my-project[/dim]
    [dim]bisam train digits --method sam --seeds 5 --engine ray[/dim]
    """
    from ..recipe import variant  # here, as all below: torch takes seconds to import, and --help must be fast
    from ..run.place import check_place, place
    from ..run.result import Run
    from ..study.files import UnreadableError, write_text
    from .ranks import alone, leads, speaking, start

    here = place()
    with speaking(here), alone(here):
        whole = read(recipe, overrides, smoke=smoke, label_noise=label_noise, methods=method and f"[{method}]")
        of = of if of is not None else next(iter(whole.variants), "")
        chosen, method = variant(whole, of), whole.methods[-1]
    run = Run(of, seed, method)
    usual = Path("runs") / chosen.name / of / method / f"seed-{seed}"
    several = here is not None or chosen.engine.processes > 1
    folder, remote = opened(out, usual, (*RUN, "run.yaml", "seed-"), again=again, several=several)
    shown = str(folder) if remote is None else remote.url
    beside = ", or --restart keeps this one beside" if remote is None else ""
    console = Console(stderr=as_json, quiet=here is not None and here.rank > 0)
    if seeds is not None or engine != "local":
        _check_several(here, wandb, mlflow, seeds)
        where = engine_of(chosen, engine, jobs, ray_address, slurm, cpus_per_run, gpus_per_run)
        parent = folder.parent if seeds is not None and out is None else folder
        runs = {
            Run(of, number, method): parent / f"seed-{number}" if seeds is not None else parent
            for number in range(seed, seed + (seeds or 1))
        }
        for one, place_of in runs.items():
            _prepare(place_of, _own(chosen, one), console, remote, again=again)
        from ..study.work import How
        from .seeds import train_seeds

        how = How(data_dir, every, keep=True, keep_every=keep_every, patience=where.patience)
        train_seeds(chosen, runs, where, parent, how, console, remote, as_json=as_json)
        return
    own = _own(chosen, run)
    with speaking(here):
        check_place(chosen.engine)
        if leads(here, chosen.engine):
            _prepare(folder, own, console, remote, again=again)
            console.print(f"{escape(f'{run} of {chosen.name} in')} [bold]{escape(shown)}[/bold]", highlight=False)
        if here is None and chosen.engine.processes > 1:
            with leaving():
                start(chosen.engine)
            return
        with no_collection():
            from ..datasets.registry import shift
            from ..run.checkpoint import CheckpointError
            from ..study.cell import Busy, run_cell
            from ..study.remote_run import RemoteRun
            from ..study.spread import run_spread
        from .watch import Watch

        silent = here is not None and (here.ours or here.rank > 0)
        leading = here is None or here.rank == 0
        with (
            leaving(silent=silent),
            Watch(chosen.train.epochs, console, patient=here is not None) as watch,
            _tracked(mlflow if leading else None, chosen, run, folder, watch) as tracked,
        ):
            options: dict[str, Any] = {
                "data_dir": data_dir,
                "observer": tracked or watch,
                "every": every,
                "keep_every": keep_every,
                "wandb": wandb,
            }
            try:
                if chosen.engine.processes > 1:
                    result = run_spread(chosen, run, folder, keep=True, **options)
                else:
                    there = None if remote is None else RemoteRun.of(remote, folder)
                    result = run_cell(chosen, run, folder, keep=True, there=there, **options)
            except Busy:
                raise RecipeError(f"--out {shown}: another process is training this run") from None
            except UnreadableError as error:
                raise RecipeError(f"{error}: choose another folder with --out{beside}") from None
            except CheckpointError as error:
                raise RecipeError(f"{error}{beside}") from None
            if tracked is not None:
                tracked.ended(result)
    if here is not None and here.rank > 0:
        return
    write_text(folder / "run.yaml", own)
    if as_json:
        print(json.dumps({"folder": shown, **result.to_dict()}, allow_nan=False))
        return
    if not result.recipe:
        console.print(f"This result was written before results named their recipe. {escape(shown)} may hold another's.")
    mark = "" if result.status == "ok" else f" [red]{result.status}[/red]"
    console.print(
        f"{result.metric}: test {100 * result.test_score:.2f} %, validation {100 * result.validation_score:.2f} % "
        f"(epoch {result.selected_epoch} of {len(result.history)}, {result.seconds:.0f} s){mark}",
        highlight=False,
    )
    for signature in result.signatures:
        console.print(signature.advice, style="yellow", highlight=False, markup=False)
    if text := shift(chosen.data.name):
        console.print(text, highlight=False, markup=False)


def _own(recipe: "Recipe", run: "Run") -> str:
    """Return a run's recipe, as a file holds it."""
    mine = {"methods": (run.method,), "seeds": 1, "first_seed": run.seed, "hypotheses": (), "stopping": None}
    return recipe.model_copy(update=mine).to_yaml()


def _check_several(here: object, wandb: str | None, mlflow: str | None, seeds: int | None) -> None:
    """Refuse what follows one run in this process alone.

    Raises:
        RecipeError: with what to leave out.
    """
    asked = "--seeds" if seeds is not None else "--engine"
    for option, given in (("--wandb", wandb), ("--mlflow", mlflow)):
        if given is not None:
            raise RecipeError(f"{option} follows one run of this process: leave it out, or {asked}")
    if here is not None:
        raise RecipeError(f"{asked} starts processes of its own: call it without torchrun or srun")


def _tracked(
    given: str | None, recipe: "Recipe", run: "Run", folder: Path, watch: "Watch"
) -> "AbstractContextManager[Tracked | None]":
    if given is None:
        return nullcontext()
    from ..run.tracking import Tracked  # here: the client takes seconds to import

    return Tracked(given, recipe, run, folder, watch)


def _prepare(folder: Path, own: str, console: Console, remote: "Remote | None", *, again: bool) -> None:
    """Make the run's folder, and leave its recipe in it.

    Args:
        folder: of the run.
        own: the recipe, as a file holds it.
        console: to write to.
        remote: what the folder is a working copy of, or lies in such a one; it has been looked at.
        again: whether what is there is moved aside.

    Raises:
        RecipeError: the folder cannot be made, or holds something else.
    """
    from ..study.files import make_folder, write_text

    if again:
        restart(folder, RUN, console)
    make_folder(folder)
    if (
        remote is None
        and any(folder.iterdir())
        and not any((folder / name).exists() for name in (".lock", "checkpoints", "result.json"))
    ):
        raise RecipeError(f"--out {folder} holds files of another kind: choose an empty folder or a run's own")
    if (folder / "recipe.yaml").exists():
        raise RecipeError(f"--out {folder} is the folder of a study or a tuning: choose an empty folder or a run's own")
    (folder / "checkpoints").mkdir(exist_ok=True)
    if not (folder / "run.yaml").exists():  # another recipe is refused below, and leaves what is there
        write_text(folder / "run.yaml", own)
        if remote is not None:
            remote.store.create((folder / "run.yaml").relative_to(remote.folder).as_posix(), own.encode())
