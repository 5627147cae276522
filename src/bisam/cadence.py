"""Cadence: on which steps is the gradient sharpness-aware?

On the others ``passes()`` yields one pass, the plain descent. A cadence is a pure function of the number of steps
taken, which is saved with the optimizer: it resumes in mid-cycle, and every micro-batch of a step agrees.
"""

from typing import Protocol, runtime_checkable

__all__ = ["Always", "Cadence", "Every"]


@runtime_checkable
class Cadence(Protocol):
    """Chooses the steps that perturb."""

    def __call__(self, step: int) -> bool:
        """Return whether step number ``step`` (from 0) perturbs."""


class Always:
    """Every step, as in SAM."""

    def __call__(self, step: int) -> bool:
        """Return True."""
        return True

    def __repr__(self) -> str:
        return "Always()"


class Every:
    """One step in ``k``, the first included: costs 1 + 1/k forward-backward pairs a step.

    Args:
        k: length of the cycle, >= 1.
    """

    def __init__(self, k: int) -> None:
        if not isinstance(k, int) or k < 1:
            raise ValueError(f"k={k!r} must be a whole number of steps, 1 or more")
        self.k = k

    def __call__(self, step: int) -> bool:
        """Return whether ``step`` starts a cycle."""
        return step % self.k == 0

    def __repr__(self) -> str:
        return f"Every({self.k})"
