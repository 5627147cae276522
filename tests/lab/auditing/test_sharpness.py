"""Sharpness against the dense Hessian, and against what the audit itself measures."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import bisam_lab
from bisam_lab.auditing.adversaries import adversaries
from bisam_lab.auditing.batches import Batch
from bisam_lab.auditing.sharpness import sharpness


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def batches():
    torch.manual_seed(5)
    return [Batch(torch.randn(8, 4).double(), torch.randint(0, 3, (8,))) for _ in range(2)]


def found(net, rho=0.3):
    mine = adversaries(["sam", "asam", "bisam-log"], net)
    return sharpness(net, batches(), mine, mine[0], mine[1], rho)


def test_eigenvalues_and_trace_are_those_of_the_dense_hessian():
    net = network()
    params = list(net.parameters())
    x, y = (torch.cat([getattr(batch, name) for batch in batches()]) for name in "xy")
    grads = torch.autograd.grad(F.cross_entropy(net(x), y), params, create_graph=True)
    rows = [torch.autograd.grad(g, params, retain_graph=True) for g in torch.cat([g.flatten() for g in grads])]
    hessian = torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])
    numbers = found(net).numbers
    largest = torch.linalg.eigvalsh(hessian).flip(0)[:3]
    assert [numbers[f"Hessian, eigenvalue {i}"] for i in (1, 2, 3)] == pytest.approx(largest.tolist(), rel=0.02)
    assert numbers["Hessian, trace"] == pytest.approx(float(hessian.trace()), rel=0.15)  # an estimate


def test_the_critical_step_is_where_the_loss_stops_falling():
    net = network()
    sharp = found(net).numbers["critical sharpness, mean over batches"]
    steps = []
    for batch in batches():
        grads = torch.autograd.grad(F.cross_entropy(net(batch.x), batch.y), list(net.parameters()))
        w = [p.detach().clone() for p in net.parameters()]

        def loss(eta, batch=batch, grads=grads, w=w):
            return float(F.cross_entropy(torch.func.functional_call(
                net, {k: a - eta * g for (k, _), a, g in zip(net.named_parameters(), w, grads, strict=True)}, batch.x,
            ), batch.y))  # fmt: skip

        eta = next(k / 100 for k in range(1, 100_000) if not loss(k / 100) < loss(0))
        steps.append(2 / eta)
    assert sharp == pytest.approx(sum(steps) / 2, rel=0.02)


def test_m_sharpness_is_the_rise_that_an_audit_measures():
    net = network()
    pairs = [(batch.x, batch.y) for batch in batches()]
    rows = bisam_lab.audit(net, pairs, adversaries=["sam", "msam", "asam"], rhos=[0.3]).rows()
    rises = {row["adversary"]: row["rise_loss_batch"] for row in rows if row["statistics"] == "batch"}
    numbers = found(net).numbers
    assert numbers["sam's m-sharpness, m = 8"] == pytest.approx(rises["sam"])
    assert numbers["sam's m-sharpness, m = 2"] == pytest.approx(rises["msam"])
    assert numbers["asam's m-sharpness, m = 8"] == pytest.approx(rises["asam"])


def test_lines_and_planes_go_through_w_and_leave_it_there():
    net = network()
    before = [p.detach().clone() for p in net.parameters()]
    there = found(net)
    batch = batches()[0]
    at_w = float(F.cross_entropy(net(batch.x), batch.y).detach())
    assert dict(there.loss_along["sam"])[0] == pytest.approx(at_w)
    assert dict(there.loss_along["sam"])[1] > at_w
    loss, error = there.planes
    assert (loss.first, loss.second) == ("sam", "bisam-log")
    assert loss.values[5][5] == pytest.approx(at_w)
    assert error.values[5][5] == pytest.approx(100 * float((net(batch.x).argmax(1) != batch.y).double().mean()))
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
