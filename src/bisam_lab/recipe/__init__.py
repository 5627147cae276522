"""Recipes: what defines a study, and how it is read."""

from .reading import RecipeError, changed, load, names, only, text, variant, words
from .schema import DataRecipe, EngineRecipe, ModelRecipe, Recipe, SharpnessRecipe, TrainRecipe, settings

__all__ = [
    "DataRecipe",
    "EngineRecipe",
    "ModelRecipe",
    "Recipe",
    "RecipeError",
    "SharpnessRecipe",
    "TrainRecipe",
    "changed",
    "load",
    "names",
    "only",
    "settings",
    "text",
    "variant",
    "words",
]
