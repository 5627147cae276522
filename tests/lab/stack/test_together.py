"""Runs that are trained together are the runs that are trained alone: in their numbers, their files, their errors."""

import time

import pytest
import torch

from bisam import METHODS
from bisam_lab.recipe import load
from bisam_lab.run.asking import alone
from bisam_lab.run.observer import Observer, Stopped
from bisam_lab.run.train import train, training
from bisam_lab.stack.network import StackedNetwork
from bisam_lab.stack.together import SharedClock, together

from ..run.runs import TINY, StopAfter, logged, weights

#: In float64 a stack and its runs alone differ by 1e-15 a step, so that whole runs can be compared.
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
    clock = SharedClock()
    return together([training(recipe, m, s, clock=clock, stack=len(runs), **given) for m, s in runs], clock)


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
        _close(result, train(recipe, method, seed), rel=1e-9)
        assert result.environment["stack"] == len(runs)


def test_every_run_has_its_own_seed_radius_and_data(passes):
    changes = ("data.label_noise=0.3", "data.augment=crop-flip", "train.optimizer=adamw", "train.lr=0.01")
    recipe = load("digits", [*EXACT, *changes, "methods=[adamw,sam]"])
    runs = [("adamw", 0), ("sam@rho=0.1", 1), ("sam@rho=0.4", 1), ("bisam-log", 2)]
    found = _stack(recipe, runs)
    assert passes[:3] == [4, 4, 4]  # then the plain run is ahead
    for result, (method, seed) in zip(found, runs, strict=True):
        _close(result, train(recipe, method, seed), rel=1e-9)


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
    clock = SharedClock()
    works = [training(recipe, "sam", k, folder=tmp_path / f"stack-{k}", clock=clock, stack=2) for k in (0, 1)]
    together(works, clock)
    from bisam_lab.run.checkpoint import read

    for k in (0, 1):
        states = [read(tmp_path / f"{kind}-{k}" / "checkpoints" / "last.pt")["random"] for kind in ("alone", "stack")]
        assert torch.equal(states[0]["torch"], states[1]["torch"])


def test_stopped_runs_continue_alone_or_in_another_stack(tmp_path):
    """Each saves its own state, and goes on to the same end in any company."""
    recipe = load("digits", [*EXACT, "train.epochs=3"])
    runs = [("sam", 0), ("sgd", 1), ("sam", 2)]
    expected = [train(recipe, *run) for run in runs]

    def ended(run, observer, stack, clock):
        try:
            return (
                yield from training(
                    recipe, *run, folder=tmp_path / "-".join(map(str, run)), observer=observer, clock=clock, stack=stack
                )
            )
        except Stopped:
            return None

    clock = SharedClock()
    steps = (4, 8, 2)
    found = together([ended(run, StopAfter(s), 3, clock) for run, s in zip(runs, steps, strict=True)], clock)
    assert found == [None, None, None]
    clock = SharedClock()
    first, third = together([ended(runs[k], Observer(), 2, clock) for k in (0, 2)], clock)
    second = alone(ended(runs[1], Observer(), 1, time.perf_counter))
    for result, reference in zip((first, second, third), expected, strict=True):
        _close(result, reference, rel=1e-9)
    assert len(logged(tmp_path / "sgd-1")) == 4  # three epochs and the test's score


def test_the_files_of_a_run_are_those_of_the_run_alone(tmp_path):
    recipe = load("digits", [*EXACT])
    train(recipe, "sam", 0, folder=tmp_path / "alone")
    clock = SharedClock()
    together([training(recipe, "sam", k, folder=tmp_path / f"stack-{k}", clock=clock, stack=2) for k in (0, 1)], clock)
    a, b = weights(tmp_path / "alone"), weights(tmp_path / "stack-0")
    for kind in ("last", "best"):
        assert a[kind].keys() == b[kind].keys()
        for key, value in a[kind].items():
            torch.testing.assert_close(b[kind][key], value, rtol=1e-9, atol=1e-9)
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
    clock = SharedClock()

    def guarded(run, observer):
        try:
            return (yield from training(recipe, *run, observer=observer, clock=clock))
        except OSError as error:
            return str(error)

    failed, result = together([guarded(("sam", 0), Fails()), guarded(("sam", 1), Observer())], clock)
    assert failed == "disk full"
    _close(result, train(recipe, "sam", 1), rel=1e-9)


def test_an_error_of_a_shared_pass_reaches_every_run_and_its_weights_are_back(monkeypatch):
    recipe = load("digits", [*EXACT])
    clock, calls, models = SharedClock(), [], []
    call = StackedNetwork.__call__

    def broken(self, requests):
        calls.append([p.detach().clone() for p in requests[0].model.parameters()])
        models.append(requests[0].model)
        if len(calls) == 2:  # at w + eps
            raise RuntimeError("no more memory")
        return call(self, requests)

    monkeypatch.setattr(StackedNetwork, "__call__", broken)

    def guarded(seed):
        try:
            return (yield from training(recipe, "sam", seed, clock=clock))
        except RuntimeError as error:
            return str(error)

    assert together([guarded(0), guarded(1)], clock) == ["no more memory"] * 2
    at_w, at_eps = calls
    assert not all(torch.equal(a, b) for a, b in zip(at_w, at_eps, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(at_w, models[0].parameters(), strict=True))


def test_an_uncaught_error_ends_the_others_with_their_weights_back():
    recipe, left = load("digits", [*EXACT]), []
    clock = SharedClock()

    class Fails(Observer):
        def step(self, epoch, done, total):
            raise OSError("disk full")

    def watched():
        try:
            return (yield from training(recipe, "sam", 1, clock=clock))
        finally:
            left.append(True)

    with pytest.raises(OSError, match="disk full"):
        together([training(recipe, "sgd", 0, observer=Fails(), clock=clock), watched()], clock)
    assert left == [True]


def test_the_time_of_a_stack_is_shared():
    """Seconds of all runs together are those that have passed; a run that ended early has had fewer."""
    recipe = load("digits", [*TINY, "train.epochs=2"])
    clock, began = SharedClock(), time.perf_counter()
    runs = [("sgd", 0), ("sam", 0), ("sam", 1), ("bisam-log", 0)]
    found = together([training(recipe, m, s, clock=clock, stack=4) for m, s in runs], clock)
    whole = time.perf_counter() - began
    assert sum(result.seconds for result in found) <= whole
    assert found[0].steps_per_second > found[1].steps_per_second


def test_a_diverged_run_does_not_spoil_its_neighbours():
    recipe = load("digits", [*EXACT])
    hot = load("digits", [*EXACT, "train.lr=1e200"])
    clock = SharedClock()
    works = [training(hot, "sgd", 0, clock=clock, stack=2), training(recipe, "sam", 1, clock=clock, stack=2)]
    diverged, result = together(works, clock)
    assert diverged.status == "diverged"
    _close(result, train(recipe, "sam", 1), rel=1e-9)
