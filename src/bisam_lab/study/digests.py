"""The digest of the recipe that each result in a study's folder must have."""

from pathlib import Path

from pydantic import ValidationError

from ..budget import Budget
from ..plain_yaml import parse_yaml
from ..recipe import Recipe, RecipeError, changed, digest, variant
from ..run.result import Run
from ..untrusted import check_plain, read_text

__all__ = ["Digests", "read_recipe"]


class Digests:
    """The digests of a study's recipe: one for each variant and, at equal cost, for each number of epochs.

    Args:
        recipe: of the study.
        budget: what each method may spend; None: there are no runs at equal cost.
    """

    def __init__(self, recipe: Recipe, budget: Budget | None = None) -> None:
        self.recipe, self.budget = recipe, budget
        self._known: dict[tuple[str, int | None], tuple[str, int]] = {}

    def expected(self, run: Run) -> tuple[str, int] | tuple[None, None]:
        """Return the digest of a run's recipe and its epochs; None and None for a run that the study does not have."""
        if run.variant not in (self.recipe.variants or [""]):
            return None, None
        epochs = None
        if run.equal_cost:
            if self.budget is None or self.budget.missing(run.variant, (run.method,)):
                return None, None
            epochs = self.budget.shares[run.variant].epochs_of(run.method)
        if (run.variant, epochs) not in self._known:
            mine = variant(self.recipe, run.variant)
            own = mine if epochs is None else changed(mine, {("train", "epochs"): epochs})
            self._known[run.variant, epochs] = digest(own), own.train.epochs
        return self._known[run.variant, epochs]


def read_recipe(path: Path) -> Recipe:
    """Read a study's recipe.

    Raises:
        RecipeError: it is damaged, or another version of bisam wrote it.
    """
    try:
        fields = parse_yaml(read_text(path), str(path))
        check_plain(fields)
        return Recipe.model_validate(fields)
    except (RecipeError, ValidationError):
        raise RecipeError(f"{path} is damaged or of another version of bisam: choose another folder") from None
