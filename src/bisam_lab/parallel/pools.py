"""Starts what an engine names, and says how many jobs run at once there."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from ..recipe import Recipe
from ..run.environment import cores
from .engine import Engine
from .local import LocalPool
from .pool import Pool

__all__ = ["at_once", "check", "on_cpu", "start", "threads"]


def start(engine: Engine, recipe: Recipe, wanted: int, folder: Path, *modules: str) -> Pool[Any]:
    """Start what runs the jobs of a recipe.

    Args:
        engine: where.
        recipe: of the jobs.
        wanted: number of jobs; more processes are not started here.
        folder: of the study or tuning, which all processes see.
        modules: what every process of this machine has imported when it starts.

    Raises:
        RecipeError: there is no such cluster, or a package is missing.
    """
    if engine.name == "ray":
        from .ray import RayPool

        return RayPool(engine, recipe)
    if engine.name == "slurm":
        from .slurm import SlurmPool

        return SlurmPool(engine, recipe, folder)
    return LocalPool(min(at_once(engine, recipe), wanted), threads(engine, recipe), *modules)


def check(engine: Engine, recipe: Recipe) -> None:
    """Find out whether an engine can be used, before a folder is made for what it shall run.

    Raises:
        RecipeError: there is no such cluster, a package is missing, or a setting is none.
    """
    if engine.name == "ray":
        from .ray import check_room

        check_room(engine, recipe)
    elif engine.name == "slurm":
        from .submitting import cluster_of

        with TemporaryDirectory() as folder:
            cluster_of(engine, recipe, Path(folder))


def at_once(engine: Engine, recipe: Recipe) -> int:
    """Return how many jobs run at once. On this machine a process has a core, or one job has the accelerators."""
    if engine.jobs is not None:
        return engine.jobs
    if engine.name == "ray":
        from .ray import room

        return room(engine, recipe)
    if engine.name == "slurm":
        from .submitting import at_once as of_cluster

        return of_cluster(engine, recipe)
    return max(1, cores() // recipe.engine.devices) if on_cpu(engine, recipe) else 1


def threads(engine: Engine, recipe: Recipe) -> int:
    """Return the threads of a job. They do not depend on how many jobs are left: sums would round differently."""
    return engine.cpus_for(recipe) if engine.name != "local" else max(1, cores() // at_once(engine, recipe))


def on_cpu(engine: Engine, recipe: Recipe) -> bool:
    """Whether the jobs of a recipe compute on a CPU, as far as this machine can tell."""
    if recipe.engine.accelerator == "cpu":
        return True
    return engine.gpus == 0 if engine.gpus is not None else not torch.accelerator.is_available()
