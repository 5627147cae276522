"""Seeds chosen by looks: the rule, and its rate of false claims, by simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from bisam_lab.statistics import compare, seeds_needed
from bisam_lab.statistics.sequential import LEVEL, SEEDS, looks, unsettled

from .results import run, study

STUDIES = 20_000


def adjusted(p):
    """Holm's adjustment of p-values (studies, methods)."""
    order = np.argsort(p, axis=1)
    steps = np.take_along_axis(p, order, 1) * (p.shape[1] - np.arange(p.shape[1]))
    found = np.empty_like(p)
    np.put_along_axis(found, order, np.minimum(np.maximum.accumulate(steps, axis=1), 1), 1)
    return found


def simulated(methods, difference, levels=None, true=0.0, seed=0):
    """Share of studies with a false claim, and the mean number of seeds, of differences with deviation 1.

    All methods are compared with one baseline, so that their differences are correlated, as in a study.
    """
    rng = np.random.default_rng(seed)
    base = rng.normal(size=(STUDIES, 1, SEEDS[-1]))
    d = (rng.normal(size=(STUDIES, methods, SEEDS[-1])) - base) / math.sqrt(2) + true
    running, claims, used = np.ones(STUDIES, bool), np.zeros(STUDIES, bool), np.zeros(STUDIES)
    for look, level in zip(looks(), levels or [look.level for look in looks()], strict=True):
        x = d[:, :, : look.seeds]
        spread = x.std(2, ddof=1)
        p = adjusted(2 * stats.t.sf(np.abs(x.mean(2)) / spread * math.sqrt(look.seeds), look.seeds - 1))
        settled = (p < level) | (spread <= look.largest_spread(difference, methods))
        stops = running & (settled.all(1) | look.last)
        claims |= stops & (p < level).any(1)
        used[stops] = look.seeds
        running &= ~stops
    return claims.mean(), used.mean()


@pytest.mark.parametrize("methods", [1, 3])
@pytest.mark.parametrize("difference", [0.5, 1.0, 2.0])
def test_false_claims_are_no_more_than_five_percent(methods, difference):
    rate, seeds = simulated(methods, difference)
    assert rate <= LEVEL + 3 * math.sqrt(LEVEL * (1 - LEVEL) / STUDIES)
    assert seeds <= SEEDS[-1]


def test_looking_at_five_percent_each_time_would_find_what_is_not_there():
    """The simulation sees a rule that is wrong."""
    assert simulated(1, 0.01, levels=[0.05] * 4)[0] > 0.13


def test_a_difference_that_is_there_is_found_with_few_seeds():
    found, seeds = simulated(1, 1.0, true=2.0)
    assert found > 0.99
    assert seeds < 10


def test_the_looks_spend_five_percent():
    assert [look.seeds for look in looks()] == [5, 10, 20, 40]
    assert [look.level for look in looks()] == [0.00625, 0.00625, 0.0125, 0.025]
    assert sum(look.level for look in looks()) == pytest.approx(LEVEL)
    assert str(looks()[1]) == "look 2 of 4, 10 seeds, at the 0.625 % level"


def test_what_is_settled_agrees_with_the_seeds_that_a_difference_needs():
    look = looks()[1]
    d = np.array([1.0, -1.2, 0.4, -0.3, 0.9, -0.8, 0.2, -0.1, 0.5, -0.6])
    rows = compare(study(sam=d, asam=4 * d), "sgd", level=1 - look.level)
    for difference in (0.5, 1.5, 3.0, 6.0, 12.0):
        rest = unsettled(rows, "sgd", look, difference)
        needed = {row.method: seeds_needed(row.spread, difference, level=look.level / 2) for row in rows[1:]}
        assert rest == [method for method, seeds in needed.items() if seeds > look.seeds]
    assert unsettled(rows, "sgd", look, 12.0) == []


def test_a_method_that_differs_or_failed_is_settled():
    look = looks()[0]
    noise = np.array([1.0, -1.0, 0.5, -0.5, 0.2])
    better, broken = 30 + noise, [run("asam", s, 0.1, "collapsed") for s in range(5)]
    rows = compare([*study(sam=better, bisam=5 * noise), *broken], "sgd", level=1 - look.level)
    assert unsettled(rows, "sgd", look, 0.1) == ["bisam"]
    failed = [run("sgd", s, 0.1 + s / 1000, "diverged") for s in range(5)]
    rows = compare([*failed, *(run("sam", s, 0.5 + s / 50) for s in range(5))], "sgd", level=1 - look.level)
    assert unsettled(rows, "sgd", look, 0.1) == [], "more seeds of a baseline that fails say nothing"


def test_the_same_difference_at_every_seed_is_settled():
    rows = compare(study(sam=[1.0] * 5), "sgd", level=1 - looks()[0].level)
    assert unsettled(rows, "sgd", looks()[0], 0.5) == []
