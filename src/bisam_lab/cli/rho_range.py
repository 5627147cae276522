"""The command ``bisam rho-range``."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ..errors import RecipeError
from ..registry.optimizers import PLAIN
from ..run.result import plain
from .completion import complete_method
from .options import DataDir, Json, LabelNoise, Overrides, RecipeName, load, understood

if TYPE_CHECKING:
    from ..tuning.rho_range import Advice

__all__ = ["rho_range"]


def rho_range(
    recipe: RecipeName = "digits",
    overrides: Overrides = None,
    method: Annotated[str, typer.Option(help="A method with a radius.", autocompletion=complete_method)] = "sam",
    seed: Annotated[int, typer.Option(min=0, help="Of initial weights, split, noise and data order.")] = 0,
    label_noise: LabelNoise = None,
    data_dir: DataDir = None,
    as_json: Json = False,
) -> None:
    """Find a range of rho to search, and where to start, in less than one epoch.

    A short plain warm-up, then radii are swept at fixed weights: how far does each turn the gradient?

    [dim]bisam rho-range digits --method bisam-log[/dim]
    [dim]bisam rho-range cifar10 --data-dir data --method asam --json[/dim]
    """
    words = understood(recipe, overrides, label_noise)
    chosen = load(words, methods=f"[{method}]")
    (method,) = chosen.methods
    from ..tuning.rho_range import advise  # here: torch takes seconds to import, and --help must be fast

    if method in PLAIN:
        raise RecipeError(f"--method {method} has no radius: name a sharpness-aware method, such as sam")

    advice = advise(chosen, method, seed, data_dir=data_dir)
    if as_json:
        print(json.dumps(plain(asdict(advice) | {"passes": advice.passes}), allow_nan=False))
        return
    where = [] if data_dir is None else ["--data-dir", str(data_dir)]
    Console(soft_wrap=True).print(
        _text(advice, chosen.train.plain_method, " ".join([str(words), *where]), chosen.name),
        highlight=False,
        markup=False,
    )


def _text(advice: "Advice", alone: str, words: str, study: str) -> str:
    found = advice.range
    method, field = advice.method, f"sharpness.radii.{advice.method}"
    upwards = [row.rho for row in found.rows if found.suggestion <= row.rho <= found.high]
    lines = [
        f"{method}, seed {advice.seed}: {advice.warmup} plain steps, then {found.passes} passes at fixed "
        f"weights, {advice.passes} in all where an epoch has {advice.epoch}. Guessing has loss {advice.chance:.2f}.",
        "",
        str(found),
        "",
        "This is the scale at which a radius matters. A test as short as this cannot see which one generalises best:",
        "in one study it was the smallest of these, in another the largest, and in a third SGD was better than any",
        "(docs/rho-range.md). Go up while validation improves, and stop there:",
    ]
    lines += [
        f"  bisam compare {words} --methods {alone},{method} {field}={r:g} --out studies/{study}-{method}-rho-{r:g}"
        for r in upwards
    ]
    return "\n".join(lines)
