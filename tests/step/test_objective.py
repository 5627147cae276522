"""The objective of a pass: what it is called with, what it says that it was, and when its backward() comes."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from bisam import SAM, BiSAM, LowerBoundLoss
from bisam.testing import Net
from tests.steps import X, Y, sgd, turn

Z = (Y + 1) % 4
Q = LowerBoundLoss()


def mixed(loss, out):
    return 0.7 * loss(out, Y) + 0.3 * loss(out, Z)


# -- several calls in one pass -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [None, 1024.0])
def test_two_calls_are_added_up_as_backward_weighs_them(scale):
    """CutMix: lam L(f, a) + (1 - lam) L(f, b)."""
    model, twin = Net(), Net()
    opt = BiSAM(sgd(model), model=model, rho=0.1)
    out = twin(X)
    expected = mixed(Q, out).item(), mixed(cross_entropy, out).item()
    seen = []
    for objective in opt.passes(grad_scale=scale):
        loss = mixed(objective, model(X))
        assert objective.value is None  # what backward() will make of the two is not known yet
        (loss * (scale or 1.0)).backward()
        seen.append((objective.value.item(), loss.item()))
    for value, loss in seen:
        assert value == pytest.approx(loss, rel=1e-12)
    assert opt.last.ascent_value == pytest.approx(expected[0], rel=1e-12)
    assert opt.last.loss.item() == pytest.approx(expected[1], rel=1e-12)


def test_micro_batches_inside_the_pass():
    """backward() comes after each call: the value is the mean over the batch, and so is the loss at w."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)).double()
    twin = copy.deepcopy(model)
    opt = BiSAM(sgd(model), model=model, rho=0.1)
    for objective in opt.passes():
        for x, y in zip(X.chunk(4), Y.chunk(4), strict=True):
            (objective(model(x), y) / 4).backward()
    assert opt.last.ascent_value == pytest.approx(Q(twin(X), Y).item(), rel=1e-12)
    assert opt.last.loss.item() == pytest.approx(cross_entropy(twin(X), Y).item(), rel=1e-12)
    assert opt.last.output is None  # there are four


def test_auxiliary_heads():
    torch.manual_seed(0)
    body, head, aux = (layer.double() for layer in (nn.Linear(6, 8), nn.Linear(8, 4), nn.Linear(8, 4)))
    model = nn.ModuleList([body, head, aux])
    with torch.no_grad():
        hidden = body(X).tanh()
        expected = (cross_entropy(head(hidden), Y) + 0.4 * cross_entropy(aux(hidden), Y)).item()
    opt = SAM(sgd(model), model=model)
    for objective in opt.passes():
        hidden = body(X).tanh()
        (objective(head(hidden), Y) + 0.4 * objective(aux(hidden), Y)).backward()
    assert opt.last.loss.item() == pytest.approx(expected, rel=1e-12)
    assert opt.last.ascent_value == pytest.approx(expected, rel=1e-12)


def test_a_call_that_takes_no_part_in_the_loss_is_not_counted():
    model = Net()
    opt, expected = SAM(sgd(model), model=model), None
    for objective in opt.passes():
        out = model(X)
        loss = objective(out, Y)
        with torch.no_grad():
            objective(out, Z)  # looked at
        objective(out, Z)  # and one that backward() never sees
        loss.backward()
        expected = loss.item() if objective.index == 0 else expected
    assert opt.last.loss.item() == pytest.approx(expected, rel=1e-12)


def test_sums_under_a_scale_that_nobody_told_are_withdrawn():
    model = Net().float()
    opt, scaler = SAM(sgd(model), model=model), torch.amp.GradScaler("cpu")
    for objective in opt.passes():
        scaler.scale(mixed(objective, model(X.float()))).backward()
    scaler.step(opt)
    scaler.update()
    assert opt.last.ascent_value is None
    assert opt.last.loss is None
    opt.zero_grad()
    expected = mixed(cross_entropy, copy.deepcopy(model)(X.float())).item()
    for objective in opt.passes(grad_scale=scaler):
        scaler.scale(mixed(objective, model(X.float()))).backward()
    scaler.step(opt)
    scaler.update(2.0)  # the scale changes in place after the step
    assert opt.last.loss.item() == pytest.approx(expected, rel=1e-5)


def test_what_was_recorded_goes_before_what_was_called():
    model = Net()
    opt, whole = SAM(sgd(model), model=model), None
    for objective in opt.passes():
        out = model(X)
        loss = objective(out, Y) + out.square().mean()
        objective.record(loss).backward()
        whole = loss.item() if objective.index == 0 else whole
    assert opt.last.loss.item() == pytest.approx(whole, rel=1e-12)


# -- arguments ---------------------------------------------------------------------------------------------------------


class Distillation(nn.Module):
    def forward(self, out, y, teacher):
        return cross_entropy(out, y) + (out - teacher).square().mean()


@pytest.mark.parametrize("named", [False, True])
def test_a_descent_of_three_arguments_says_how_to_write_it(named):
    model = Net()
    teacher = torch.zeros(16, 4).double()
    opt = BiSAM(sgd(model), model=model, descent=Distillation())
    with pytest.raises(TypeError, match=r"ascent objective LowerBoundLoss.*objective\(output, target\) \+ extra"):
        for objective in opt.passes():
            (objective(model(X), Y, teacher=teacher) if named else objective(model(X), Y, teacher)).backward()
    assert model.head.weight.grad is None
    for objective in BiSAM(sgd(model), model=model).passes():  # what the message says to write
        out = model(X)
        (objective(out, Y) + (out - teacher).square().mean()).backward()


def test_a_type_error_inside_the_loss_is_passed_on_as_it_is():
    model = Net()

    def broken(out, y):
        raise TypeError("inside")

    with pytest.raises(TypeError, match=r"^inside$"):
        turn(SAM(sgd(model), model=model, descent=broken), model)


@pytest.mark.parametrize(
    ("returned", "remedy"),
    [
        (lambda out: (out.mean(), {}), r"criterion\(output, target\)\[0\]"),
        (lambda out: {"a": out.mean()}, r"objective.record\(sum\(losses.values\(\)\)\)"),
        (lambda out: 1.0, "returned float: it must return a tensor"),
    ],
)
def test_what_a_loss_may_not_return(returned, remedy):
    model = Net()
    with pytest.raises(TypeError, match=remedy):
        turn(SAM(sgd(model), model=model, descent=lambda out, y: returned(out)), model)
    with pytest.raises(TypeError, match=r"record\(\) got"):
        for objective in SAM(sgd(model), model=model).passes():
            objective.record(returned(model(X)))


# -- forward and backward in their places ------------------------------------------------------------------------------


@pytest.mark.parametrize("retain", [False, True])
def test_a_forward_pass_before_the_loop(retain):
    model = Net()
    opt, out = SAM(sgd(model), model=model), model(X)
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(RuntimeError, match=r"pass 1 was given the output of an earlier pass.*call inside"):
        for objective in opt.passes():
            objective(out, Y).backward(retain_graph=retain)
    assert all(map(torch.equal, model.parameters(), before))


@pytest.mark.parametrize("retain", [False, True])
def test_a_part_of_the_forward_pass_before_the_loop(retain):
    model = Net()
    opt, hidden = SAM(sgd(model), model=model), model.norm(model.first(X)).relu()
    with pytest.raises(
        RuntimeError, match=r"parameter (first|norm)\.weight has its part in this loss through a forward"
    ):
        for objective in opt.passes():
            objective(model.head(hidden), Y).backward(retain_graph=retain)


def test_features_of_somebody_elses_parameters_may_be_computed_before_the_loop():
    body, head = nn.Linear(6, 8).double(), nn.Linear(8, 4).double()
    opt, hidden = SAM(sgd(head), model=head), body(X).tanh()
    for objective in opt.passes():
        objective(head(hidden), Y).backward(retain_graph=True)
    assert body.weight.grad is not None


def test_backward_after_the_loop():
    model = nn.Linear(6, 4).double()  # one layer: torch itself sees nothing wrong
    opt = SAM(sgd(model), model=model)
    with pytest.warns(UserWarning, match=r"pass 0 ended, and backward\(\) was not called"):
        for objective in opt.passes():
            loss = objective(model(X), Y)
    with pytest.raises(RuntimeError, match=r"backward\(\) after the end of pass 1"):
        loss.backward()


def test_a_forgotten_backward_is_said_once():
    model = Net()
    opt = SAM(sgd(model), model=model)
    with pytest.warns(UserWarning, match=r"backward\(\) was not called") as seen:
        for _ in range(3):
            for objective in opt.passes():
                objective(model(X), Y)
    assert len(seen) == 1


# -- right programs that must not be stopped, and sums that cannot be told ---------------------------------------------


def test_a_parameter_as_the_first_argument():
    """A surface in two dimensions: there is no model, and the loss takes theta itself."""
    theta = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    opt = SAM(torch.optim.SGD([theta], lr=0.1), rho=0.1, descent=lambda w, _: (w**4).sum())
    for objective in opt.passes():
        objective(theta, None).backward()
    assert opt.last.loss.item() == pytest.approx(17.0)


def test_features_of_a_group_that_stays_put_may_be_computed_before_the_loop():
    body, head = nn.Linear(6, 8).double(), nn.Linear(8, 4).double()
    groups = [{"params": body.parameters(), "rho": 0.0}, {"params": head.parameters()}]
    opt, hidden = SAM(torch.optim.SGD(groups, lr=0.1), rho=0.1), body(X).tanh()
    for objective in opt.passes():
        objective(head(hidden), Y).backward(retain_graph=True)
    opt.step()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's own tracing reads it
def test_a_compiled_forward_pass_with_the_objective_inside():
    model = Net()
    opt = SAM(sgd(model), model=model)
    forward = torch.compile(lambda objective, x, y: objective(model(x), y), backend="eager")
    expected = cross_entropy(copy.deepcopy(model)(X), Y).item()
    for objective in opt.passes():
        forward(objective, X, Y).backward()
    assert opt.last.loss.item() == pytest.approx(expected, rel=1e-12)


def test_what_is_added_in_place_to_the_returned_loss():
    model = Net()
    opt, expected = SAM(sgd(model), model=model), None
    for objective in opt.passes():
        out = model(X)
        if objective.index == 0:
            expected = (cross_entropy(out, Y) + 0.4 * cross_entropy(out, Z)).item()
        loss = objective(out, Y)
        loss += 0.4 * objective(out, Z)
        loss.backward()
    assert opt.last.loss.item() == pytest.approx(expected, rel=1e-12)


def test_a_sum_whose_weights_are_ambiguous_is_absent():
    """autograd.grad() beside backward(), to balance two losses."""
    model = Net()
    opt = SAM(sgd(model), model=model)
    for objective in opt.passes():
        out = model(X)
        one, two = objective(out, Y), objective(out, Z)
        torch.autograd.grad(one, model.head.weight, retain_graph=True)
        (one + two).backward()
    assert opt.last.loss is None


def test_a_loss_that_is_read_in_the_loop_is_not_kept():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4)).double()
    expected = cross_entropy(model(X), Y).item()
    opt = SAM(sgd(model), model=model)
    for objective in opt.passes():
        for x, y in zip(X.chunk(4), Y.chunk(4), strict=True):
            (objective(model(x), y) / 4).backward()
            _ = opt.last.loss  # a progress bar
    assert opt.last.loss.item() == pytest.approx(expected, rel=1e-12)


def test_the_loss_at_w_under_autocast_is_in_float32():
    model = nn.Linear(6, 1000)
    opt = BiSAM(sgd(model), model=model)
    for objective in opt.passes():
        with torch.autocast("cpu", torch.bfloat16):
            out = model(X.float())
            loss = objective(out, Y)
        if objective.index == 0:
            expected = cross_entropy(out.float(), Y)
        loss.backward()
    assert torch.equal(opt.last.loss, expected.detach())


def test_a_target_that_was_overwritten_since_makes_it_absent():
    model, target = Net(), Y.clone()
    opt = BiSAM(sgd(model), model=model)
    turn(opt, model, X, target)
    target.copy_(Z)  # a buffer that the loader uses again
    assert opt.last.loss is None


def test_reading_the_loss_draws_no_random_number_of_the_training():
    model, dropout = Net(), nn.Dropout(0.5)
    opt = BiSAM(sgd(model), model=model, descent=lambda out, y: cross_entropy(dropout(out), y))
    turn(opt, model)
    state = torch.get_rng_state()
    assert opt.last.loss.item() > 0
    assert torch.equal(torch.get_rng_state(), state)


def test_a_descent_that_differentiates_its_output_has_no_loss_at_w():
    model = Net()

    def penalised(out, y):
        loss = cross_entropy(out, y)
        (gradient,) = torch.autograd.grad(loss, out, create_graph=True)
        return loss + gradient.square().sum()

    opt = BiSAM(sgd(model), model=model, descent=penalised)
    turn(opt, model)
    assert opt.last.loss is None
