"""Recipes: what defines a study, and how it is read."""

from .guesses import Understood, understood
from .reading import RecipeError, changed, differences, first, load, names, only, outline, text, variant
from .schema import DataRecipe, EngineRecipe, ModelRecipe, Recipe, SharpnessRecipe, TrainRecipe, settings

__all__ = [
    "DataRecipe",
    "EngineRecipe",
    "ModelRecipe",
    "Recipe",
    "RecipeError",
    "SharpnessRecipe",
    "TrainRecipe",
    "Understood",
    "changed",
    "differences",
    "first",
    "load",
    "names",
    "only",
    "outline",
    "settings",
    "text",
    "understood",
    "variant",
]
