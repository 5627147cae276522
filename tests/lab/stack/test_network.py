"""A pass of stacked networks is the pass of each of them: outputs, gradients, buffers."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bisam_lab.models import DenseNet, ResNet, WideResNet
from bisam_lab.recipe import load
from bisam_lab.run.asking import Forward
from bisam_lab.run.fabric import build_fabric
from bisam_lab.stack.network import StackedNetwork

from ...reference.stacks import one_by_one
from .networks import Perceptron, Tied, Transformer, unlearnt

NETWORKS = {
    "resnet": lambda: ResNet(8, 1, 10, width=4),
    "wide-resnet": lambda: WideResNet(10, 1, 1, 10),
    "perceptron": Perceptron,
    "transformer": Transformer,
    "norms without parameters": unlearnt,
    "tied": Tied,
    "frozen": lambda: _frozen(Perceptron()),
}


def _frozen(model):
    model.layers[1].requires_grad_(False)
    return model


def _nets(build, precision="64-true", count=3):
    fabric = build_fabric(load("digits", [f"engine.precision={precision}"]).engine)
    torch.manual_seed(0)
    return fabric, [fabric.setup_module(build()) for _ in range(count)]


def _pass(outputs, y):
    torch.autograd.backward([F.cross_entropy(out, labels) for out, labels in zip(outputs, y, strict=True)])


def _left(nets):
    grads = {(k, n): p.grad for k, net in enumerate(nets) for n, p in net.named_parameters()}
    buffers = {(k, n): b for k, net in enumerate(nets) for n, b in net.named_buffers()}
    return grads, buffers


@pytest.mark.parametrize("name", NETWORKS)
def test_a_stacked_pass_is_the_pass_of_each_network(name):
    fabric, nets = _nets(NETWORKS[name])
    _, twins = _nets(NETWORKS[name])
    x, y = torch.randn(3, 6, 1, 8, 8), torch.randint(0, 10, (3, 6))
    network = StackedNetwork(nets[0].module)
    for _ in range(2):  # the second pass sees the first one's buffers
        requests = [Forward(net.train(), inputs, fabric) for net, inputs in zip(nets, x, strict=True)]
        stacked = network(requests)
        alone = one_by_one([net.train() for net in twins], x)
        _pass(stacked, y)
        _pass(alone, y)
        for a, b in zip(stacked, alone, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
    for found, expected in zip(_left(nets), _left(twins), strict=True):
        for key, value in expected.items():
            if value is None:
                assert found[key] is None, key
            else:
                torch.testing.assert_close(found[key], value, rtol=1e-9, atol=1e-9)
    stacked = network([Forward(net.eval(), inputs, fabric) for net, inputs in zip(nets, x, strict=True)])
    assert not any(out.requires_grad for out in stacked)
    for out, expected in zip(stacked, one_by_one([net.eval() for net in twins], x), strict=True):
        torch.testing.assert_close(out, expected, rtol=1e-6, atol=1e-6, check_dtype=False)


def test_any_of_the_networks_may_take_part_in_a_pass():
    fabric, nets = _nets(lambda: ResNet(8, 1, 10, width=2), count=4)
    x = torch.randn(4, 6, 1, 8, 8)
    network = StackedNetwork(nets[0].module)
    before = [buffer.clone() for buffer in nets[0].buffers()]
    stacked = network([Forward(nets[k].train(), x[k], fabric) for k in (3, 1)])
    assert all(torch.equal(a, b) for a, b in zip(nets[0].buffers(), before, strict=True))
    alone = ResNet(8, 1, 10, width=2).double()
    alone.load_state_dict(nets[3].module.state_dict())
    torch.testing.assert_close(stacked[0].double(), alone.train()(x[3].double()), rtol=1e-6, atol=1e-6)


def test_a_stack_of_dense_blocks_in_float32():
    """In the precision of a study: to the rounding of float32."""
    fabric, nets = _nets(lambda: DenseNet(1, 10, growth=4), "32-true", 2)
    x = torch.randn(2, 4, 1, 32, 32)
    stacked = StackedNetwork(nets[0].module)([Forward(n.eval(), i, fabric) for n, i in zip(nets, x, strict=True)])
    for net, inputs, out in zip(nets, x, stacked, strict=True):
        torch.testing.assert_close(out, net(inputs).detach(), rtol=1e-3, atol=1e-4)


def test_batch_norm_moves_its_statistics_by_the_unbiased_variance():
    fabric, nets = _nets(lambda: nn.Sequential(nn.BatchNorm2d(1, momentum=0.3), nn.Flatten(), nn.Linear(64, 10)))
    x = torch.randn(3, 2, 1, 8, 8, dtype=torch.float64)
    StackedNetwork(nets[0].module)([Forward(n.train(), i, fabric) for n, i in zip(nets, x, strict=True)])
    for net, inputs in zip(nets, x, strict=True):
        assert float(net.module[0].running_mean) == pytest.approx(0.3 * float(inputs.mean()), rel=1e-9)
        assert float(net.module[0].running_var) == pytest.approx(0.7 + 0.3 * float(inputs.var()), rel=1e-9)
        assert int(net.module[0].num_batches_tracked) == 1
