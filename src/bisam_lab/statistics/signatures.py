"""Which failure signatures the methods of a study show, and in how many of their runs."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..run.result import RunResult
from ..run.signatures import SIGNATURES, WITHIN_NOISE
from .comparison import Comparison
from .findings import findings

__all__ = ["Shown", "in_words", "shown"]


@dataclass(frozen=True)
class Shown:
    """A signature that a method shows.

    Attributes:
        method: its name.
        signature: which, a key of ``SIGNATURES``.
        runs: of the method that show it; of one that the comparison shows, all.
        of: all runs of the method that are compared.
    """

    method: str
    signature: str
    runs: int
    of: int

    @property
    def count(self) -> str:
        """Method and runs, in words."""
        return f"{self.method}, {self.runs} of {self.of} runs"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        one = SIGNATURES[self.signature]
        return asdict(self) | {"what": one.what, "remedy": one.remedy, "page": one.page}


def shown(runs: Sequence[RunResult], rows: Sequence[Comparison], baseline: str) -> list[Shown]:
    """Return what the methods show, signature by signature, in the order of the list.

    Args:
        runs: that are compared.
        rows: their comparison; empty where there is none.
        baseline: the method that the others are compared with.
    """
    methods: dict[str, list[RunResult]] = {}
    for run in runs:
        methods.setdefault(run.method, []).append(run)
    every = [
        Shown(method, signature.name, sum(signature in run.signatures for run in its), len(its))
        for signature in SIGNATURES.values()
        for method, its in methods.items()
    ]
    undecided = [one.method for one in findings(rows, baseline).methods if one.kind == "open"] if rows else []
    noise = [Shown(method, WITHIN_NOISE.name, len(methods[method]), len(methods[method])) for method in undecided]
    return [*(one for one in every if one.runs), *noise]


def in_words(each: Sequence[Shown]) -> list[str]:
    """Return a line for each signature that some method shows: who, what it is, what to write, where to read on."""
    lines = []
    for name in dict.fromkeys(one.signature for one in each):
        who = "; ".join(one.count for one in each if one.signature == name)
        lines.append(f"{SIGNATURES[name].advice} ({who}).")
    return lines
