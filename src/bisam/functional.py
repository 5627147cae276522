"""The losses as functions; see :mod:`bisam.losses.functional` and :mod:`bisam.losses.head`."""

from .losses.functional import binary_lower_bound_loss, lower_bound_loss, zero_one_loss
from .losses.head import linear_cross_entropy, linear_lower_bound_loss

__all__ = [
    "binary_lower_bound_loss",
    "linear_cross_entropy",
    "linear_lower_bound_loss",
    "lower_bound_loss",
    "zero_one_loss",
]
