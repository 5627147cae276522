"""The wrapper as a ``torch.optim.Optimizer``: closures, hooks, groups, state, construction."""

import gc
import math
import warnings
import weakref

import pytest
import torch
from torch import nn

import bisam
from bisam import ASAM, METHODS, SAM, BiSAM, TailSAM
from bisam.cadence import Every, Window
from bisam.combine import Blend
from bisam.testing import Net, batches, bits, run_steps
from tests.makers import MAKERS
from tests.steps import X, Y, sgd, turn

# -- closures ----------------------------------------------------------------------------------------------------------


def test_step_with_a_closure_equals_the_loop():
    model, other = Net(), Net()
    opt = BiSAM(sgd(model), model=model)
    indices = []

    def closure(x, y):
        opt.zero_grad()
        indices.append(opt.objective.index)
        loss = opt.objective(model(x), y)
        loss.backward()
        return loss.detach()

    values = []
    for batch in batches(4):
        with torch.no_grad():
            values.append(opt.step(lambda batch=batch: closure(*batch)).item())
    assert values == run_steps(other, BiSAM(sgd(other), model=other), batches(4))
    assert bits(model) == bits(other)
    assert indices == [0, 1] * 4


@pytest.mark.matrix("closure")
@pytest.mark.parametrize("name", METHODS)
def test_a_closure_that_clears_gradients_first_equals_the_loop(name):
    weights = []
    for closures in (True, False):
        model = Net()
        opt = MAKERS[name](sgd(model), model=model)
        for x, y in batches(6):

            def closure(model=model, opt=opt, x=x, y=y):
                opt.zero_grad()
                loss = opt.objective(model(x), y)
                loss.backward()
                return loss

            if closures:
                opt.step(closure)
            else:
                turn(opt, model, x, y)
                opt.step()
                opt.zero_grad()
        weights.append([p.detach().clone() for p in model.parameters()])
    for p, q in zip(*weights, strict=True):
        assert torch.equal(p, q)


def test_a_closure_that_fails_leaves_no_trace():
    model = Net()
    opt, before = BiSAM(sgd(model), model=model), bits(model)

    def closure():
        loss = opt.objective(model(X), Y)
        loss.backward()
        if not opt.objective.is_ascent:
            raise MemoryError
        return loss

    with pytest.raises(MemoryError):
        opt.step(closure)
    assert bits(model) == before
    opt.zero_grad()
    turn(opt, model)


# -- what else uses an optimizer ---------------------------------------------------------------------------------------


def test_hooks_run_once():
    model = Net()
    opt = SAM(sgd(model), model=model)
    calls = []
    opt.register_step_pre_hook(lambda *args: calls.append("before"))
    opt.register_step_post_hook(lambda *args: calls.append("after"))
    opt.register_state_dict_pre_hook(lambda opt: calls.append("saving"))
    opt.register_state_dict_post_hook(lambda opt, state: {**state, "mark": 1})
    opt.register_load_state_dict_pre_hook(lambda opt, state: {k: v for k, v in state.items() if k != "mark"})
    opt.register_load_state_dict_post_hook(lambda opt: calls.append("loaded"))
    turn(opt, model)
    opt.step()
    state = opt.state_dict()
    assert state["mark"] == 1
    opt.load_state_dict(state)
    assert calls == ["before", "after", "saving", "loaded"]


def test_groups_are_shared_and_new_ones_take_the_default_rho():
    model = Net()
    opt = SAM(torch.optim.SGD([model.first.weight], lr=0.1), model=model, rho=0.2)
    opt.add_param_group({"params": [model.middle.weight]})
    opt.base.add_param_group({"params": [model.head.weight], "rho": 0.7})
    assert [g["rho"] for g in opt.param_groups] == [0.2, 0.2, 0.7]
    assert opt.param_groups is opt.base.param_groups
    assert opt.state is opt.base.state
    turn(opt, model)
    opt.step()
    assert opt.param_groups[0]["sharpness_steps"] == 1


def test_clipping_between_the_loop_and_step():
    model, other = Net(), Net()
    opt = SAM(sgd(model, momentum=0), model=model)
    turn(opt, model)
    nn.utils.clip_grad_norm_(model.parameters(), 0.01)
    opt.step()
    turn(SAM(sgd(other), model=other), other)
    nn.utils.clip_grad_norm_(other.parameters(), 0.01)
    sgd(other, momentum=0).step()
    assert bits(model) == bits(other)
    change = torch.cat(
        [(p - q).detach().flatten() for p, q in zip(model.parameters(), Net().parameters(), strict=True)]
    )
    assert math.isclose(change.norm(), 0.1 * 0.01, rel_tol=1e-4)


def test_all_lr_schedulers_that_ask_for_defaults_attach():
    model = Net()
    opt = SAM(sgd(model), model=model)
    torch.optim.lr_scheduler.OneCycleLR(opt, max_lr=0.1, total_steps=10)
    assert "max_lr" in opt.base.param_groups[0]


def test_a_step_that_no_pass_went_before_does_not_move_the_cadence():
    """torch.distributed.checkpoint steps an optimizer to furnish its state."""
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict

    model = Net()
    opt = SAM(sgd(model), model=model)
    run_steps(model, opt, batches(2))
    get_optimizer_state_dict(model, opt)
    assert opt.param_groups[0]["sharpness_steps"] == 2


def test_nothing_is_kept_alive():
    model = Net()
    opt = SAM(sgd(model), model=model)
    turn(opt, model)
    opt.step()
    opt.zero_grad()
    gc.collect()
    weights = {p.data_ptr() for p in model.parameters()} | {b.data_ptr() for b in model.buffers()}
    kept = {t.data_ptr() for s in opt.state.values() for t in s.values() if isinstance(t, torch.Tensor)}
    big = [
        o
        for o in gc.get_objects()
        if type(o) is torch.Tensor
        and o.shape in {p.shape for p in model.parameters() if p.ndim == 2}
        and o.dtype == torch.float64
    ]
    assert not [o for o in big if o.data_ptr() not in weights | kept and o.is_floating_point()]


def test_a_model_that_holds_its_optimizer_is_freed_with_it():
    """What is judged when the optimizer is gone must not keep it: model -> optimizer -> model is a cycle."""
    model = Net()
    model.optimizer = SAM(sgd(model), model=model)
    run_steps(model, model.optimizer, batches(1))
    gone = weakref.ref(model.optimizer)
    del model
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize(("steps", "words"), [(3, "perturbed none of the 3 steps"), (0, None)])
def test_a_cadence_that_never_opened_is_told_once_when_the_optimizer_goes(steps, words):
    model = Net()
    opt = SAM(sgd(model), model=model, cadence=Window(100))
    run_steps(model, opt, batches(steps))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        del opt
        gc.collect()
    told = [str(w.message) for w in seen if "cadence=" in str(w.message)]
    assert len(told) == (words is not None)
    assert words is None or words in told[0]
    assert words is None or "count the calls of opt.step()" in told[0]


def test_a_cadence_that_opened_before_the_run_was_resumed_is_not_told():
    model = Net()
    opt = SAM(sgd(model), model=model, cadence=Window(0, 2))
    run_steps(model, opt, batches(3))
    state = opt.state_dict()
    twin = SAM(sgd(model), model=model, cadence=Window(0, 2))
    twin.load_state_dict(state)
    run_steps(model, twin, batches(2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del opt, twin
        gc.collect()


def test_a_tail_that_goes_on_after_the_training_is_told():
    model = Net()
    opt = TailSAM(sgd(model), model=model, total_steps=2, tail=0.5)
    run_steps(model, opt, batches(2))
    with pytest.warns(UserWarning, match=r"step 3, after the end of the training: pass total_steps="):
        run_steps(model, opt, batches(1))


# -- construction ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "words", "call"),
    [
        (TypeError, ["base", "torch.optim.SGD("], lambda m: SAM(m.parameters())),
        (TypeError, ["base", "SAM", "base.unwrap()"], lambda m: SAM(SAM(sgd(m)))),
        (ValueError, ["LBFGS", "AdamW"], lambda m: SAM(torch.optim.LBFGS(m.parameters()))),
        (ValueError, ["rho=-0.1", "0 or greater"], lambda m: SAM(sgd(m), rho=-0.1)),
        (ValueError, ["rho=nan"], lambda m: SAM(sgd(m), rho=math.nan)),
        (TypeError, ["rho='big'"], lambda m: SAM(sgd(m), rho="big")),
        (
            ValueError,
            ["rho=-1"],
            lambda m: SAM(torch.optim.SGD([{"params": m.parameters(), "rho": -1}], lr=0.1)),
        ),
        (ValueError, ["model=", "none of the parameters"], lambda m: SAM(sgd(m), model=Net())),
        (ValueError, ["eta=-1"], lambda m: ASAM(sgd(m), eta=-1)),
        (ValueError, ["bound='huber'"], lambda m: BiSAM(sgd(m), bound="huber")),
        (ValueError, ["combine=Blend(weight=2.0)", "leave out"], lambda m: BiSAM(sgd(m), combine=Blend(2))),
        (ValueError, ["k=0"], lambda m: SAM(sgd(m), cadence=Every(0))),
        (ValueError, ["weight=0"], lambda m: Blend(0)),
    ],
)
def test_construction_errors(error, words, call):
    with pytest.raises(error) as caught:
        call(Net())
    for word in words:
        assert word in str(caught.value)


def test_a_failed_constructor_leaves_the_base_as_it_was():
    model = Net()
    base = torch.optim.SGD([{"params": model.parameters(), "rho": -1.0}], lr=0.1)
    with pytest.raises(ValueError, match="rho=-1"):
        SAM(base)
    base.param_groups[0]["rho"] = 0.1
    SAM(base)


def test_the_public_names_are_documented():
    for name in bisam.__all__:
        assert getattr(bisam, name).__doc__, name
