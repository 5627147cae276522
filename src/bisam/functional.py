"""The losses as functions; see :mod:`bisam.losses.functional`."""

from .losses.functional import binary_lower_bound_loss, lower_bound_loss, zero_one_loss

__all__ = ["binary_lower_bound_loss", "lower_bound_loss", "zero_one_loss"]
