"""The command ``bisam audit``."""

import json
import os
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from ..errors import RecipeError, one_line, shown
from ..untrusted import parse_json, read_text
from .completion import complete_recipe
from .options import DataDir, Json
from .places import brought, disk, is_url
from .restart import Restart, restart
from .signals import leaving

if TYPE_CHECKING:
    from ..auditing.checkpoint import Place

__all__ = ["audit", "sorted_words"]

#: Files of an audit's folder.
PAGE, NUMBERS = "audit.html", "audit.json"


def audit(
    checkpoints: Annotated[
        list[str],
        typer.Argument(
            metavar="CHECKPOINT... [FIELD=VALUE]...",
            help="Runs' folders, files of weights, or networks: timm:NAME, hf:NAME, my_net.py:Net.",
        ),
    ],
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
    data_dir: DataDir = None,
    again: Restart = False,
    as_json: Json = False,
) -> None:
    """Let adversaries climb from a checkpoint, and count the mistakes that each of them causes.

    On the batch that is climbed and on held-out data, for each radius, in both modes of BatchNorm, with paired
    intervals against SAM. Of several checkpoints, such as those of bisam train --keep-every, the page shows the course.
    Ctrl-C shows what is measured so far.

    [dim]bisam audit runs/digits/bisam-log/seed-0[/dim]
    [dim]bisam audit weights.pt --recipe cifar10 model.name=my_net.py:Net --data-dir data[/dim]
    [dim]bisam audit runs/digits/sam/seed-0/checkpoints/epoch-*.pt --adversaries sam,bisam-log+asam --rhos 0.1[/dim]
    """
    words, fields = sorted_words(checkpoints)
    asked = _Asked(_names(adversaries), _radii(rhos), batches, batch_size, held_out, sharpness)
    from ..auditing.checkpoint import found  # here, as all below: torch takes seconds to import, and --help is fast

    places = _told_apart(words, [found(word, recipe, fields, seed) for word in map(_here, words)])
    folder = out or Path("audits") / re.sub(r"[^\w.=-]+", "-", places[0].name)
    console = Console(stderr=as_json, soft_wrap=True)
    if again:
        restart(folder, (NUMBERS,), console)
    done = []
    with leaving():
        for one in _all(places, asked, folder, data_dir, console):
            done.append(one)
            if not as_json:
                text = "\n".join([f"{one['name']}:", *one["verdict"], *one["notes"]])
                console.print(text, highlight=False, markup=False)
            if one["stopped"]:
                raise KeyboardInterrupt
    if as_json:
        print(json.dumps({"folder": str(folder), "audits": done}, allow_nan=False))
    else:
        console.print(f"{folder / PAGE}", highlight=False, markup=False)


@dataclass(frozen=True)
class _Asked:
    """What decides what comes out of an audit, beside its checkpoint."""

    adversaries: tuple[str, ...] | None
    rhos: tuple[float, ...] | None
    batches: int
    batch_size: int | None
    held_out: Literal["validation", "test"] | None
    sharpness: bool


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
    with _in_one_sentence():
        check_names(names)
    return names


def _radii(rhos: str | None) -> tuple[float, ...] | None:
    if rhos is None:
        return None
    from ..auditing.audit import check_radii

    try:
        radii = [float(word) for word in rhos.split(",")]
    except ValueError:
        raise RecipeError(f"--rhos {shown(rhos)} must be numbers: --rhos 0.05,0.1,0.2") from None
    with _in_one_sentence():
        return tuple(check_radii("--rhos", radii))


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


def _all(
    places: "Sequence[Place]", asked: _Asked, folder: Path, data_dir: Path | None, console: Console
) -> Iterator[dict[str, Any]]:
    """Audit one checkpoint after the other, and write page and numbers after each. What is there is not done again.

    Raises:
        RecipeError: the folder cannot be written, or holds other files, or audits that the command does not name,
            which would be lost.
    """
    from ..report.audit_page import write_audits
    from ..study.files import make_folder, write_text

    make_folder(folder)
    if not os.access(folder, os.W_OK):
        raise RecipeError(f"--out {folder} cannot be written: name another folder")
    keys = [_key(place, asked) for place in places]
    before = _before(folder)
    lost = [one for one in before if one.get("asked") not in keys]
    if lost:
        name = shown(lost[0].get("name"), 40)
        raise RecipeError(
            f"--out {folder} holds an audit with other checkpoints, options or version ({name}): choose another --out, "
            "or --restart keeps it beside"
        )
    command = " ".join(["bisam", *map(shlex.quote, sys.argv[1:])])
    there = {i: one for i, key in enumerate(keys) for one in before if one["asked"] == key and not one.get("stopped")}
    for i, place in enumerate(places):
        found = there.get(i) or _audited(place, asked, folder, data_dir, console)
        there[i] = found | {"name": place.name, "epoch": place.epoch, "asked": keys[i]}
        audits = [there[number] for number in sorted(there)]  # with those that come later and were done before
        write_text(folder / NUMBERS, json.dumps({"command": command, "audits": audits}, allow_nan=False) + "\n")
        write_audits(audits, command, folder / PAGE)
        yield there[i]


def _before(folder: Path) -> list[dict[str, Any]]:
    """Return the audits that a folder holds.

    Raises:
        RecipeError: it holds files of another kind.
    """
    path = folder / NUMBERS
    if not path.exists():
        if any(not file.name.startswith(".") for file in folder.iterdir()):
            raise RecipeError(f"--out {folder} holds files of another kind: choose an empty folder or an audit's own")
        return []
    try:
        found = parse_json(read_text(path))
    except ValueError as error:
        raise RecipeError(f"{path} cannot be read ({error}): choose another folder with --out") from None
    audits = found.get("audits") if isinstance(found, dict) else None
    return [one for one in audits if isinstance(one, dict)] if isinstance(audits, list) else []


def _key(place: "Place", asked: _Asked) -> dict[str, Any]:
    """Return what an audit depends on, as JSON has it."""
    file = None if place.weights is None else [str(place.weights.resolve()), *_stamp(place.weights)]
    recipe = place.recipe.model_dump(mode="json")
    key = {"bisam": version("bisam"), "seed": place.seed, "weights": file, "recipe": recipe}
    known: dict[str, Any] = json.loads(json.dumps(key | asdict(asked)))
    return known


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _audited(place: "Place", asked: _Asked, folder: Path, data_dir: Path | None, console: Console) -> dict[str, Any]:
    from ..auditing import RHOS
    from ..auditing import audit as measure
    from ..auditing.adversaries import DEFAULT
    from ..auditing.checkpoint import loaded
    from ..run.environment import environment
    from .live import display

    split = asked.held_out or ("validation" if place.own else "test")
    with display(console) as progress:
        task = progress.add_task(f"{place.name}: loading", total=None)
        given = loaded(place, asked.batches, asked.batch_size, split, data_dir)
        if given.note:
            console.print(given.note, highlight=False, markup=False)

        def show(done: int, total: int) -> None:
            progress.update(task, description=place.name, completed=done, total=total)
            if not console.is_terminal and 4 * done // total > 4 * (done - 1) // total:
                console.print(f"{place.name}: {100 * done // total} %", highlight=False, markup=False)

        with _in_one_sentence(f"{place.name}: "):
            found = measure(
                given.model,
                given.batches,
                adversaries=asked.adversaries or DEFAULT,
                rhos=asked.rhos or RHOS,
                held_out=given.held_out,
                n=asked.batches,
                name=place.name,
                seed=place.seed,
                sharpness=asked.sharpness,
                progress=show,
                keep=True,
                journal=folder / ".measured.pt",
            )
    return found.to_dict() | {"environment": environment(next(given.model.parameters()).device)}


@contextmanager
def _in_one_sentence(where: str = "") -> Iterator[None]:
    """Turn what is raised inside into an error that the user can mend."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise RecipeError(f"{where}{error}") from None
    except MemoryError:
        raise RecipeError(f"{where}memory ran out: write a smaller --batch-size") from None
    except RuntimeError as error:
        if "memory" in str(error):  # torch has no class of its own for it on the CPU
            raise RecipeError(f"{where}memory ran out: write a smaller --batch-size") from None
        raise RecipeError(f"{where}the network raised {type(error).__name__}: {one_line(str(error), 90)}") from None
