"""Steps in lockstep are the library's own steps: weights, optimizer state, statistics and counters, in float64."""

import copy
from functools import partial

import pytest
import torch

from bisam import METHODS
from bisam_lab.data.examples import Examples
from bisam_lab.models import ResNet
from bisam_lab.recipe import load
from bisam_lab.registry.methods import Method
from bisam_lab.run.asking import alone
from bisam_lab.run.checkpoint import Checkpoints, read
from bisam_lab.run.fabric import build_fabric
from bisam_lab.run.optimizer import build_optimizer
from bisam_lab.run.steps import Steps
from bisam_lab.run.train import train, training
from bisam_lab.stack import together as module
from bisam_lab.stack.lockstep import Lockstep, kind_of, moment_of
from bisam_lab.stack.network import StackedNetwork
from bisam_lab.stack.together import together

from ..run.runs import TINY
from .networks import Perceptron

EXACT = ("engine.precision=64-true", "train.batch_size=6")


def _steps(recipe, method, seed, build=lambda: ResNet(8, 1, 10, width=2)):
    torch.manual_seed(seed)
    model = build().double()
    opt = build_optimizer(method, recipe, model, 20, 10)
    steps = Steps(build_fabric(recipe.engine), model, opt, Method(method, {}), recipe.train, 20)
    steps.begin()
    return steps


def _batches(seed, count):
    rng = torch.Generator().manual_seed(seed)
    return [
        Examples(torch.randn(6, 1, 8, 8, generator=rng), torch.randint(0, 10, (6,), generator=rng))
        for _ in range(count)
    ]


def _state(steps):
    saved = steps.opt.state_dict()
    numbers = [
        value for entry in saved["state"].values() for value in entry.values() if isinstance(value, torch.Tensor)
    ]
    return [*steps.model.state_dict().values(), *numbers], saved["param_groups"], steps.schedule.state_dict()


def _assert_same(found, expected):
    (tensors, groups, schedule), (others, same_groups, same_schedule) = _state(found), _state(expected)
    for a, b in zip(tensors, others, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)
    assert groups == same_groups
    assert found.passes == expected.passes > 0
    assert {k: v for k, v in schedule.items() if k != "lr_lambdas"} == {
        k: v for k, v in same_schedule.items() if k != "lr_lambdas"
    }


BASES = {
    "sgd": (),
    "sgd without momentum": ("train.momentum=0",),
    "nesterov": ("train.optimizer_options={nesterov: true}",),
    "adam": ("train.optimizer=adam", "train.lr=0.001", "methods=[sam]"),
    "adamw": ("train.optimizer=adamw", "train.lr=0.001", "methods=[sam]", "train.optimizer_options={amsgrad: true}"),
    "clipped": ("train.clip=0.1",),
    "smooth": ("train.label_smoothing=0.1",),
}


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize(
    "methods",
    [
        ("sam@rho=0.1", "sam@rho=0.5", "bisam-tanh", "bisam-log", "bisam-log@mu=3"),
        ("plain", "plain"),
        ("every@k=2", "every@k=2@rho=0.5+bisam-log", "every@k=2+bisam-tanh"),
    ],
    ids=["sharp", "plain", "every other step"],
)
def test_steps_in_lockstep_are_the_steps_of_each(base, methods):
    recipe = load("digits", [*EXACT, "methods=[sam]", *BASES[base]])
    runs, twins = ([_steps(recipe, m, s) for s, m in enumerate(methods)] for _ in range(2))
    data = [_batches(seed, 5) for seed in range(len(methods))]
    for steps, batches in zip([*runs, *twins], data * 2, strict=True):
        alone(steps.step(batches[0]))
    assert len({(kind_of(steps), moment_of(steps)) for steps in runs}) == 1
    lockstep = Lockstep(runs, StackedNetwork(runs[0].model))
    for number in (1, 2, 3):
        losses = lockstep.step([batches[number] for batches in data])
        for loss, steps, batches in zip(losses, twins, data, strict=True):
            torch.testing.assert_close(loss, alone(steps.step(batches[number])), rtol=1e-6, atol=1e-6)
    for found, expected in zip(runs, twins, strict=True):
        _assert_same(found, expected)
    lockstep.release()  # from here on each goes on by itself
    for steps, batches in zip([*runs, *twins], data * 2, strict=True):
        alone(steps.step(batches[4]))
    for found, expected in zip(runs, twins, strict=True):
        _assert_same(found, expected)


def _pair(method="sam", build=Perceptron):
    recipe = load("digits", EXACT)
    runs = [_steps(recipe, method, seed, build) for seed in range(2)]
    data = [_batches(seed, 3) for seed in range(2)]
    for steps, batches in zip(runs, data, strict=True):
        alone(steps.step(batches[0]))
    return runs, data


def test_a_run_without_a_gradient_stays_and_its_neighbour_climbs():
    """A zero or a non-finite gradient is no perturbation, and never NaN for others."""
    runs, data = _pair()
    twin = copy.deepcopy(runs[1].model)
    with torch.no_grad():
        for p in runs[0].model.parameters():
            p.fill_(torch.nan)
    lockstep = Lockstep(runs, StackedNetwork(runs[0].model))
    losses = lockstep.step([batches[1] for batches in data])
    assert losses[0].isnan()
    assert all(p.isfinite().all() for p in runs[1].model.parameters())
    out = twin.train()(data[1][1].x.double())
    torch.testing.assert_close(
        losses[1].double(), torch.nn.functional.cross_entropy(out, data[1][1].y), rtol=1e-6, atol=1e-6
    )


def test_tiny_gradients_climb_by_the_whole_radius():
    """1e-30 squared is zero in float32, and float64 holds no 1e-200 squared."""
    runs, _ = _pair()
    lockstep = Lockstep(runs, StackedNetwork(runs[0].model))
    before = lockstep._rows.detach().clone()
    lockstep._rows.grad = torch.zeros_like(before)
    lockstep._rows.grad[0, 3], lockstep._rows.grad[1, 5] = 1e-200, -1e200
    rho = runs[0].opt.param_groups[0]["rho"]
    kept, norms = lockstep._climb()
    assert torch.equal(kept, before)
    assert norms.tolist() == [rho, rho]
    moved = lockstep._rows.detach() - before
    assert float(moved[0, 3]) == pytest.approx(rho, rel=1e-9)
    assert float(moved[1, 5]) == pytest.approx(-rho, rel=1e-9)
    assert moved.count_nonzero() == 2


def test_weights_come_back_bit_for_bit_after_an_error_at_w_plus_eps(monkeypatch):
    runs, data = _pair()
    network = StackedNetwork(runs[0].model)
    lockstep, calls, run = Lockstep(runs, network), [], network.run
    before = [p.detach().clone() for steps in runs for p in steps.model.parameters()]

    def broken(*args, **kwargs):
        calls.append([p.detach().clone() for steps in runs for p in steps.model.parameters()])
        if len(calls) == 2:
            raise RuntimeError("no more memory")
        return run(*args, **kwargs)

    monkeypatch.setattr(network, "run", broken)
    with pytest.raises(RuntimeError, match="no more memory"):
        lockstep.step([batches[1] for batches in data])
    assert not torch.equal(calls[1][0], before[0])
    assert all(torch.equal(p, b) for p, b in zip((p for s in runs for p in s.model.parameters()), before, strict=True))


@pytest.mark.parametrize(
    "method",
    [name for name in METHODS if name not in ("sam", "bisam", "tailsam")] + ["bisam-log+msam", "bisam-log+asam"],
)
def test_any_other_choice_takes_its_steps_itself(method):
    steps = _steps(load("digits", EXACT), method, 0)
    assert kind_of(steps) is None


def test_a_base_that_is_not_entrywise_takes_its_steps_itself():
    recipe = load("digits", [*EXACT, "train.optimizer=torch.optim:RMSprop", "train.momentum=0.9", "methods=[sam]"])
    assert kind_of(_steps(recipe, "sam", 0)) is None
    frozen = Perceptron()
    frozen.layers[1].requires_grad_(False)
    assert kind_of(_steps(load("digits", EXACT), "sam", 0, lambda: frozen)) is None


@pytest.fixture
def sizes(monkeypatch):
    """How many runs each step in lockstep has had."""
    found, step = [], Lockstep.step

    def counted(self, batches):
        found.append(len(batches))
        return step(self, batches)

    monkeypatch.setattr(module.Lockstep, "step", counted)
    return found


def test_a_checkpoint_in_lockstep_holds_its_own_run_alone(tmp_path, sizes):
    """Its tensors are views of what all runs share; torch would save all of it with each."""
    recipe = load("digits", [*TINY, "train.epochs=2", "engine.precision=64-true"])
    n = 8
    results = together(
        [partial(training, recipe, "sam", k, folder=tmp_path / str(k), stack=n, every=0) for k in range(n)]
    )
    assert max(sizes) == n
    alone(training(recipe, "sam", 0, folder=tmp_path / "alone"))
    for name in ("last.pt", "previous.pt", "best.pt"):
        size = (tmp_path / "0" / "checkpoints" / name).stat().st_size
        assert size < 1.1 * (tmp_path / "alone" / "checkpoints" / "last.pt").stat().st_size
    previous = Checkpoints(tmp_path / "3" / "checkpoints").previous
    assert len(read(previous)["history"]) == 1  # of the last step of the second epoch, and that epoch is not scored
    previous.replace(previous.with_name("last.pt"))
    again = alone(training(recipe, "sam", 3, folder=tmp_path / "3"))
    assert again.test_score == results[3].test_score


def test_a_run_that_ends_early_leaves_the_others_in_lockstep(sizes):
    recipe = load("digits", [*TINY, "train.epochs=6", "train.patience=1", "engine.precision=64-true"])
    n = 5
    found = together([partial(training, recipe, "sam", k, stack=n) for k in range(n)])
    lengths = [len(result.history) for result in found]
    assert len(set(lengths)) > 1, "choose seeds that end at different epochs"
    assert sizes[0] == n
    assert 1 < sizes[-1] < n
    for seed, result in enumerate(found):
        expected = train(recipe, "sam", seed)
        assert [e.validation_score for e in result.history] == [e.validation_score for e in expected.history]
        assert result.test_score == expected.test_score


#: Numbers of an epoch that do not depend on the clock.
NUMBERS = ["train_loss", "gradient_norm", "eps_norm", "train_score", "rho", "climbed", "vanished", "ascent_samples"]
NUMBERS += ["error_rise", "perturbed_loss", "chance_loss", "same_class"]


@pytest.mark.parametrize("tail", ["tailsam@tail=0.5", "tailsam@tail=0.5+bisam-log"])
def test_tails_step_with_plain_runs_and_then_by_themselves(tail, sizes):
    """Six steps: the first is each run's own, two more are plain, and the tail is the last three."""
    recipe = load("digits", [*TINY, "train.epochs=2", "engine.precision=64-true", f"methods=[sgd,'{tail}']"])
    names = ["sgd", "sgd", tail, tail]
    found = together([partial(training, recipe, method, k, stack=4) for k, method in enumerate(names)])
    assert sizes == [4, 4] + [2, 2] * 3
    for seed, (method, result) in enumerate(zip(names, found, strict=True)):
        expected = train(recipe, method, seed)
        assert [e.passes for e in result.history] == [e.passes for e in expected.history]
        for name in NUMBERS:
            both = ([getattr(e, name) for e in run.history] for run in (result, expected))
            assert next(both) == pytest.approx(next(both), nan_ok=True), name
        assert result.history[1].climbed == (0 if method == "sgd" else 1)
        assert result.test_score == expected.test_score
    assert [e.eps_norm > 0 for e in found[2].history] == [False, True]
    assert [e.passes for e in found[2].history] == [1.0, 2.0]
