"""The module tree is walked where it has changed: every way in which it can change between two steps."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from bisam import ASAM, SAM
from bisam._step.model import ModelInfo
from bisam.testing import bits
from tests.steps import sgd

X, Y = torch.randn(8, 6, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 4


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Sequential(nn.BatchNorm1d(8), nn.ReLU()), nn.Linear(8, 4))


def append(model):
    model.append(nn.BatchNorm1d(4))


def assign(model):
    model[1] = nn.Sequential(nn.BatchNorm1d(8), nn.BatchNorm1d(8))


def reach_in(model):
    model[1]._modules["0"] = nn.BatchNorm1d(8)


def move_over(model):
    model[1].add_module("2", model._modules.pop("2"))
    model.append(nn.BatchNorm1d(4))


def delete(model):
    del model[1][1]
    model[1].append(nn.BatchNorm1d(8))


def replace_the_dict(model):
    model[1]._modules = {**model[1]._modules, "2": nn.BatchNorm1d(8)}


def add_a_buffer(model):
    def look(module, given, out):
        module.seen.add_(out.detach().mean(0))

    model[0].register_buffer("seen", torch.zeros(8))
    model[0].register_forward_hook(look)


def rebind_a_buffer(model):
    model[1][0].running_mean = torch.zeros(8)


def swap_the_class(model):
    class Counted(nn.BatchNorm1d):
        def forward(self, x):
            self.num_batches_tracked += 1
            return super().forward(x)

    model[1][0].__class__ = Counted


@pytest.mark.parametrize(
    "change",
    [append, assign, reach_in, move_over, delete, replace_the_dict, add_a_buffer, rebind_a_buffer, swap_the_class],
)
def test_buffers_are_as_one_pass_leaves_them_after_the_tree_has_changed(change):
    model = net()
    opt = SAM(sgd(model), model=model, rho=0.5)

    def step():
        for objective in opt.passes():
            objective(model(X), Y).backward()
        opt.step()
        opt.zero_grad()

    step()
    change(model)
    plain = copy.deepcopy(model)
    plain(X)
    before = bits(model)
    for objective in opt.passes():
        objective(model(X), Y).backward()
    assert bits(model) == before
    for (name, ours), theirs in zip(model.named_buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs, msg=lambda m, name=name: f"{name}: {m}")


def test_an_unchanged_tree_is_not_walked_again():
    model = net()
    info = ModelInfo(model, sgd(model))
    walked = []
    info._walk = lambda root: walked.append(root)
    info.look()
    assert walked == []
    model.append(nn.Identity())
    info.look()
    assert walked == [model]


def freeze(model):
    model[0].weight.requires_grad_(False)


def thaw(model):
    model[2].weight.requires_grad_(True)


def move_data(model):
    model[0].weight.data = model[0].weight.data.clone() * 2


def to_double(model):
    model.double()


def to_channels(model):
    model[0].weight.data = model[0].weight.data.t().contiguous().t()


@pytest.mark.parametrize("change", [freeze, thaw, move_data, to_double, to_channels])
def test_parameters_that_change_under_the_optimizer_are_met_as_they_are(change):
    """The second step equals that of an optimizer that is built after the change."""
    moved = []
    for late in (False, True):
        model = net()
        model[2].weight.requires_grad_(change is not thaw)
        opt = ASAM(torch.optim.SGD(model.parameters(), lr=0.1), model=model, rho=0.5)
        change(model)
        opt = ASAM(torch.optim.SGD(model.parameters(), lr=0.1), model=model, rho=0.5) if late else opt
        x = X.to(model[0].weight.dtype)
        for _ in range(2):
            for objective in opt.passes():
                objective(model(x), Y).backward()
            opt.step()
            opt.zero_grad()
        moved.append(bits(model))
    assert moved[0] == moved[1]


def test_the_radius_of_a_group_a_new_group_and_a_loaded_state_count_at_once():
    model = net()
    opt = SAM(torch.optim.SGD(model[0].parameters(), lr=0.1), model=model, rho=0.5)

    def norm():
        for objective in opt.passes():
            objective(model(X), Y).backward()
        opt.zero_grad()
        return opt.last.norm

    assert norm() == pytest.approx(0.5, rel=1e-5)
    opt.param_groups[0]["rho"] = 0.25
    assert norm() == pytest.approx(0.25, rel=1e-5)
    saved = opt.state_dict()
    opt.param_groups[0]["rho"] = 0.125
    opt.load_state_dict(saved)
    assert norm() == pytest.approx(0.25, rel=1e-5)
    opt.add_param_group({"params": list(model[2].parameters()), "rho": 0.25})
    assert norm() == pytest.approx(0.25, rel=1e-5)
    opt.param_groups[0]["params"].pop()  # the bias
    assert norm() == pytest.approx(0.25, rel=1e-5)


def test_names_follow_a_parametrization():
    """ASAM scales weights alone, also one that weight_norm has renamed since."""
    model = net()
    opt = ASAM(sgd(model), model=model, rho=0.5)
    parametrizations.weight_norm(model[0])
    opt.add_param_group({"params": list(model[0].parametrizations.parameters())})
    for objective in opt.passes():
        objective(model(X), Y).backward()
    assert opt.last.perturbed


def test_lazy_layers_get_their_shapes_in_the_first_pass():
    model = nn.Sequential(nn.LazyLinear(8), nn.LazyBatchNorm1d(), nn.Linear(8, 4))
    model[2].requires_grad_(False)
    opt = SAM(sgd(model), model=model, rho=0.1)
    for step in range(2):
        for objective in opt.passes():
            objective(model(X), Y).backward()
        assert model[1].num_batches_tracked == step + 1
        torch.testing.assert_close(opt.last.norm, 0.1, rtol=1e-5, atol=0)
        opt.step()
        opt.zero_grad()
