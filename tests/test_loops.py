"""Micro-batches, the choice of samples, and the Fisher mask."""

import pytest
import torch
from torch import nn

import bisam
from bisam import SAM, BiSAM
from bisam.loops import SharpestSamples, SubBatch, learn_fisher_mask, micro_batches
from bisam.testing import Net, batches, bits
from tests.reference import family
from tests.reference.steps import msam_gradient
from tests.steps import X, Y, build, sgd


@pytest.mark.parametrize("m", [1, 2, 4])
def test_micro_batches_are_msam(m):
    model, other = Net(), Net()
    opt = SAM(sgd(model), model=model, rho=0.1)
    for xs, ys, part in micro_batches(m, X, Y):
        for objective in opt.passes():
            (objective(model(xs), ys) * part).backward()
    expected = msam_gradient(other, X, Y, 0.1, m)
    ours = [p.grad for p in model.parameters() if p.grad is not None]
    for gradient, textbook in zip(ours, expected, strict=True):
        torch.testing.assert_close(gradient, textbook, rtol=1e-12, atol=1e-14)


def test_uneven_parts_are_weighted_by_their_samples():
    parts = list(micro_batches(3, torch.arange(8)))
    assert [(p.tolist(), w) for p, w in parts] == [([0, 1, 2], 3 / 8), ([3, 4, 5], 3 / 8), ([6, 7], 2 / 8)]
    assert len(list(micro_batches(5, torch.arange(2)))) == 2
    for bad in ([torch.arange(3), torch.arange(4)], [torch.empty(0)], []):
        with pytest.raises(ValueError, match="tensors have lengths"):
            list(micro_batches(2, *bad))
    with pytest.raises(ValueError, match="m=0"):
        list(micro_batches(0, X))


@pytest.mark.parametrize("method", [SAM, BiSAM])
@pytest.mark.parametrize("gamma", [0.25, 0.5])
def test_the_samples_are_those_whose_loss_rose_most(method, gamma):
    model, seen = Net(), []
    opt = method(sgd(model), model=model, rho=0.5)
    choose = SharpestSamples(gamma)
    plain = nn.CrossEntropyLoss(reduction="none")
    with torch.no_grad():
        before = plain(Net()(X), Y)
    for objective in opt.passes():
        xs, ys = choose(objective, model, X, Y)
        seen.append(len(xs))
        if not objective.is_ascent:
            twin = Net()
            twin.load_state_dict(model.state_dict())
            with torch.no_grad():
                rise = plain(twin(X), Y) - before
            expected = rise.topk(round(gamma * len(X))).indices
            assert {tuple(x.tolist()) for x in xs} == {tuple(x.tolist()) for x in X[expected]}
            assert torch.equal(torch.stack([Y[(x == X).all(1)][0] for x in xs]), ys)
        objective(model(xs), ys).backward()
    assert seen == [len(X), round(gamma * len(X))]
    once = Net()
    once(X)
    assert bits(nn.ModuleList([model.norm]))[-3:] == bits(nn.ModuleList([once.norm]))[-3:]


def test_a_plain_step_sees_the_whole_batch():
    model, choose = Net(), SharpestSamples(0.5)
    opt = SAM(sgd(model), model=model, cadence=bisam.cadence.Every(2))
    sizes = []
    for _ in range(2):
        for objective in opt.passes():
            xs, ys = choose(objective, model, X, Y)
            sizes.append(len(xs))
            objective(model(xs), ys).backward()
        opt.step()
    assert sizes == [len(X), len(X) // 2, len(X)]


@pytest.mark.parametrize("method", [SAM, BiSAM])
def test_a_sub_batch_climbs_and_the_whole_batch_descends(method):
    """Against the textbook: eps of the first quarter's gradient, the gradient of all samples there."""
    model, other, choose = Net(), Net(), SubBatch(0.25)
    opt = method(sgd(model), model=model, rho=0.3)
    few, sizes = round(0.25 * len(X)), []
    for objective in opt.passes():
        xs, ys = choose(objective, X, Y)
        sizes.append(len(xs))
        objective(model(xs), ys).backward()
    assert sizes == [few, len(X)]
    params = [other.get_parameter(name) for name, p in model.named_parameters() if p.grad is not None]
    ascent = nn.CrossEntropyLoss() if method is SAM else bisam.LowerBoundLoss()
    up = torch.autograd.grad(ascent(other(X[:few]), Y[:few]), params)
    norm = torch.sqrt(sum((g * g).sum() for g in up))
    statistics = bits(nn.ModuleList([other.norm]))[-3:]
    with torch.no_grad():
        for param, g in zip(params, up, strict=True):
            param += 0.3 * g / norm
    expected = torch.autograd.grad(nn.functional.cross_entropy(other(X), Y), params)
    ours = [p.grad for p in model.parameters() if p.grad is not None]
    for found, gradient in zip(ours, expected, strict=True):
        torch.testing.assert_close(found, gradient, rtol=1e-12, atol=1e-14)
    assert bits(nn.ModuleList([model.norm]))[-3:] == statistics  # of the pass at w, which saw the quarter


def test_a_sub_batch_of_plain_steps_and_of_few_samples():
    model, choose, sizes = Net(), SubBatch(0.01), []
    opt = SAM(sgd(model), model=model, cadence=bisam.cadence.Every(2))
    for _ in range(2):
        for objective in opt.passes():
            xs, _ = choose(objective, X, Y)
            sizes.append(len(xs))
            objective(model(X), Y).backward()
        opt.step()
    assert sizes == [1, len(X), len(X)]
    for share in (0, 1.5, float("nan")):
        with pytest.raises(ValueError, match=f"share={share}"):
            SubBatch(share)


def test_esam_with_both_halves_learns():
    model, choose = Net(), SharpestSamples(0.5)
    opt = bisam.ESAM(sgd(model), model=model, ascent=bisam.LowerBoundLoss())
    with torch.no_grad():
        start = nn.functional.cross_entropy(model(X), Y)
    for _ in range(100):
        for objective in opt.passes():
            xs, ys = choose(objective, model, X, Y)
            objective(model(xs), ys).backward()
        opt.step()
        opt.zero_grad()
    assert nn.functional.cross_entropy(model(X), Y) < 0.75 * start


def test_errors_of_the_choice():
    model = Net()
    opt = SAM(sgd(model), model=model)
    with pytest.raises(ValueError, match="gamma=0"):
        SharpestSamples(0.0)
    choose = SharpestSamples(0.5, per_sample=nn.CrossEntropyLoss())
    with pytest.raises(ValueError, match="one for each"):
        for objective in opt.passes():
            xs, ys = choose(objective, model, X, Y)
            objective(model(xs), ys).backward()
    with pytest.raises(ValueError, match="in every pass"):
        for objective in opt.passes():
            xs, ys = SharpestSamples.__call__(choose, objective, model, X, Y)
            nn.functional.cross_entropy(model(xs), ys).backward()


def test_fisher_mask_takes_the_largest_per_sample_information():
    model, twin = Net(), Net()
    model.eval()
    opt = bisam.SSAM(torch.optim.SGD(model.parameters(), lr=0.1), model=model, sparsity=0.7, rule="fisher")
    x, y = batches(1)[0]
    learn_fisher_mask(
        opt, zip(x, y, strict=True), lambda s: nn.functional.cross_entropy(model(s[0][None]), s[1][None]).backward()
    )
    twin.eval()
    information = sum(
        family.At(twin, xs[None], ys[None])(family.At(twin, xs[None], ys[None]).w) ** 2
        for xs, ys in zip(x, y, strict=True)
    )
    names = [n for n, _ in family.At(twin, x, y).params]
    expected = torch.zeros(len(information)).index_fill(0, information.topk(round(0.3 * len(information))).indices, 1.0)
    state = opt.state_dict()["state"]
    ids = {n: i for i, (n, _) in enumerate(model.named_parameters())}
    resting = torch.cat([state[ids[n]]["sharpness_resting"].flatten() for n in names])
    assert torch.equal(1 - resting, expected.double())
    assert all(p.grad is None for p in model.parameters())
    with pytest.raises(TypeError, match="learn_fisher_mask needs"):
        learn_fisher_mask(build("ssam", model), [], print)
    with pytest.raises(ValueError, match="no gradient"):
        learn_fisher_mask(opt, [], print)


def test_learning_a_fisher_mask_leaves_every_gradient_as_it_was():
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 4)).double()
    groups = [{"params": model[0].parameters()}, {"params": model[1].parameters(), "rho": 0.0}]
    opt = bisam.SSAM(torch.optim.SGD(groups, lr=0.1), model=model, rule="fisher")

    def backward(i, factor=1.0):
        (nn.functional.cross_entropy(model(X[i : i + 1]), Y[i : i + 1]) * factor).backward()

    learn_fisher_mask(opt, range(4), backward)
    assert all(p.grad is None for p in model.parameters())
    with pytest.raises(ValueError, match="not finite"):
        learn_fisher_mask(opt, range(4), lambda i: backward(i, torch.inf))


@pytest.mark.parametrize("shape", [(16,), (16, 1), (16, 4)])
def test_samples_with_binary_labels_are_told_apart_by_the_binary_loss(shape):
    """Cross-entropy over one logit is 0 for every sample, so any choice would do."""
    model = nn.Sequential(
        nn.Linear(6, shape[1] if len(shape) > 1 else 1), nn.Flatten(0 if len(shape) == 1 else 1)
    ).double()
    y = (torch.randn(shape, generator=torch.Generator().manual_seed(0)) > 0).double()
    opt = SAM(sgd(model), model=model, rho=0.5, descent=nn.BCEWithLogitsLoss())
    choose, plain = SharpestSamples(0.5), nn.BCEWithLogitsLoss(reduction="none")
    for objective in opt.passes():
        xs, ys = choose(objective, model, X, y)
        if objective.is_ascent:
            before = plain(model(X), y).detach().reshape(16, -1).mean(1)
        else:
            rise = plain(model(X), y).detach().reshape(16, -1).mean(1) - before
            assert torch.equal(xs, X[rise.topk(8).indices])
        objective(model(xs), ys).backward()


def test_samples_of_a_regression_need_a_loss_of_each():
    model = nn.Linear(6, 2).double()
    y = torch.randn(16, 2).double()
    opt, choose = SAM(sgd(model), model=model, descent=nn.MSELoss()), SharpestSamples(0.5)
    with pytest.raises(ValueError, match=r"descent=MSELoss\(\) has no classes.*per_sample="):
        for objective in opt.passes():
            xs, ys = choose(objective, model, X, y)
            objective(model(xs), ys).backward()
