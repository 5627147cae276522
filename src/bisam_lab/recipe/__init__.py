"""Recipes: what defines a study, and how it is read."""

from .digest import digest
from .guesses import Understood, understood
from .hypotheses import Hypothesis, check_methods
from .reading import RecipeError, changed, differences, load, names, only, outline, text, variant
from .schema import (
    REGISTERED,
    DataRecipe,
    EngineRecipe,
    LoraRecipe,
    ModelRecipe,
    Recipe,
    SharpnessRecipe,
    TrainRecipe,
    settings,
)

__all__ = [
    "REGISTERED",
    "DataRecipe",
    "EngineRecipe",
    "Hypothesis",
    "LoraRecipe",
    "ModelRecipe",
    "Recipe",
    "RecipeError",
    "SharpnessRecipe",
    "TrainRecipe",
    "Understood",
    "changed",
    "check_methods",
    "differences",
    "digest",
    "load",
    "names",
    "only",
    "outline",
    "settings",
    "text",
    "understood",
    "variant",
]
