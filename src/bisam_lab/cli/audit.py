"""The command ``bisam audit``."""

import json
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from ..errors import RecipeError, shown
from ..parallel.processes import warm_up
from .completion import complete_recipe
from .options import CpusPerRun, DataDir, EngineOption, GpusPerRun, Json, RayAddress, Slurm, engine_of
from .places import brought, disk, is_url, path_of
from .restart import Restart, restart
from .signals import leaving

if TYPE_CHECKING:
    from ..auditing.checkpoint import Place

__all__ = ["audit", "sorted_words"]


def audit(
    checkpoints: Annotated[
        list[str],
        typer.Argument(
            metavar="CHECKPOINT... [FIELD=VALUE]...",
            help="Runs' folders, files of weights, or networks: timm:NAME, hf:NAME, my_net.py:Net.",
        ),
    ],
    grid: Annotated[
        bool, typer.Option("--grid", help="CHECKPOINT is a folder: all weights that the finished runs in it have kept.")
    ] = False,
    recipe: Annotated[
        str | None,
        typer.Option(help="Of data and network; by default that of the run.", autocompletion=complete_recipe),
    ] = None,
    adversaries: Annotated[
        str | None, typer.Option(metavar="NAME,NAME", help="Methods, and smoothed, random, projected.")
    ] = None,
    rhos: Annotated[str | None, typer.Option(metavar="RHO,RHO", help="Radii of SAM; 0.05,0.1,0.2 by default.")] = None,
    batches: Annotated[int, typer.Option(min=2, help="Batches to climb, each with a held-out one.")] = 20,
    batch_size: Annotated[int | None, typer.Option(min=2, help="Samples of a batch; the recipe's by default.")] = None,
    held_out: Annotated[
        Literal["validation", "test"] | None,
        typer.Option(help="Which split nobody climbs; validation for runs of bisam, test for other weights."),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=2**32 - 1, help="Of the split; the run's by default.")] = None,
    sharpness: Annotated[
        bool, typer.Option("--sharpness", help="Eigenvalues, trace, critical sharpness, and the loss around w, too.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(parser=disk, metavar="PATH", help="The folder of audit.html and audit.json; audits/NAME."),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Checkpoints at once; by default one per core, or one on a GPU.")
    ] = None,
    engine: EngineOption = "local",
    ray_address: RayAddress = None,
    slurm: Slurm = None,
    cpus_per_run: CpusPerRun = 1,
    gpus_per_run: GpusPerRun = None,
    data_dir: DataDir = None,
    again: Restart = False,
    as_json: Json = False,
) -> None:
    """Let adversaries climb from a checkpoint, and count the mistakes that each of them causes.

    On the batch that is climbed and on held-out data, for each radius, in both modes of BatchNorm, with paired
    intervals against SAM. Of several checkpoints, such as those of bisam train --keep-every, the page shows the course.
    Several are audited at once, here or on a cluster. Ctrl-C shows what is measured so far.

    [dim]bisam audit runs/digits/bisam-log/seed-0[/dim]
    [dim]bisam audit weights.pt --recipe cifar10 model.name=my_net.py:Net --data-dir data[/dim]
    [dim]bisam audit runs/digits/sam/seed-0/checkpoints/epoch-*.pt --adversaries sam,bisam-log+asam --rhos 0.1[/dim]
    [dim]bisam audit studies/cifar10 --grid --data-dir data --engine slurm --slurm partition=gpu[/dim]
    """
    console = Console(stderr=as_json, soft_wrap=True)
    given, fields = sorted_words(checkpoints)
    if engine == "local" and (grid or len(given) > 1):
        warm_up("bisam_lab.auditing.work")
    names, radii = _names(adversaries), _radii(rhos)
    words = _below(given, console) if grid else given
    # here, as all below: torch takes seconds to import, and --help is fast
    from ..auditing.checkpoint import found
    from ..auditing.folder import NUMBERS, PAGE, Audits
    from ..auditing.pool import most_demanding
    from ..auditing.task import Asked, task_of
    from ..report.audit_page import write_audits
    from .auditing import audit_one, audit_several

    places = _told_apart(words, [found(word, recipe, fields, seed) for word in map(_here, words)])
    where = engine_of(most_demanding(places), engine, jobs, ray_address, slurm, cpus_per_run, gpus_per_run)
    asked = Asked(names, radii, batches, batch_size, held_out, sharpness)
    name = Path(given[0]).resolve().name if grid else places[0].name
    folder = out or Path("audits") / re.sub(r"[^\w.=-]+", "-", name)
    if again:
        restart(folder, (NUMBERS,), console)
    command = " ".join(["bisam", *map(shlex.quote, sys.argv[1:])])
    audits = Audits(folder, [task_of(place, asked, folder) for place in places], command, write_audits)

    def show(one: dict[str, Any]) -> None:
        if not as_json:
            text = "\n".join([f"{one['name']}:", *one["verdict"], *one["notes"]])
            console.print(text, highlight=False, markup=False)

    for one in audits.found:
        show(one)
    failed = False
    with leaving():
        if not audits.missing:
            audits.write()  # with the present command
        elif len(places) == 1 and engine == "local":
            audit_one(audits, data_dir, console, show)
        else:
            failed = audit_several(audits, where, data_dir, console, show)
    if as_json:
        print(json.dumps({"folder": str(folder), "audits": audits.found}, allow_nan=False))
    elif audits.found:
        console.print(f"{folder / PAGE}", highlight=False, markup=False)
    if failed:
        raise typer.Exit(1)


def sorted_words(given: Sequence[str]) -> tuple[list[str], list[str]]:
    """Divide the words into checkpoints and overrides of the recipe's fields."""
    fields = [word for word in given if re.match(r"-{0,2}[a-z_-]+(\.[\w-]+)*=", word) and not Path(word).exists()]
    words = [word for word in given if word not in fields]
    if not words:
        raise RecipeError(
            f"CHECKPOINT is missing before {fields[0]}: name a run's folder, a file of weights or a network"
        )
    return words, fields


def _here(word: str) -> str:
    """Return the word of a checkpoint, after bringing a run here that lies in an object storage."""
    return str(brought(word, weights=True)[0]) if is_url(word) else word


def _names(adversaries: str | None) -> tuple[str, ...] | None:
    if adversaries is None:
        return None
    from ..auditing.adversaries import check_names
    from ..registry.methods import canonical

    names = tuple(canonical(name.strip()) for name in adversaries.split(","))
    try:
        check_names(names)
    except (TypeError, ValueError) as error:
        raise RecipeError(str(error)) from None
    return names


def _radii(rhos: str | None) -> tuple[float, ...] | None:
    if rhos is None:
        return None
    from ..auditing.audit import check_radii

    try:
        radii = [float(word) for word in rhos.split(",")]
    except ValueError:
        raise RecipeError(f"--rhos {shown(rhos)} must be numbers: --rhos 0.05,0.1,0.2") from None
    try:
        return tuple(check_radii("--rhos", radii))
    except (TypeError, ValueError) as error:
        raise RecipeError(str(error)) from None


def _below(folders: "Sequence[str]", console: Console) -> list[str]:
    """Return the checkpoints that ``--grid`` finds in folders, and say which runs it leaves out."""
    from ..auditing.grid import kept_below

    found = [kept_below(str(path_of(folder, "--grid reads folders"))) for folder in folders]
    for _, note in found:
        if note:
            console.print(note, highlight=False, markup=False)
    return [file for files, _ in found for file in files]


def _told_apart(words: "Sequence[str]", places: "Sequence[Place]") -> "list[Place]":
    """Return the checkpoints, each with a name of its own.

    Raises:
        RecipeError: one is there twice.
    """
    files = [place.weights.resolve() if place.weights else word for word, place in zip(words, places, strict=True)]
    twice = next((word for i, word in enumerate(words) if files[i] in files[:i]), None)
    if twice is not None:
        raise RecipeError(f"CHECKPOINT {shown(twice)} is there twice: leave it out once")
    names = [place.name for place in places]
    return [
        replace(place, name=f"{place.name} ({word})") if names.count(place.name) > 1 else place
        for word, place in zip(words, places, strict=True)
    ]
