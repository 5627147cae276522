"""The lower bounds of the 0-1 step; see :mod:`bisam.losses.bounds`."""

from .losses.bounds import (
    BOUNDS,
    Bound,
    LogBound,
    RampBound,
    ShiftedBound,
    SoftsignBound,
    TanhBound,
    as_bound,
    takes_alpha,
)

__all__ = [
    "BOUNDS",
    "Bound",
    "LogBound",
    "RampBound",
    "ShiftedBound",
    "SoftsignBound",
    "TanhBound",
    "as_bound",
    "takes_alpha",
]
