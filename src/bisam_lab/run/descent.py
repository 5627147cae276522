"""The loss that a recipe descends on."""

from torch import nn

from ..recipe import RecipeError, TrainRecipe

__all__ = ["descent_loss"]


def descent_loss(recipe: TrainRecipe, classes: int) -> nn.CrossEntropyLoss:
    """Return cross-entropy with the recipe's label smoothing.

    torch shares the smoothing s among all K classes: the right one has the target 1 - s + s/K, each other one s/K. Over
    the wrong classes alone, as in the BiSAM authors' code, they have 1 - s and s/(K - 1): that is torch's smoothing by
    s K/(K - 1), 0.1111 for s = 0.1 and K = 10.

    Args:
        recipe: ``label_smoothing`` and ``smoothing_over``.
        classes: K, how many there are.

    Raises:
        RecipeError: the right class would have a smaller target than the wrong ones.
    """
    smoothing = recipe.label_smoothing
    if recipe.smoothing_over == "wrong":
        most = (classes - 1) / classes
        if smoothing > most:
            raise RecipeError(
                f"train.label_smoothing={smoothing} over the wrong of {classes} classes leaves the right one less than "
                f"each of them: set at most {most:.4g}"
            )
        smoothing = min(1.0, smoothing / most)
    return nn.CrossEntropyLoss(label_smoothing=smoothing)
