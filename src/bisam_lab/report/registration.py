"""What was stated before the first run, from a study's recipe, which may be of another version of bisam."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from ..budget import Budget
from ..recipe import Hypothesis
from ..run.result import RunResult
from ..statistics.registered import Decided, decided
from .words import stopping_words

__all__ = ["registered", "registered_margin", "stopping_of"]


def registered_margin(recipe: Mapping[str, Any]) -> float | None:
    """Return the margin of the recipe; None where there is none that could be one."""
    margin: Any = recipe.get("margin")
    number = type(margin) in (int, float)
    return float(margin) if number and 0 < margin <= 100 else None


def stopping_of(recipe: Mapping[str, Any]) -> str:
    """Return the stopping rule in words; empty without one."""
    rule = _rule(recipe)
    return "" if rule is None else stopping_words(rule)


def registered(
    recipe: Mapping[str, Any], results: Sequence[RunResult], budget: Budget | None, level: float
) -> list[Decided]:
    """Decide the recipe's hypotheses by its finished runs.

    Args:
        recipe: read without validation; an entry that is no hypothesis is left out.
        results: finished runs.
        budget: of the study.
        level: confidence level of the study's tables.
    """
    entries, first = recipe.get("hypotheses"), recipe.get("first_seed")
    found = [one for entry in (entries if isinstance(entries, list) else ()) if (one := _read(entry)) is not None]
    start = first if type(first) is int else 0
    return decided(found, results, _rule(recipe), start, budget, round(1 - level, 12))


def _read(entry: Any) -> Hypothesis | None:
    try:
        return Hypothesis.model_validate(entry)
    except ValidationError:
        return None


def _rule(recipe: Mapping[str, Any]) -> int | str | None:
    rule = recipe.get("stopping")
    return rule if type(rule) in (int, str) else None
