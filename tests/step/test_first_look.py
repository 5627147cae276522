"""The one look at the first step's graph: whose running statistics are put back, and whose are not."""

import pytest
import torch
from torch import nn

from bisam import SAM
from tests.steps import X, Y, sgd, turn


def body():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8)).double()


def test_another_networks_statistics_are_seen_though_the_model_has_buffers_of_its_own():
    """A GAN's generator steps through the discriminator: both passes move the discriminator's statistics."""
    generator, discriminator = body(), nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 4)).double()
    opt = SAM(sgd(generator), model=generator)
    with pytest.warns(UserWarning, match="1 normalisation layers keep running statistics"):
        for objective in opt.passes():
            objective(discriminator(generator(X)), Y).backward()
    assert generator[1].num_batches_tracked == 1
    assert discriminator[1].num_batches_tracked == 2
    both = nn.ModuleList([generator, discriminator])
    opt = SAM(sgd(generator), model=both)  # what the message says
    for objective in opt.passes():
        objective(discriminator(generator(X)), Y).backward()
    assert generator[1].num_batches_tracked == 2
    assert discriminator[1].num_batches_tracked == 3


def test_a_loop_beside_this_one_that_puts_them_back_is_known():
    net, head = body(), nn.Linear(8, 4).double()
    one, two = SAM(sgd(net), model=net), SAM(sgd(head), model=head)
    for first, second in zip(one.passes(), two.passes(), strict=True):
        second.record(first(head(net(X)), Y)).backward()
    assert net[1].num_batches_tracked == 1


def test_in_evaluation_nothing_moves():
    net = nn.Sequential(*body(), nn.Linear(8, 4).double()).eval()
    turn(SAM(sgd(net)), net)
    assert net[1].num_batches_tracked == 0


def test_a_wrapped_model_is_known():
    net = nn.Sequential(*body(), nn.Linear(8, 4).double())
    turn(SAM(sgd(net), model=nn.DataParallel(net)), net)
    turn(SAM(sgd(net), model=torch.compile(net, backend="eager")), net)
    assert net[1].num_batches_tracked == 2
