"""The command ``bisam tune``."""

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from ..errors import RecipeError
from ..parallel.processes import warm_up
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
from .places import disk
from .restart import Restart, restart
from .signals import leaving

if TYPE_CHECKING:
    from ..tuning.result import TuningResult
    from ..tuning.space import Dimension
    from ..tuning.tuning import Tuning

__all__ = ["tune"]


def _folder(text: object) -> Path:
    """Return the folder of a tuning, which lies on a disk: its trials' checkpoints are there."""
    return disk(text, "write --out tuning/NAME, and --storage postgresql://HOST/DB for machines that share no disk")


def tune(
    recipe: RecipeName = "digits",
    overrides: Overrides = None,
    method: Annotated[
        str | None,
        typer.Option(help="What to tune; the recipe's last method by default.", autocompletion=complete_method),
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="In all, including those that ended before.")] = 30,
    seeds: Annotated[int, typer.Option(min=1, help="Runs per trial, from seed 1000 on; the score is their mean.")] = 1,
    space: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=LOW:HIGH[:log]", help="A range for rho, mu, alpha, lr or any field; may be repeated."
        ),
    ] = None,
    tune_lr: Annotated[bool, typer.Option("--tune-lr", help="Search the learning rate as well.")] = False,
    of: Annotated[
        str | None, typer.Option("--variant", help="One of the recipe's variants; the first by default.")
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(min=0, metavar="SECONDS", help="Stop after this time; unfinished trials continue later."),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Optuna's storage, such as sqlite:///FILE; by default a file in the folder."),
    ] = None,
    label_noise: LabelNoise = None,
    smoke: Smoke = False,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Trials at once; by default one per core, or one on a GPU.")
    ] = None,
    engine: EngineOption = "local",
    ray_address: RayAddress = None,
    slurm: Slurm = None,
    cpus_per_run: CpusPerRun = 1,
    gpus_per_run: GpusPerRun = None,
    out: Annotated[
        Path | None,
        typer.Option(parser=_folder, metavar="PATH", help="The tuning's folder; tuning/RECIPE-METHOD by default."),
    ] = None,
    again: Restart = False,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Search rho and a method's other numbers for the best validation score.

    The first trial is the recipe's own setting, so the best one is never worse on validation. Trials that lag behind
    are pruned. The test set is not read. Repeat the command to continue after Ctrl-C or a kill, or with more trials.
    Several processes or machines may run it on one folder, or on one --storage with folders of the same name.

    [dim]bisam tune digits --method bisam-tanh --trials 20[/dim]
    [dim]bisam tune cifar10 --data-dir data --method sam --space rho=0.02:0.5:log --tune-lr[/dim]
    [dim]bisam tune glue --method bisam-log --storage postgresql://host/db --out tuning/glue[/dim]
    """
    warm_up("bisam_lab.tuning.pool")
    from ..recipe import changed, variant  # here, as all below: torch takes seconds to import, and --help must be fast

    whole = read(recipe, overrides, smoke=smoke, label_noise=label_noise)
    chosen = variant(whole, of if of is not None else next(iter(whole.variants), ""))
    (method,) = changed(chosen, {("methods",): [method or chosen.methods[-1]]}).methods
    from ..tuning.result import read_trials, write_best, write_trials
    from ..tuning.space import Space
    from ..tuning.storage import JOURNAL
    from ..tuning.tuning import Tuning
    from .searching import search

    searched = Space.of(chosen, method, tune_lr=tune_lr, given=space or [])
    name = "-".join([chosen.name, *([of] if of else []), method, *(["smoke"] if smoke else [])])
    folder = out or Path("tuning") / name.replace("/", "-")
    tuning = Tuning(folder, chosen, method, searched, seeds, trials, storage, data_dir)
    console = Console(stderr=as_json)
    where = engine_of(chosen, engine, jobs, ray_address, slurm, cpus_per_run, gpus_per_run)
    if again:
        if storage is not None:
            raise RecipeError("--restart sets a folder aside, not the trials in a --storage: use another --out")
        restart(folder, (JOURNAL,), console)
    study = tuning.create()
    with leaving():
        succeeded = search(tuning, study, where, timeout, console)
    found = read_trials(tuning, study)
    write_trials(tuning, study)
    write_best(tuning, found, _command())
    if found.best is not None:
        from ..tuning.figure import draw_tuning  # here, because matplotlib takes seconds to import

        title = f"{chosen.name}, {method}: {found.trials} trials"
        draw_tuning(study, found, title, chosen.data.metric, folder / "figure.png")
    if as_json:
        print(json.dumps({**found.to_dict(), "folder": str(folder)}))
    else:
        _show(found, tuning, console)
    if not succeeded:
        raise typer.Exit(1)


def _command() -> str:
    """Return the command line without the storage's URL, which may contain a password."""
    words, kept = iter(sys.argv[1:]), ["bisam"]
    for word in words:
        if word == "--storage":
            next(words, None)
        elif not word.startswith("--storage="):
            kept.append(word)
    return shlex.join(kept)


def _show(found: "TuningResult", tuning: "Tuning", console: Console) -> None:
    from .live import percent
    from .searching import setting

    def say(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True)

    counts = f"{found.trials} trials, {found.pruned} of them pruned"
    if found.running:
        say(f"Other processes are running {found.running} trials: the same command shows them later.")
    if found.best is None:
        say(f"{counts}. None has run to its end, so there is no best one.")
        return
    metric = f"validation {tuning.recipe.data.metric}"
    say(f"{counts}. Best, trial {found.best.trial}: [bold]{setting(found.best.settings)}[/bold]")
    say(f"{metric} {percent(found.best.score)}{_against(found)}")
    if len(tuning.space) > 1:
        say(_importances(found))
    for name, end in found.borders.items():
        say(f"[yellow]{_border(next(d for d in tuning.space if d.name == name), end)}[/yellow]")
    where = [] if tuning.data_dir is None else ["--data-dir", str(tuning.data_dir)]
    say(
        f"The best of {found.trials} scores is too high an estimate, because it was chosen among them. To test the "
        f"setting on other seeds and on the test set:\n  "
        + escape(shlex.join(["bisam", "compare", str(tuning.folder / "best.yaml"), *where]))
    )
    say(f"Recipe, trials, figure: [bold]{escape(str(tuning.folder))}[/bold]")


def _border(dimension: "Dimension", end: str) -> str:
    low, high = (dimension.low / 8, dimension.high) if end == "lower" else (dimension.low, dimension.high * 8)
    wider = f": --space {dimension.name}={low:.4g}:{high:.4g}:log, with another --out" if dimension.log else ""
    return (
        f"The best {dimension.name} lies at the {end} end of its range; a wider range may contain a better one{wider}."
    )


def _against(found: "TuningResult") -> str:
    from .live import percent

    if found.default is None:
        return "; the recipe's own setting is not among the trials."
    if found.default == found.best:
        return ": the recipe's own setting, and none was better."
    return f"; the recipe's own setting {percent(found.default.score)}."


def _importances(found: "TuningResult") -> str:
    from ..tuning.result import ENOUGH

    if found.importances:
        shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in found.importances.items())
        return f"Importances (fANOVA over {len(found.scored)} trials, a rough estimate): {shares}."
    return f"No importances: they need {ENOUGH} trials whose scores differ."
