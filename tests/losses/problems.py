"""Problems and bounds over which the losses are tested."""

import math

import pytest
import torch
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bisam import Bound
from bisam.bounds import BOUNDS, LogBound, ShiftedBound, TanhBound

__all__ = ["EVERY", "Arctan", "every_bound", "problems"]


class Arctan(Bound):
    def phi(self, x):
        return torch.atan(x) / (torch.pi / 2)


#: Every named bound, one of a user's own, and two with numbers of their own.
EVERY = [*BOUNDS, Arctan(), ShiftedBound(LogBound(), 2.0), TanhBound(3.0)]
every_bound = pytest.mark.parametrize("bound", EVERY, ids=repr)


@st.composite
def problems(draw, dtype="float32"):
    """Logits (B, K) of any size up to 1e4 and -inf, with class targets."""
    rows, classes = draw(st.integers(1, 5)), draw(st.integers(2, 7))
    width = 32 if dtype == "float32" else 64
    numbers = st.one_of(st.floats(-1e4, 1e4, width=width), st.floats(-2, 2, width=width), st.just(-math.inf))
    logits = draw(hnp.arrays(dtype, (rows, classes), elements=numbers))
    target = draw(hnp.arrays("int64", (rows,), elements=st.integers(0, classes - 1)))
    return torch.from_numpy(logits), torch.from_numpy(target)
