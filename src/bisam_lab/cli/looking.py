"""``--seeds auto``: as many seeds as a difference needs, look by look."""

from rich.console import Console

from ..errors import RecipeError
from ..recipe import Recipe, changed
from ..statistics.sequential import Look, looks, unsettled
from ..study.looks import LastLook, read_look, write_look
from .comparing import Comparing

__all__ = ["check_auto", "kept_level", "look_by_look"]


def check_auto(recipe: Recipe, difference: float | None) -> None:
    """Check that looks can settle a recipe.

    Raises:
        RecipeError: no difference is given, or the recipe has several variants, of which each would need its own seeds.
    """
    if difference is None:
        raise RecipeError("--seeds auto needs --difference: the points that matter to you, such as --difference 1")
    if len(recipe.variants) > 1:
        first = next(iter(recipe.variants))
        raise RecipeError(f"--seeds auto settles one table: choose a variant, such as --variants {first}")


def look_by_look(work: Comparing, recipe: Recipe, difference: float) -> dict[str, object]:
    """Train and compare at each look until every method is settled; return the last look, for JSON."""
    for look in looks():
        work.run(changed(recipe, {("seeds",): look.seeds}), 1 - look.level)
        write_look(work.folder, LastLook(look.seeds, look.level, str(look)))
        if work.failed or work.elsewhere:
            _say(work.console, f"{_first_up(str(look))}: not all of its runs are finished; the same command goes on.")
            return look.to_dict() | {"settled": None}
        rest = [name for outcome in work.found for name in unsettled(outcome.rows, outcome.baseline, look, difference)]
        if not rest or look.last:
            _say(work.console, _end(look, rest, difference))
            return look.to_dict() | {"settled": not rest}
        _say(work.console, f"{_first_up(str(look))}: not settled yet: {', '.join(rest)}.")
    raise AssertionError("the last look ends the loop")


def _end(look: Look, rest: list[str], difference: float) -> str:
    if rest:
        return f"{_first_up(str(look))}: the last one. Not settled: {', '.join(rest)}."
    return (
        f"{_first_up(str(look))}: settled. Every method differs, or {look.seeds} seeds show {difference:g} points in "
        "80 % of studies."
    )


def kept_level(work: Comparing) -> float:
    """Return the confidence level of a study's tables: 95 %, or that of the last look, and say so.

    Raises:
        RecipeError: the file of the looks is damaged.
    """
    look = read_look(work.folder)
    if look is None:
        return 0.95
    _say(work.console, look.sentence)
    return 1 - look.level


def _first_up(text: str) -> str:
    return text[0].upper() + text[1:]


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)
