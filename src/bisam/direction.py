"""Direction: along what of the ascent objective's gradient does the perturbation climb?

The default, ``None``, is the gradient itself.
"""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from ._foreach import Bucket

__all__ = ["Direction"]


@runtime_checkable
class Direction(Protocol):
    """Turns gradients into the direction to climb along."""

    def __call__(self, buckets: Sequence[Bucket]) -> None:
        """Change ``bucket.grads`` in place; their length does not matter."""
