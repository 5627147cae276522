"""The place of this process among those that train one run: what its launcher has written into the environment."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ..errors import RecipeError, shown
from ..recipe import EngineRecipe

__all__ = ["OURS", "LostError", "Place", "check_place", "place", "refuse_several"]

#: How the processes were started: by torchrun, or whatever names ranks as it does, or by Slurm's srun.
Launcher: TypeAlias = Literal["torchrun", "srun"]
#: Variable that ``bisam train`` sets for the processes that it starts itself.
OURS = "BISAM_STARTED_BY"
#: Variables of a process's number, the number of processes, and its number on its node.
_NAMES: dict[Launcher, tuple[str, str, str]] = {
    "torchrun": ("RANK", "WORLD_SIZE", "LOCAL_RANK"),
    "srun": ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
}


class LostError(ConnectionError):
    """Another process of the run has ended."""


@dataclass(frozen=True)
class Place:
    """Which of several processes this is.

    Attributes:
        rank: its number, from 0, over all nodes.
        size: how many there are.
        launcher: who started them.
        ours: whether ``bisam train`` did, and says itself how they ended.
    """

    rank: int
    size: int
    launcher: Launcher
    ours: bool = False


def place(environment: Mapping[str, str] = os.environ) -> Place | None:
    """Return the place of this process; None if nobody has started several.

    One task of Slurm is no place: it may start others itself.

    Raises:
        RecipeError: a variable is no number.
    """
    for launcher, names in _NAMES.items():
        rank, size, _ = names
        if rank not in environment or size not in environment:
            continue
        found = Place(_number(environment, rank), _number(environment, size), launcher, OURS in environment)
        if found.size > 1 or (launcher == "torchrun" and "TORCHELASTIC_RUN_ID" in environment):
            return found
    return None


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment[name]
    if not (text.isascii() and text.isdigit()):
        raise RecipeError(f"the environment has {name}={shown(text)}, which is no number: unset it, or use torchrun")
    return int(text)


def check_place(engine: EngineRecipe) -> Place | None:
    """Return the place of this process, after checking that the recipe has as many.

    Raises:
        RecipeError: the launcher has started another number of processes than the recipe says.
    """
    here = place()
    if here is None or here.size == engine.processes:
        return here
    said = f"engine.devices={engine.devices}" + (f" x engine.nodes={engine.nodes}" if engine.nodes > 1 else "")
    raise RecipeError(
        f"{here.launcher} has started {here.size} processes, and the recipe says {said}: set engine.devices to those "
        "of a node and engine.nodes to the nodes, or start as many"
    )


def refuse_several(engine: EngineRecipe, what: str, instead: str) -> None:
    """Refuse a recipe of several devices where one does the work.

    Raises:
        RecipeError: it has several.
    """
    if engine.processes > 1:
        word = f"engine.devices={engine.devices}" if engine.devices > 1 else f"engine.nodes={engine.nodes}"
        raise RecipeError(f"{word}: {what} takes one device: {instead}")
