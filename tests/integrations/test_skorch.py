"""skorch steps with a closure: what it trains must be the plain loop to the bit."""

import functools

import pytest

pytest.importorskip("skorch")

import numpy as np
import torch
from skorch import NeuralNetClassifier
from torch import nn

from bisam import SAM, BiSAM
from bisam.testing import Net, batches, bits
from tests.pages import run_page

DATA = [(x.float(), y) for x, y in batches(3)]


@pytest.fixture(scope="module")
def page():
    """The page's classes."""
    return run_page("docs/engines/skorch.md", blocks=3)


def network():
    model = Net()
    model.frozen.data = model.frozen.data.float()
    return model.float()


def fitted(kind, sharp, method):
    """A network that skorch has trained in three steps, one batch each, in their order."""
    net = kind(
        network(),
        criterion=nn.CrossEntropyLoss,
        optimizer=functools.partial(sharp, method=method),
        optimizer__rho=0.5,
        optimizer__momentum=0.9,
        lr=0.1,
        max_epochs=1,
        batch_size=16,
        train_split=None,
        verbose=0,
    )
    inputs, labels = (torch.cat(parts).numpy() for parts in zip(*DATA, strict=True))
    return net.fit(inputs, labels)


def plain(method, *, buffers):
    model, at_w = network(), []
    base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    opt = method(base, model=model if buffers else None, rho=0.5)
    for x, y in DATA:
        with torch.no_grad():
            statistics = {name: b.clone() for name, b in model.named_buffers()}
            at_w.append(nn.functional.cross_entropy(model(x), y).item())
            for name, buffer in model.named_buffers():
                buffer.copy_(statistics[name])
        for objective in opt.passes():
            objective(model(x), y).backward()
        opt.step()
        opt.zero_grad()
    return model, np.mean(at_w)


@pytest.mark.parametrize("method", [SAM, BiSAM])
def test_the_class_of_the_page_is_the_plain_loop(page, method):
    net = fitted(page["SharpClassifier"], page["sharp"], method)
    model, loss = plain(method, buffers=True)
    assert bits(net.module_) == bits(model)
    assert net.history[-1, "train_loss"] == pytest.approx(loss, rel=1e-6)


@pytest.mark.filterwarnings("ignore:.*running statistics")
def test_the_factory_alone_is_the_plain_loop_of_sam(page):
    net = fitted(NeuralNetClassifier, page["sharp"], SAM)
    model, loss = plain(SAM, buffers=False)
    assert bits(net.module_) == bits(model)
    assert net.history[-1, "train_loss"] == pytest.approx(loss, rel=1e-6)


def test_bisam_by_the_factory_alone_is_refused(page):
    with pytest.raises(RuntimeError, match=r"opt\.objective"):
        fitted(NeuralNetClassifier, page["sharp"], BiSAM)


def test_the_radius_is_a_parameter_of_skorch(page):
    net = page["search"].best_estimator_
    assert [group["rho"] for group in net.optimizer_.param_groups] == [0.02]
