"""Recipes: what defines a study, and how it is read."""

from .digest import digest
from .guesses import Understood, understood
from .reading import RecipeError, changed, differences, load, names, only, outline, text, variant
from .schema import DataRecipe, EngineRecipe, LoraRecipe, ModelRecipe, Recipe, SharpnessRecipe, TrainRecipe, settings

__all__ = [
    "DataRecipe",
    "EngineRecipe",
    "LoraRecipe",
    "ModelRecipe",
    "Recipe",
    "RecipeError",
    "SharpnessRecipe",
    "TrainRecipe",
    "Understood",
    "changed",
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
