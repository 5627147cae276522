"""The budget of ``bisam compare``: what each method may spend, found before the first run."""

from pathlib import Path

from ..budget import Budget, Unit
from ..parallel.local import LocalPool
from ..recipe import Recipe
from ..study.folder import Study

__all__ = ["plan", "sentence"]


def plan(study: Study, unit: Unit, threads: int) -> Budget:
    """Give the study a budget: the one that it has, with the costs of the methods that are new in it.

    A worker process finds the costs, for it has imported the engine.

    Args:
        study: keeps the budget in its folder.
        unit: of the costs.
        threads: of the process that finds the costs, as many as of those that train.

    Raises:
        RecipeError: the study has a budget in another unit; the data are missing, or the network or an optimizer cannot
            be built; a method's cost is not known before it is trained.
        BrokenProcessPool: the process was killed, perhaps because memory ran out.
    """
    known = study.read_budget(unit)
    variants = list(study.recipe.variants) or [""]
    wanted = [(name, new) for name in variants if (new := known.missing(name, study.recipe.methods))]
    found: list[dict[str, float]] = []
    if wanted:
        with LocalPool[None](1, threads) as pool:
            found = pool.ask(_costs, [(study.variant(name), unit, new, study.data_dir) for name, new in wanted])
    return study.set_budget(unit, {name: costs for (name, _), costs in zip(wanted, found, strict=True)})


def _costs(recipe: Recipe, unit: Unit, methods: tuple[str, ...], data_dir: Path | None) -> dict[str, float]:
    from ..bench.budget import step_costs  # here: the process that only starts the runs needs no engine

    return step_costs(recipe, unit, methods, data_dir)


def sentence(budget: Budget, variant: str, methods: tuple[str, ...]) -> str:
    """Say what a step of each method costs, and for how many epochs it therefore trains."""
    share = budget.shares[variant]
    each = ", ".join(f"{name} {share.costs[name]:.3g} ({share.epochs_of(name)} epochs)" for name in methods)
    unit = "passes" if budget.unit == "passes" else "seconds of a plain step"
    return f"{f'{variant}: a' if variant else 'A'} step costs, in {unit}: {each}."
