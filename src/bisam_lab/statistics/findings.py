"""The verdict, method by method, for a page: the same judgements as :func:`.verdicts.verdict`, each by itself."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from .comparison import Comparison
from .tests import chosen
from .verdicts import (
    _could_have,
    _counted,
    _direction,
    _level,
    _mute,
    _percent,
    _seeds_of_rank_test,
    _tested,
    _undecided,
    equality,
)

__all__ = ["Finding", "Findings", "Kind", "findings"]

#: What can be said of a method, in the order in which it is said.
Kind: TypeAlias = Literal["better", "worse", "open", "silent", "failed"]


@dataclass(frozen=True)
class Finding:
    """What the seeds say of one method.

    Attributes:
        method: its name.
        kind: better or worse than the baseline; ``open``: no evidence of a difference; ``silent``: no test is
            possible; ``failed``: no run of it has trained.
        difference: to the baseline, in points; NaN if there is no pair.
        low: lower end of its interval; NaN if there is none.
        high: upper end.
        p: adjusted p-value; NaN without a test.
        why: nothing can be said; empty otherwise.
        conclusion: of a comparison with a margin, difference and equivalence together, in words; empty otherwise.
        p_equivalent: adjusted p-value of the test of equivalence; NaN without one.
    """

    method: str
    kind: Kind
    difference: float
    low: float
    high: float
    p: float
    why: str = ""
    conclusion: str = ""
    p_equivalent: float = math.nan


@dataclass(frozen=True)
class Findings:
    """What the seeds say of all methods.

    Attributes:
        headline: in one sentence.
        methods: one entry each, without the baseline; the best difference of a kind first.
        remarks: sentences about the test, about failed runs, and about what these seeds could have shown.
    """

    headline: str
    methods: list[Finding]
    remarks: list[str]


def findings(rows: Sequence[Comparison], baseline: str) -> Findings:
    """Say of each method whether it differs from the baseline.

    Args:
        rows: what :func:`.comparison.compare` returned.
        baseline: the method that the others are compared with.
    """
    failed = {row.method for row in rows if row.failed}
    if baseline in failed:
        return Findings(f"Nothing can be compared: every run of {baseline} failed to train.", [], [])
    others = [row for row in rows if row.method != baseline]
    whole = [row for row in others if row.method not in failed]
    found = [_finding(row, rows, row.method in failed) for row in others]
    order: list[Kind] = ["better", "worse", "open", "silent", "failed"]
    found.sort(key=lambda one: (order.index(one.kind), -np.nan_to_num(one.difference, nan=-np.inf)))
    return Findings(_headline(found, baseline), found, _remarks(rows, whole, baseline))


def _finding(row: Comparison, rows: Sequence[Comparison], failed: bool) -> Finding:
    kind, why = _judged(row, rows, failed)
    p = math.nan if row.equivalence is None else row.equivalence.p_adjusted
    return Finding(row.method, kind, row.difference, row.low, row.high, row.p_adjusted, why, row.conclusion, p)


def _judged(row: Comparison, rows: Sequence[Comparison], failed: bool) -> tuple[Kind, str]:
    if failed:
        return "failed", ""
    if row.pairs < 2:
        return "silent", "too few pairs to say anything: a test needs two seeds"
    if not np.isfinite(row.differences).all():
        return "silent", "a score is no number, so no test is possible"
    if np.isnan(row.p):
        return "silent", "the same difference at every seed, so no test is possible"
    if _mute(row, rows):
        words, level = chosen(row.test).words, _percent(_level(row))
        fewest = _seeds_of_rank_test(row, rows)
        return "silent", f"{words} cannot reach the {level} level with {row.pairs} seeds; {fewest} are the fewest"
    if row.p_adjusted < _level(row):
        return ("better" if _direction(row) > 0 else "worse"), ""
    return "open", ""


def _headline(found: Sequence[Finding], baseline: str) -> str:
    if not found:
        return f"There is nothing to compare with {baseline}."
    judged = [one for one in found if one.kind in ("better", "worse", "open")]
    if not judged:
        return "Nothing can be said yet."
    counts = {kind: sum(one.kind == kind for one in judged) for kind in ("better", "worse")}
    parts = [f"{_of(counts[kind], judged)} {kind} than {baseline}" for kind in ("better", "worse") if counts[kind]]
    if not parts:
        who = judged[0].method if len(judged) == 1 else "any method"
        return f"There is no evidence that {who} differs from {baseline}."
    return f"{', and '.join(parts)}."


def _of(count: int, judged: Sequence[Finding]) -> str:
    if len(judged) == 1:
        return f"{judged[0].method} is"
    return f"{count} of {len(judged)} methods {'is' if count == 1 else 'are'}"


def _remarks(rows: Sequence[Comparison], others: Sequence[Comparison], baseline: str) -> list[str]:
    tested, counted = _tested(rows, others).strip(" ()"), _counted(rows).removeprefix("; ")
    could = _could_have(rows, same, None) if (same := _undecided(rows, others)) else ""
    return [
        f"{text[0].upper()}{text[1:].rstrip('.')}."
        for text in (tested, counted, equality(others, baseline), could)
        if text
    ]
