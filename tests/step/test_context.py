"""Steps without a gradient, loops that were left, loops that cross, and other threads: each is told."""

import copy
import itertools
import sys
import threading

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from bisam import METHODS, SAM, BiSAM
from bisam.testing import Net, bits, run_steps
from tests.makers import MAKERS
from tests.steps import X, Y, sgd, turn

# -- the gradient that was never made ----------------------------------------------------------------------------------


def plain_backward(model):
    cross_entropy(model(X), Y).backward()


@pytest.mark.parametrize("name", METHODS)
def test_a_step_without_a_loop_is_refused(name):
    model = Net()
    opt, before = MAKERS[name](sgd(model), model=model), bits(model)
    for _ in range(2):
        opt.zero_grad()
        plain_backward(model)
        with pytest.raises(RuntimeError, match=r"no loop over passes\(\) has run.*opt\.base\.step\(\)"):
            opt.step()
    assert bits(model) == before


def test_after_a_step_its_gradient_is_used_up():
    model = Net()
    opt = SAM(sgd(model), model=model)
    turn(opt, model)
    opt.step()
    with pytest.raises(RuntimeError, match=r"no loop over passes\(\) has run since the last step"):
        opt.step()


def test_what_a_plain_step_on_purpose_looks_like():
    model, twin = Net(), Net()
    opt, base = SAM(sgd(model), model=model), sgd(twin)
    plain_backward(model)
    opt.base.step()
    plain_backward(twin)
    base.step()
    assert bits(model) == bits(twin)


@pytest.mark.parametrize("why", ["no gradient", "zero gradients", "no rate", "no radius", "small gradients are some"])
def test_steps_that_furnish_state_are_none_of_training(why):
    """torch.distributed.checkpoint steps with zero gradients and rate zero, so that the state exists."""
    model = Net()
    opt = SAM(torch.optim.Adam(model.parameters(), lr=0.0 if why == "no rate" else 0.1), model=model)
    before = bits(model)
    if why != "no gradient":
        plain_backward(model)
    if why == "zero gradients":
        opt.zero_grad(set_to_none=False)
    if why == "no radius":
        opt.param_groups[0]["rho"] = 0.0
    if why == "small gradients are some":
        for param in model.parameters():
            if param.grad is not None:
                param.grad.mul_(0)
        model.head.bias.grad[0] = 1e-300
        with pytest.raises(RuntimeError, match="no loop"):
            opt.step()
        return
    opt.step()
    assert (bits(model) == before) is (why != "no radius")
    assert opt.param_groups[0]["sharpness_steps"] == 0


def test_torchs_own_way_to_furnish_state():
    from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

    model, other = nn.Linear(6, 4).double(), nn.Linear(6, 4).double()
    opt, fresh = SAM(sgd(model), model=model), SAM(sgd(other), model=other)
    turn(opt, model)
    opt.step()
    state = get_optimizer_state_dict(model, opt)
    set_optimizer_state_dict(other, fresh, state)
    assert torch.equal(fresh.state[other.weight]["momentum_buffer"], opt.state[model.weight]["momentum_buffer"])
    assert fresh.param_groups[0]["sharpness_steps"] == 1


def test_the_right_path_looks_at_no_gradient():
    """No operation at all is dispatched by the check."""
    from bisam.testing import count_operations

    model, twin = Net(), Net()
    opt, base = SAM(sgd(model, momentum=0.0), model=model), sgd(twin, momentum=0.0)
    turn(opt, model)
    plain_backward(twin)
    with count_operations() as ours:
        opt.step()
    with count_operations() as theirs:
        base.step()
    assert [name for name in ours.names if "record_function" not in name] == [
        name for name in theirs.names if "record_function" not in name
    ]


# -- the gradient that was dropped -------------------------------------------------------------------------------------


def early(name, opt, model):
    views = [X, X.flip(0)]
    if name == "break":
        for objective in opt.passes():
            objective(model(X), Y).backward()
            if not objective.is_ascent:
                break
    elif name == "islice":
        for objective in itertools.islice(opt.passes(), 2):
            objective(model(X), Y).backward()
    elif name == "zip":
        for objective, view in zip(opt.passes(), views, strict=False):
            objective(model(view), Y).backward()
    elif name == "range":
        for _, objective in zip(range(2), opt.passes(), strict=False):
            objective(model(X), Y).backward()
    else:
        loop = opt.passes()
        for _ in range(2):
            next(loop)(model(X), Y).backward()


@pytest.mark.parametrize("name", ["islice", "range", "next by hand in a function", "break"])
@pytest.mark.parametrize("method", [SAM, BiSAM])
def test_a_gradient_that_was_dropped_is_told_by_step(name, method):
    model = Net()
    opt, before = method(sgd(model), model=model), bits(model)
    early(name, opt, model)
    with pytest.raises(RuntimeError, match=r"left in pass 1, its last one.*strict=True.*zero_grad\(\)"):
        opt.step()
    assert bits(model) == before
    turn(opt, model)  # and a loop that runs to its end makes it good
    opt.step()
    assert bits(model) != before


def test_spellings_that_end_the_loop_lose_nothing():
    def spelled(run):
        model = Net()
        opt = SAM(sgd(model), model=model)
        run(opt, model)
        opt.step()
        return bits(model)

    def by_map(opt, model):
        list(map(lambda objective: objective(model(X), Y).backward(), opt.passes()))  # noqa: C417 - its own protocol

    def by_hand(opt, model):
        opt.held = opt.passes()  # held, so that step() can end it
        for _ in range(2):
            next(opt.held)(model(X), Y).backward()

    def by_zip(opt, model):
        for objective, view in zip(opt.passes(), [X, X], strict=True):
            objective(model(view), Y).backward()

    def enumerated(opt, model):
        for _, objective in enumerate(opt.passes()):
            objective(model(X), Y).backward()

    whole = spelled(lambda opt, model: turn(opt, model))
    assert [spelled(run) == whole for run in (by_map, by_hand, by_zip, enumerated)] == [True] * 4


def test_left_in_the_ascent_pass():
    model = Net()
    opt = SAM(sgd(model), model=model)
    for objective in opt.passes():
        objective(model(X), Y).backward()
        break
    with pytest.raises(RuntimeError, match=r"left in pass 0, before its last backward\(\)"):
        opt.step()


def test_left_on_purpose():
    """A batch is given up: zero_grad() says so, and so does a loop that was run anew."""
    model = Net()
    opt, before = SAM(sgd(model), model=model), bits(model)
    early("break", opt, model)
    opt.zero_grad()
    opt.step()  # nothing to do
    assert bits(model) == before
    with pytest.raises(ZeroDivisionError):
        for objective in opt.passes():
            objective(model(X), Y).backward()
            raise ZeroDivisionError
    turn(opt, model, X[:8], Y[:8])  # out of memory: once more with fewer samples
    opt.step()


def test_one_dropped_micro_batch_of_several():
    model = Net()
    opt = SAM(sgd(model), model=model)
    turn(opt, model)
    early("break", opt, model)
    with pytest.raises(RuntimeError, match="left in pass 1"):
        opt.step()


def test_two_networks_with_one_loss():
    """zip() leaves the second loop unfinished and its network untrained: told. With strict=True both are right."""

    def train(strict):
        torch.manual_seed(0)
        body, head = nn.Sequential(nn.Linear(6, 8), nn.Tanh()).double(), nn.Linear(8, 4).double()
        one, two = SAM(sgd(body), model=body, rho=0.05), SAM(sgd(head), model=head, rho=0.05)
        for first, _ in zip(one.passes(), two.passes(), strict=strict):
            first(head(body(X)), Y).backward()
        one.step()
        two.step()
        return body, head

    with pytest.raises(RuntimeError, match="strict=True"):
        train(False)
    body, head = train(True)
    # the textbook: each network climbs its own gradient with its own norm, and both are at w + eps in the second pass
    torch.manual_seed(0)
    nets = [nn.Sequential(nn.Linear(6, 8), nn.Tanh()).double(), nn.Linear(8, 4).double()]
    cross_entropy(nets[1](nets[0](X)), Y).backward()
    before = [[p.detach().clone() for p in net.parameters()] for net in nets]
    with torch.no_grad():
        for net in nets:
            norm = torch.cat([p.grad.flatten() for p in net.parameters()]).norm()
            for p in net.parameters():
                p += 0.05 * p.grad / norm
                p.grad = None
    cross_entropy(nets[1](nets[0](X)), Y).backward()
    for net, old, ours in zip(nets, before, (body, head), strict=True):
        with torch.no_grad():
            for p, b, q in zip(net.parameters(), old, ours.parameters(), strict=True):
                torch.testing.assert_close(q.detach(), b - 0.1 * p.grad, rtol=1e-12, atol=1e-14)


# -- loops that cross --------------------------------------------------------------------------------------------------


def test_crossed_loops_over_shared_weights_are_refused_and_leave_w():
    model = Net()
    before = bits(model)
    one = SAM(sgd(model), model=model)
    two = SAM(torch.optim.SGD([model.head.weight], lr=0.1), model=model)
    with pytest.raises(RuntimeError, match=r"parameter head\.weight is in the running loop over passes\(\) of another"):
        for first, second in zip(one.passes(), two.passes(), strict=True):
            first(model(X), Y).backward()
            second(model(X), Y).backward()
    assert bits(model) == before
    turn(two, model)  # one after the other is fine
    turn(one, model)
    assert bits(model) == before


def test_a_loop_that_an_interrupted_cell_still_holds_does_not_spoil_the_next_optimizer():
    model = Net()
    before = bits(model)
    old = SAM(sgd(model), model=model)
    held = old.passes()
    next(held)(model(X), Y).backward()
    next(held)
    assert bits(model) != before
    new = SAM(sgd(model), model=model)
    with pytest.raises(RuntimeError, match=r"zero_grad\(\) of that optimizer"):
        turn(new, model)
    old.zero_grad()
    assert bits(model) == before
    turn(new, model)


def test_two_loops_of_one_optimizer():
    model = Net()
    opt, before = SAM(sgd(model), model=model), bits(model)
    one, two = opt.passes(), opt.passes()
    next(one)(model(X), Y).backward()
    with pytest.raises(RuntimeError, match="another loop over passes"):
        next(two)
    next(one)(model(X), Y).backward()
    assert next(one, None) is None
    assert bits(model) == before
    opt.step()
    assert bits(model) != before


def in_thread(function):
    errors = []

    def run():
        try:
            function()
        except RuntimeError as error:
            errors.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return errors


@pytest.mark.parametrize("method", ["state_dict", "zero_grad", "step", "passes", "unwrap"])
def test_another_thread_does_not_end_a_running_loop(method):
    """A thread that writes checkpoints would give the weights back under the training's feet."""
    model, twin = Net(), Net()
    opt, other = SAM(sgd(model), model=model), SAM(sgd(twin), model=twin)
    for objective in opt.passes():
        (message,) = in_thread(getattr(opt, method))
        assert "in another thread" in message
        assert method in message
        objective(model(X), Y).backward()
    opt.step()
    run_steps(twin, other, [(X, Y)])
    assert bits(model) == bits(twin)
    opt.zero_grad()
    assert in_thread(opt.state_dict) == []  # between the steps anybody may


def test_two_threads_on_one_model_are_refused():
    model = Net()
    one, two = SAM(sgd(model), model=model), SAM(sgd(model), model=model)
    for objective in one.passes():
        (message,) = in_thread(lambda: turn(two, model))
        assert "of another thread" in message
        objective(model(X), Y).backward()


def test_two_threads_on_two_models():
    data = [(X, Y)] * 20

    def train(out, seed):
        model = Net(seed)
        run_steps(model, SAM(sgd(model), model=model), data)
        out[seed] = bits(model)

    alone, together = {}, {}
    torch.manual_seed(0)
    models = {seed: Net(seed) for seed in (1, 2)}  # building draws from the global generator
    for out in (alone, together):
        copies = {seed: copy.deepcopy(model) for seed, model in models.items()}

        def run(seed, copies=copies, out=out):
            run_steps(copies[seed], SAM(sgd(copies[seed]), model=copies[seed]), data)
            out[seed] = bits(copies[seed])

        threads = [threading.Thread(target=run, args=(seed,)) for seed in copies]
        for thread in threads:
            thread.start()
            if out is alone:
                thread.join()
        for thread in threads:
            thread.join()
    assert alone == together


# -- parameters of others ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rho", [0.0, 0.1])
@pytest.mark.parametrize("stop", [0, 1])
def test_an_early_exit_keeps_no_gradient_of_parameters_outside_of_the_optimizer(rho, stop):
    model = Net()
    opt = SAM(torch.optim.SGD(model.first.parameters(), lr=0.1), model=model, rho=rho)
    model.head.bias.grad = torch.full_like(model.head.bias, 3.0)
    with pytest.raises(ZeroDivisionError):
        for objective in opt.passes():
            objective(model(X), Y).backward()
            if objective.index == stop or rho == 0:
                raise ZeroDivisionError
    assert model.head.weight.grad is None
    assert (model.head.bias.grad == 3.0).all()


def test_a_closures_zero_grad_clears_what_is_the_optimizers_own():
    """The head is another optimizer's and has a gradient from before: it stays, and gains the last pass's."""
    model, twin = Net(), Net()
    opt = SAM(torch.optim.SGD(model.first.parameters(), lr=0.0), model=model, rho=1e-12)
    model.head.bias.grad = torch.full_like(model.head.bias, 3.0)
    model.first.weight.grad = torch.full_like(model.first.weight, 3.0)

    def closure():
        opt.zero_grad()
        loss = opt.objective(model(X), Y)
        loss.backward()
        return loss

    opt.step(closure)
    cross_entropy(twin(X), Y).backward()
    torch.testing.assert_close(model.head.bias.grad, twin.head.bias.grad + 3.0, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(model.first.weight.grad, twin.first.weight.grad, rtol=1e-6, atol=1e-9)


# -- step(closure) after a backward() of somebody else -----------------------------------------------------------------


def closure_of(opt, model, clears=False):
    def closure():
        if clears:
            opt.zero_grad()
        loss = opt.objective(model(X), Y)
        loss.backward()
        return loss

    return closure


def test_a_backward_before_step_closure_counts_twice_and_is_told_once():
    model, twin = Net(), Net()
    opt, other = SAM(sgd(model), model=model), SAM(sgd(twin), model=twin)
    plain_backward(model)
    with pytest.warns(UserWarning, match=r"leave out the backward\(\) before step\(closure\)"):
        opt.step(closure_of(opt, model))
    other.step(closure_of(other, twin))
    assert bits(model) != bits(twin)
    opt.zero_grad()
    plain_backward(model)
    opt.step(closure_of(opt, model))  # once


@pytest.mark.parametrize("how", ["cleared in the closure", "zeros", "accumulated by loops"])
def test_gradients_that_step_closure_may_find(how):
    model = Net()
    opt = SAM(sgd(model), model=model)
    if how == "accumulated by loops":
        turn(opt, model)
    else:
        plain_backward(model)
    if how == "zeros":
        opt.zero_grad(set_to_none=False)
    opt.step(closure_of(opt, model, clears=how == "cleared in the closure"))


# -- a base whose state dict is not torch's ----------------------------------------------------------------------------


class OddStateDict(torch.optim.SGD):
    """A wrapper's kind of state dict, as Lookahead implementations have it."""

    def state_dict(self):
        return {"lookahead_state": {}, "base_optimizer": super().state_dict()}

    def load_state_dict(self, state_dict):
        super().load_state_dict(state_dict["base_optimizer"])


def test_a_state_dict_of_another_format_passes_through_where_there_is_nothing_to_add():
    model, twin = Net(), Net()
    opt = SAM(OddStateDict(model.parameters(), lr=0.1, momentum=0.9), model=model, rho=0.1)
    run_steps(model, opt, [(X, Y)] * 2)
    saved = copy.deepcopy(opt.state_dict())
    assert set(saved) == {"lookahead_state", "base_optimizer"}
    twin.load_state_dict(model.state_dict())
    other = SAM(OddStateDict(twin.parameters(), lr=0.1, momentum=0.9), model=twin, rho=0.5)
    other.load_state_dict(saved)
    assert other.param_groups[0]["rho"] == 0.1
    assert other.param_groups[0]["sharpness_steps"] == 2
    for m, o in ((model, opt), (twin, other)):
        run_steps(m, o, [(X, Y)] * 2)
    assert bits(model) == bits(twin)


@pytest.mark.parametrize("name", ["friendlysam", "looksam", "asyncsam"])
def test_a_method_that_remembers_refuses_it(name):
    model = Net()
    with pytest.raises(ValueError, match=r"OddStateDict saves \['base_optimizer', 'lookahead_state'\] instead"):
        MAKERS[name](OddStateDict(model.parameters(), lr=0.1), model=model)


# -- right programs that must not be stopped -------------------------------------------------------------------------


def test_a_micro_batch_that_is_given_up_leaves_the_others_theirs():
    """Out of memory, or a loss that is not finite, in the first pass of one micro-batch of several."""
    model, twin = Net(), Net()
    opt, other = SAM(sgd(model), model=model), SAM(sgd(twin), model=twin)
    turn(opt, model)
    for objective in opt.passes():
        objective(model(X), Y)
        break
    opt.step()
    turn(other, twin)
    other.step()
    ours = [p.detach() for n, p in model.named_parameters()]
    assert all(map(torch.equal, ours, (p.detach() for p in twin.parameters())))


def test_a_thread_that_has_ended_does_not_own_its_loop_any_more():
    model = Net()
    opt, before, held = SAM(sgd(model), model=model), bits(model), []

    def worker():
        held.append(opt.passes())
        next(held[0])(model(X), Y).backward()
        next(held[0])

    thread = threading.Thread(target=worker)
    thread.start()
    thread.join()
    assert bits(model) != before
    opt.zero_grad()
    assert bits(model) == before


def test_many_threads_that_each_train_a_model():
    """The list of running steps is shared by all of them."""
    failed = []

    def train(seed):
        torch.manual_seed(seed)
        model = nn.Sequential(*[nn.Linear(4, 4) for _ in range(60)])
        opt = SAM(torch.optim.SGD(model.parameters(), lr=0.01), model=model)
        try:
            for _ in range(15):
                turn(opt, model, torch.randn(2, 4), torch.tensor([0, 1]))
                opt.step()
                opt.zero_grad()
        except RuntimeError as error:
            failed.append(str(error))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=train, args=(seed,)) for seed in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not failed


def test_a_loop_that_is_dropped_while_the_list_is_read_does_not_lock():
    """The collector may drop a loop at any moment, also in the thread that registers the next one."""
    from bisam._step import context

    model, other = Net(), Net()
    held = [SAM(sgd(model), model=model).passes()]
    next(held[0])
    with context._registry:
        held.clear()  # restores, and takes itself off the list
    turn(SAM(sgd(other), model=other), other)
