"""Runs that are trained together are the runs that are trained alone: in their numbers, their files, their errors."""

import time
from functools import partial

import pytest
import torch

from bisam import METHODS
from bisam_lab.recipe import load
from bisam_lab.run.asking import alone
from bisam_lab.run.observer import Observer, Stopped
from bisam_lab.run.train import train, training
from bisam_lab.stack.network import StackedNetwork
from bisam_lab.stack.together import RunClock, together

from ..run.runs import TINY, StopAfter, logged, weights

#: Weights in float64, and losses in float32: a stack and its runs alone differ by so little that whole runs compare.
EXACT = (*TINY, "train.epochs=2", "engine.precision=64-true")


@pytest.fixture
def passes(monkeypatch):
    """How many networks each stacked pass has had."""
    sizes, call = [], StackedNetwork.__call__

    def counted(self, requests):
        sizes.append(len(requests))
        return call(self, requests)

    monkeypatch.setattr(StackedNetwork, "__call__", counted)
    return sizes


def _stack(recipe, runs, **given):
    return together([partial(training, recipe, m, s, stack=len(runs), **given) for m, s in runs])


def _numbers(result):
    epochs = [(e.train_loss, e.validation_score, e.learning_rate) for e in result.history]
    return result.method, result.seed, result.selected_epoch, result.validation_score, result.test_score, epochs


def _close(found, expected, rel):
    *words, epochs = _numbers(found)
    *same_words, same_epochs = _numbers(expected)
    assert words == same_words
    assert [numbers[1:] for numbers in epochs] == [numbers[1:] for numbers in same_epochs]
    assert [n[0] for n in epochs] == pytest.approx([n[0] for n in same_epochs], rel=rel)


@pytest.mark.matrix("laboratory")
def test_every_method_in_one_stack_is_the_method_alone(passes):
    """With one pass or two, micro-batches, a choice of samples, or a decision in each step: chosen epoch and scores."""
    recipe = load("digits", [*EXACT, "train.label_smoothing=0.1", "sharpness.options.msam.m=2", "train.clip=0.5"])
    runs = [(m, 3) for m in ("sgd", "bisam-tanh", "bisam-log+msam", "esam+asam", *METHODS)]
    found = _stack(recipe, runs)
    assert max(passes) > len(runs) // 2
    for result, (method, seed) in zip(found, runs, strict=True):
        _close(result, train(recipe, method, seed), rel=1e-6)
        assert result.environment["stack"] == len(runs)


def test_every_run_has_its_own_seed_radius_and_data(passes):
    changes = ("data.label_noise=0.3", "data.augment=crop-flip", "train.optimizer=adamw", "train.lr=0.01")
    recipe = load("digits", [*EXACT, *changes, "methods=[adamw,sam]"])
    runs = [("adamw", 0), ("sam@rho=0.1", 1), ("sam@rho=0.4", 1), ("bisam-log", 2)]
    found = _stack(recipe, runs)
    assert passes[0] == 4  # of their first steps; then three go on in lockstep
    for result, (method, seed) in zip(found, runs, strict=True):
        _close(result, train(recipe, method, seed), rel=1e-6)


def test_in_float32_the_first_steps_are_equal_to_rounding():
    """Whole runs are not: training multiplies rounding errors, and 1e-7 is 1e-2 some twenty steps later."""
    recipe = load("digits", [*TINY, "train.epochs=1", "data.train_size=32"])
    for result, seed in zip(_stack(recipe, [("bisam-log", seed) for seed in range(4)]), range(4), strict=True):
        expected = train(recipe, "bisam-log", seed)
        assert result.history[0].train_loss == pytest.approx(expected.history[0].train_loss, rel=1e-5)


def test_a_stack_of_one_is_the_run_alone_to_the_bit(passes):
    recipe = load("digits", [*TINY, "train.epochs=2"])
    (result,) = _stack(recipe, [("sam", 1)])
    assert _numbers(result) == _numbers(train(recipe, "sam", 1))
    assert passes == []
    assert "stack" not in result.environment


def test_each_run_draws_its_own_random_numbers(tmp_path):
    """The checkpoint of each holds the numbers that the run alone would have, whatever the others have drawn."""
    recipe = load("digits", [*EXACT])
    for k in (0, 1):
        alone(training(recipe, "sam", k, folder=tmp_path / f"alone-{k}"))
    together([partial(training, recipe, "sam", k, folder=tmp_path / f"stack-{k}", stack=2) for k in (0, 1)])
    from bisam_lab.run.checkpoint import read

    for k in (0, 1):
        states = [read(tmp_path / f"{kind}-{k}" / "checkpoints" / "last.pt")["random"] for kind in ("alone", "stack")]
        assert torch.equal(states[0]["torch"], states[1]["torch"])


def test_stopped_runs_continue_alone_or_in_another_stack(tmp_path):
    """Each saves its own state, and goes on to the same end in any company."""
    recipe = load("digits", [*EXACT, "train.epochs=3"])
    runs = [("sam", 0), ("sgd", 1), ("sam", 2)]
    expected = [train(recipe, *run) for run in runs]

    def ended(run, observer, stack, *, clock):
        try:
            return (
                yield from training(
                    recipe, *run, folder=tmp_path / "-".join(map(str, run)), observer=observer, clock=clock, stack=stack
                )
            )
        except Stopped:
            return None

    steps = (4, 8, 2)
    found = together([partial(ended, run, StopAfter(s), 3) for run, s in zip(runs, steps, strict=True)])
    assert found == [None, None, None]
    first, third = together([partial(ended, runs[k], Observer(), 2) for k in (0, 2)])
    second = alone(ended(runs[1], Observer(), 1, clock=time.perf_counter))
    for result, reference in zip((first, second, third), expected, strict=True):
        _close(result, reference, rel=1e-6)
    assert len(logged(tmp_path / "sgd-1")) == 4  # three epochs and the test's score


def test_the_files_of_a_run_are_those_of_the_run_alone(tmp_path):
    recipe = load("digits", [*EXACT])
    train(recipe, "sam", 0, folder=tmp_path / "alone")
    together([partial(training, recipe, "sam", k, folder=tmp_path / f"stack-{k}", stack=2) for k in (0, 1)])
    a, b = weights(tmp_path / "alone"), weights(tmp_path / "stack-0")
    for kind in ("last", "best"):
        assert a[kind].keys() == b[kind].keys()
        for key, value in a[kind].items():
            torch.testing.assert_close(b[kind][key], value, rtol=1e-5, atol=1e-6)
    names = [
        sorted(p.relative_to(tmp_path / d).parts[0] for p in (tmp_path / d).iterdir()) for d in ("alone", "stack-0")
    ]
    assert names[0] == names[1]


def test_a_run_that_fails_leaves_the_others_alone(passes):
    """An error of the run's own is caught where the work is made; the others do not notice."""

    class Fails(Observer):
        def epoch(self, epoch):
            raise OSError("disk full")

    recipe = load("digits", [*EXACT])

    def guarded(run, observer, *, clock):
        try:
            return (yield from training(recipe, *run, observer=observer, clock=clock))
        except OSError as error:
            return str(error)

    failed, result = together([partial(guarded, ("sam", 0), Fails()), partial(guarded, ("sam", 1), Observer())])
    assert failed == "disk full"
    _close(result, train(recipe, "sam", 1), rel=1e-6)


def test_an_error_of_a_shared_pass_reaches_every_run_and_its_weights_are_back(monkeypatch):
    recipe = load("digits", [*EXACT])
    calls, models = [], []
    call = StackedNetwork.__call__

    def broken(self, requests):
        calls.append([p.detach().clone() for p in requests[0].model.parameters()])
        models.append(requests[0].model)
        if len(calls) == 2:  # at w + eps
            raise RuntimeError("no more memory")
        return call(self, requests)

    monkeypatch.setattr(StackedNetwork, "__call__", broken)

    def guarded(seed, *, clock):
        try:
            return (yield from training(recipe, "sam", seed, clock=clock))
        except RuntimeError as error:
            return str(error)

    assert together([partial(guarded, 0), partial(guarded, 1)]) == ["no more memory"] * 2
    at_w, at_eps = calls
    assert not all(torch.equal(a, b) for a, b in zip(at_w, at_eps, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(at_w, models[0].parameters(), strict=True))


def test_an_uncaught_error_ends_the_others_with_their_weights_back():
    recipe, left = load("digits", [*EXACT]), []

    class Fails(Observer):
        def step(self, epoch, done, total):
            raise OSError("disk full")

    def watched(*, clock):
        try:
            return (yield from training(recipe, "sam", 1, clock=clock))
        finally:
            left.append(True)

    with pytest.raises(OSError, match="disk full"):
        together([partial(training, recipe, "sgd", 0, observer=Fails()), watched])
    assert left == [True]


def test_the_time_of_a_stack_is_shared(monkeypatch):
    """Seconds of all runs together are no more than have passed, and a pass's are shared among its runs."""
    recipe, began = load("digits", [*TINY, "train.epochs=2"]), time.perf_counter()
    runs = [("sgd", 0), ("sam", 0), ("sam", 1), ("bisam-log", 0)]
    found = together([partial(training, recipe, m, s, stack=4) for m, s in runs])
    assert 0 < sum(result.seconds for result in found) <= time.perf_counter() - began
    now = [0.0]
    monkeypatch.setattr("bisam_lab.stack.together.time.perf_counter", lambda: now[0])
    clock = RunClock()
    clock.add(2.0)
    with clock.running():
        now[0] = 3.0
        assert clock() == 5.0
    now[0] = 9.0
    assert clock() == 5.0  # others ran meanwhile


def test_a_diverged_run_does_not_spoil_its_neighbours():
    recipe = load("digits", [*EXACT])
    hot = load("digits", [*EXACT, "train.lr=1e200"])
    diverged, result = together(
        [partial(training, hot, "sgd", 0, stack=2), partial(training, recipe, "sam", 1, stack=2)]
    )
    assert diverged.status == "diverged"
    _close(result, train(recipe, "sam", 1), rel=1e-6)
