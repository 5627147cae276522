"""The search space of a tuning: a few numbers of the recipe, each with a range.

By default a range is logarithmic. It reaches from an eighth of the published value to eight times that value, and at
least from a quarter of the recipe's own value to four times that one. So the recipe's own setting lies inside, and can
be the first trial.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

from optuna.trial import Trial

from bisam.bounds import as_bound, takes_alpha

from ..recipe import Recipe, RecipeError, changed
from ..registry.methods import Method

__all__ = ["Dimension", "Space"]

#: A best value that lies closer to an end of its range, as a fraction of the range, is reported.
BORDER = 0.05


@dataclass(frozen=True)
class Dimension:
    """A number that is searched.

    Attributes:
        name: ``rho``, ``mu``, ``alpha``, ``lr``, or the dotted name of a field.
        path: keys of the recipe's field.
        low: lower end of the range.
        high: upper end of the range.
        log: whether it is searched on a logarithmic scale.
        default: the recipe's own value; None if the recipe sets none.
        whole: whether it is an integer.
    """

    name: str
    path: tuple[str, ...]
    low: float
    high: float
    log: bool
    default: float | None
    whole: bool = False

    @property
    def holds_default(self) -> bool:
        """Whether the recipe's own value lies in the range."""
        return self.default is not None and self.low <= self.default <= self.high

    def suggest(self, trial: Trial) -> None:
        """Let Optuna's sampler choose a value."""
        if self.whole:
            trial.suggest_int(self.name, int(self.low), int(self.high), log=self.log)
        else:
            trial.suggest_float(self.name, self.low, self.high, log=self.log)

    def value(self, chosen: float) -> float:
        """Return the number to train with: the chosen one rounded to four digits, or the recipe's own."""
        if self.whole:
            return int(chosen)
        rounded = min(max(float(f"{chosen:.4g}"), self.low), self.high)
        return self.default if self.default is not None and math.isclose(chosen, self.default) else rounded

    def border(self, value: float) -> str | None:
        """Return "lower" or "upper" if ``value`` lies at that end of the range."""
        low, high, x = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        share = (x - low) / (high - low)
        return "lower" if share < BORDER else "upper" if share > 1 - BORDER else None


class Space(tuple[Dimension, ...]):
    """The dimensions of a search."""

    __slots__ = ()

    @classmethod
    def of(cls, recipe: Recipe, method: str, *, tune_lr: bool = False, given: Sequence[str] = ()) -> "Space":
        """Return the search space of a method: its radius, the constants of its lower bound, and what is ``given``.

        Args:
            recipe: without variants.
            method: by its name; a number in the name, as in ``bisam-tanh@mu=5``, is not searched.
            tune_lr: search the learning rate as well.
            given: ``name=low:high`` or ``name=low:high:log``: another range, or another field of the recipe.

        Raises:
            RecipeError: a range cannot be searched, or there is nothing to search.
        """
        known = {dimension.name: dimension for dimension in _usual(recipe, method)}
        chosen = {name: dimension for name, dimension in known.items() if name != "lr" or tune_lr}
        for text in given:
            dimension = _read(text, recipe, method, known)
            chosen[dimension.name] = dimension
        if not chosen:
            raise RecipeError(f"{method} has nothing to search: give --tune-lr, or a --space")
        for dimension in chosen.values():
            for end in (dimension.low, dimension.high):
                changed(recipe, {dimension.path: end})
        return cls(chosen.values())

    @property
    def default(self) -> dict[str, float] | None:
        """The recipe's own setting; None if it lies outside a range."""
        if not all(dimension.holds_default for dimension in self):
            return None
        return {dimension.name: dimension.default for dimension in self if dimension.default is not None}

    def settings(self, parameters: Mapping[str, float]) -> dict[str, float]:
        """Return the numbers to train with, from those that the sampler chose."""
        return {dimension.name: dimension.value(parameters[dimension.name]) for dimension in self}

    def apply(self, recipe: Recipe, settings: Mapping[str, float]) -> Recipe:
        """Return the recipe with these numbers."""
        return changed(recipe, {dimension.path: settings[dimension.name] for dimension in self})

    def to_dict(self) -> dict[str, Any]:
        """Return the ranges by name, as plain values."""
        return {d.name: {k: v for k, v in asdict(d).items() if k in ("low", "high", "log", "whole")} for d in self}


def _usual(recipe: Recipe, method: str) -> Iterator[Dimension]:
    """Yield the dimensions with short names: rho, mu, alpha, lr."""
    chosen, sharpness = Method(method, recipe.sharpness.options), recipe.sharpness
    named = {key for numbers in chosen.numbers.values() for key in numbers}
    if not chosen.plain and "rho" not in named:
        own = chosen.radius(sharpness.rho, sharpness.radii)
        yield _around("rho", ("sharpness", "radii", method), chosen.published / 8, chosen.published * 8, own)
    if chosen.bound is not None:
        part = next(part for part in chosen.parts if part.startswith("bisam"))
        bound = as_bound(chosen.bound)
        usual = {"mu": (0.5, 50.0, sharpness.mu or bound.mu)}
        if takes_alpha(chosen.bound):
            usual["alpha"] = (0.01, 1.0, sharpness.alpha)
        for name, (low, high, own) in usual.items():
            options = sharpness.options.get(part, {})
            path = ("sharpness", "options", part, name) if name in options else ("sharpness", name)
            if name not in named:
                yield _around(name, path, low, high, options.get(name, own))
    yield _around("lr", ("train", "lr"), recipe.train.lr / 8, recipe.train.lr * 8, recipe.train.lr)


def _around(name: str, path: tuple[str, ...], low: float, high: float, own: float) -> Dimension:
    if own > 0:
        low, high = min(low, own / 4), max(high, own * 4)
    return Dimension(name, path, low, high, log=True, default=own)


def _read(text: str, recipe: Recipe, method: str, known: Mapping[str, Dimension]) -> Dimension:
    """Read ``name=low:high[:log]``."""
    name, _, ends = text.partition("=")
    low, high, log = _ends(text, ends)
    if name in known:
        path, default, whole = known[name].path, known[name].default, False
    else:
        path = tuple(name.split("."))
        default = _field(name, path, recipe, method, known)
        whole = isinstance(default, int) and low.is_integer() and high.is_integer()
    if not low < high:
        raise RecipeError(f"--space {text}: the lower end comes first, and it must be smaller than the upper end")
    if log and low <= 0:
        raise RecipeError(f"--space {text}: a logarithmic scale starts above 0")
    twin = next((d.name for d in known.values() if d.path == path and d.name != name), name)
    return Dimension(twin, path, low, high, log, default, whole)


def _ends(text: str, ends: str) -> tuple[float, float, bool]:
    low, high, *rest = [*ends.split(":"), "", ""][: max(2, len(ends.split(":")))]
    try:
        numbers = float(low), float(high)
    except ValueError:
        numbers = math.nan, math.nan
    if not all(map(math.isfinite, numbers)) or rest not in ([], ["log"]):
        raise RecipeError(f"--space {text!r} must look like rho=0.01:0.5 or rho=0.01:0.5:log")
    return *numbers, bool(rest)


def _field(
    name: str, path: tuple[str, ...], recipe: Recipe, method: str, known: Mapping[str, Dimension]
) -> int | float | None:
    """Return the recipe's value of a field."""
    if len(path) == 1:
        why = f"{method} has {', '.join(known)}; name any other number of the recipe by its dotted name"
        raise RecipeError(f"--space {name}=...: {why}, such as train.weight_decay")
    value: Any = recipe.model_dump(mode="json")
    for key in path:
        if not isinstance(value, dict):
            raise RecipeError(f"--space {name}=...: {key} does not exist")
        value = value.get(key)
    if value is not None and type(value) not in (int, float):
        raise RecipeError(f"--space {name}=...: {value!r} is no number, so it cannot be searched")
    return None if value is None else cast(int | float, value)
