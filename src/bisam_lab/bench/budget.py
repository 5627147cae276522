"""What a step of each method costs, for the budget of a study.

Passes are those of the method's definition, as ``bisam bench`` prints them. Seconds are measured on this machine, as
``bisam bench`` does.
"""

from pathlib import Path

from ..budget import Unit
from ..parallel.checks import check_recipe
from ..recipe import Recipe, RecipeError
from ..run.steps import FORWARD
from . import bench
from .contestants import Problem

__all__ = ["step_costs"]

#: How often each method is timed for a budget in seconds, and least seconds of one measurement of the base optimizer.
ROUNDS, MINIMUM = 5, 0.2


def step_costs(recipe: Recipe, unit: Unit, methods: tuple[str, ...], data_dir: Path | None) -> dict[str, float]:
    """Return the cost of a mean step of each method: in passes, or in seconds relative to the plain base optimizer.

    Raises:
        RecipeError: the data are missing, the network or an optimizer cannot be built, a method fails when it is timed,
            or its cost is not known before it is trained.
    """
    check_recipe(recipe, data_dir, seed=0)
    problem = Problem(recipe, data_dir)
    expected = {method: problem.method(method, 1).expected for method in methods}
    costs = {}
    for method, passes in expected.items():
        if passes is None or passes.low != passes.high:
            raise RecipeError(
                f"--budget {unit} cannot plan {method}: it takes {passes} passes a step, and only its training tells "
                f"how many. Leave it out: --methods {','.join(other for other in recipe.methods if other != method)}"
            )
        costs[method] = passes.low + FORWARD * passes.forward
    return costs if unit == "passes" else _measured(recipe, methods, data_dir)


def _measured(recipe: Recipe, methods: tuple[str, ...], data_dir: Path | None) -> dict[str, float]:
    timed = recipe.model_copy(update={"methods": methods})
    report = bench(timed, rounds=ROUNDS, minimum=MINIMUM, peers=False, data_dir=data_dir)
    for row in report.rows:
        if row.error is not None:
            raise RecipeError(f"--budget seconds: {row.name} failed when it was timed ({row.error}); see `bisam bench`")
    return {row.name: row.quartiles()[1] for row in report.rows}
