"""A test set from data that have none: a fifth of each class, the same in every run."""

from collections.abc import Sequence

from ..errors import RecipeError

__all__ = ["a_fifth"]


def a_fifth(labels: Sequence[int], classes: Sequence[str], what: str) -> list[bool]:
    """Say of each example whether it is in the test set: a fifth of each class, one example at least.

    The choice depends on the labels and their order alone.

    Args:
        labels: (N,), from 0.
        classes: their names, by label.
        what: the examples are, in the plural, for the message.

    Raises:
        RecipeError: a class with fewer than three examples.
    """
    import torch  # here, because a list of the data sets should not wait for torch

    rng, y = torch.Generator().manual_seed(0), torch.as_tensor(labels)
    apart = torch.zeros(len(y), dtype=torch.bool)
    for label, name in enumerate(classes):
        (members,) = (y == label).nonzero(as_tuple=True)
        if len(members) < 3:
            raise RecipeError(
                f"class {name} has {len(members)} {what}: training, validation and test need three or more"
            )
        apart[members[torch.randperm(len(members), generator=rng)[: max(1, round(len(members) / 5))]]] = True
    found: list[bool] = apart.tolist()
    return found
