"""Recipes: what defines a study, and how it is read."""

from .reading import RecipeError, differences, load, names, only, text, variant, words
from .schema import DataRecipe, EngineRecipe, ModelRecipe, Recipe, SharpnessRecipe, TrainRecipe

__all__ = [
    "DataRecipe",
    "EngineRecipe",
    "ModelRecipe",
    "Recipe",
    "RecipeError",
    "SharpnessRecipe",
    "TrainRecipe",
    "differences",
    "load",
    "names",
    "only",
    "text",
    "variant",
    "words",
]
