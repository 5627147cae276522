"""The sweep of radii: what it measures, and that it leaves nothing behind."""

import copy
import math

import pytest
import torch
from torch import nn

import bisam
from bisam import ASAM, GSAM, SAM, BiSAM, LowerBoundLoss, VaSSO
from bisam.cadence import Window
from bisam.testing import Net, batches, bits, run_steps
from tests.makers import MAKERS
from tests.steps import sgd

DATA = batches(8)


def trained(make, steps=3):
    """A model in mid-training, with momentum, memory and gradients that it has accumulated."""
    model = Net(dropout=0.2)
    opt = make(model)
    run_steps(model, opt, DATA[:steps])
    nn.functional.cross_entropy(model(DATA[0][0]), DATA[0][1]).backward()
    return model, opt


def everything(model, opt):
    """All that a sweep must leave alone, by value and, for gradients and buffers, by identity."""
    grads = [p.grad for p in model.parameters()]
    return {
        "weights": bits(model),
        "buffers": [(id(b), b.clone()) for b in model.buffers()],
        "grads": [(id(g), None if g is None else g.clone()) for g in grads],
        "state": copy.deepcopy(opt.state_dict()),
        "random": torch.get_rng_state(),
        "last": repr(opt.last),
    }


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


CHOICES = {name: lambda m, k=kind: k(sgd(m), model=m) for name, kind in MAKERS.items()} | {
    "bisam+gsam": lambda m: GSAM(sgd(m), model=m, ascent=LowerBoundLoss(), third_pass=True),
    "bisam+vasso": lambda m: VaSSO(sgd(m), model=m, ascent=LowerBoundLoss("tanh")),
}


@pytest.mark.parametrize("make", CHOICES.values(), ids=CHOICES)
def test_everything_is_left_as_it_was(make):
    model, opt = trained(make)
    before = everything(model, opt)
    found = bisam.rho_range(opt, model, DATA, n=2, radii=(0.01, 0.1, 1.0))
    after = everything(model, opt)
    for key, value in before.items():
        assert same(value, after[key]), key
    assert len(found.rows) == 3


def test_training_goes_on_as_if_nothing_had_been_swept():
    model, opt = trained(lambda m: VaSSO(sgd(m), model=m))
    other, twin = trained(lambda m: VaSSO(sgd(m), model=m))
    for each in (opt, twin):
        each.zero_grad()
    torch.manual_seed(3)
    bisam.rho_range(opt, model, DATA)
    run_steps(model, opt, DATA)
    torch.manual_seed(3)
    run_steps(other, twin, DATA)
    assert bits(model) == bits(other)


@pytest.mark.parametrize("call", range(8))
def test_an_interruption_anywhere_leaves_everything_as_it_was(call, monkeypatch):
    model, opt = trained(lambda m: BiSAM(sgd(m), model=m))
    before = everything(model, opt)
    forward, calls = model.forward, []

    def interrupted(x):
        calls.append(x)
        out = forward(x)
        if len(calls) > call:
            raise KeyboardInterrupt
        return out

    monkeypatch.setattr(model, "forward", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bisam.rho_range(opt, model, DATA, n=2, radii=(0.1, 0.5))
    assert same(before, everything(model, opt))


def test_a_loader_that_fails_leaves_the_random_state_alone():
    model, opt = trained(lambda m: SAM(sgd(m), model=m))
    before = everything(model, opt)

    def loader():
        torch.rand(5)
        yield DATA[0]
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        bisam.rho_range(opt, model, loader())
    assert same(before, everything(model, opt))


def flat(tensors):
    return torch.cat([t.detach().flatten() for t in tensors])


@pytest.mark.parametrize("kind", [SAM, ASAM, BiSAM])
def test_each_row_is_what_the_optimizers_own_passes_give(kind):
    """Against the loop itself: the gradient it leaves at each radius, and plain gradients."""
    model = Net()
    opt = kind(sgd(model), model=model)
    run_steps(model, opt, DATA[:2])
    data, radii = DATA[4:6], (0.05, 0.4)
    found = bisam.rho_range(opt, model, data, n=2, radii=radii)
    params = [p for n, p in model.named_parameters() if n not in ("frozen", "unused")]
    plain = []
    for x, y in data:
        model.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        plain.append(flat([p.grad for p in params]))
    for row, rho in zip(found.rows, radii, strict=True):
        opt.param_groups[0]["rho"] = rho
        values = []
        for number, (x, y) in enumerate(data):
            model.zero_grad()
            for objective in opt.passes():
                value = objective(model(x), y)
                value.backward()
            sharp = flat([p.grad for p in params])
            w = torch.cat([flat(params), torch.tensor([0.0, 1.0])])  # the unused parameter has no gradient
            with_w = torch.cat([sharp, torch.zeros(2)]) @ w / sharp.norm() / w.norm()
            cosines = [sharp @ g / sharp.norm() / g.norm() for g in (plain[number], plain[1 - number])]
            values.append([opt.last.norm, float(value.detach()), *map(float, cosines), float(with_w)])
        expected = torch.tensor(values, dtype=torch.float64).mean(0).tolist()
        assert [row.norm, row.perturbed_loss, row.cosine, row.unseen, row.shrink] == pytest.approx(expected, rel=1e-9)


def test_the_range_on_a_curve_that_is_known():
    """L = (w_1^2 + 9 w_2^2) / 2 from w = (1, 0.1): the angle of A (w + rho u) to A w, by hand."""
    model = nn.Linear(2, 1, bias=False).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 0.1]]))
    opt = SAM(sgd(model), model=model, rho=0.1, descent=lambda f, y: (model.weight**2 * y).sum() / 2 + 0 * f.sum())
    a, w = torch.tensor([1.0, 9.0]), torch.tensor([1.0, 0.1])
    g = a * w
    batch = (torch.ones(1, 2, dtype=torch.float64), a.double())

    def angle(rho):
        return float(nn.functional.cosine_similarity(a * (w + rho * g / g.norm()), g, dim=0))

    found = bisam.rho_range(opt, model, [batch], n=1)
    assert [row.cosine for row in found.rows] == pytest.approx([angle(row.rho) for row in found.rows], abs=1e-6)
    assert [b.rho / a.rho for a, b in zip(found.rows, found.rows[1:], strict=False)] == [2.0] * (len(found.rows) - 1)
    assert angle(found.low) >= 0.99 > angle(2 * found.low)
    assert angle(found.suggestion) >= 0.95 > angle(2 * found.suggestion)
    assert math.isnan(found.rows[0].unseen)
    assert " - " in str(found)


def test_the_ladder_ends_where_both_ends_are_seen_wherever_it_starts():
    found = []
    for rho in (0.05, 3.2, 204.8):
        model, opt = trained(lambda m: SAM(sgd(m), model=m))
        opt.param_groups[0]["rho"] = rho
        found.append(bisam.rho_range(opt, model, DATA, n=2))
    first = found[0]
    assert all((f.low, f.suggestion, f.high) == (first.low, first.suggestion, first.high) for f in found)
    assert all(f.complete for f in found)
    by_rho = {row.rho: row.cosine for row in found[1].rows}
    assert by_rho[first.low] >= 0.99 > by_rho[2 * first.low]
    assert by_rho[first.suggestion] >= 0.95 > by_rho[2 * first.suggestion]
    assert by_rho[first.high] >= 0.5 > by_rho[2 * first.high]
    assert "start here" in str(first) and f"{first.suggestion:.4g}" in str(first)


@pytest.mark.parametrize(("kind", "at_w"), [(SAM, 1), (BiSAM, 2)])
@pytest.mark.parametrize("most", [None, 14])
def test_passes_are_counted_and_bounded(kind, at_w, most, monkeypatch):
    model, opt = trained(lambda m: kind(sgd(m), model=m))
    forward, calls = model.forward, []
    monkeypatch.setattr(model, "forward", lambda x: calls.append(x) or forward(x))
    found = bisam.rho_range(opt, model, DATA, n=3, max_passes=most)
    assert len(calls) == found.passes == 3 * (at_w + len(found.rows))
    assert found.passes <= (most or math.inf)
    assert found.complete == (most is None)
    assert ("may be wider" in str(found)) == (most is not None)


def test_groups_keep_the_ratio_of_their_radii():
    """A head with half the radius, and a first layer that stays put."""
    model = Net()
    groups = [
        {"params": [model.middle.weight, model.middle.bias], "rho": 0.2},
        {"params": model.head.parameters(), "rho": 0.1},
        {"params": model.first.parameters(), "rho": 0.0},
    ]
    opt = SAM(torch.optim.SGD(groups, lr=0.1), model=model)
    row = bisam.rho_range(opt, model, DATA, n=1, radii=(0.8,)).rows[0]
    for group, rho in zip(opt.param_groups, (0.8, 0.4, 0.0), strict=True):
        group["rho"] = rho
    for objective in opt.passes():
        objective(model(DATA[0][0]), DATA[0][1]).backward()
    assert row.norm == pytest.approx(opt.last.norm, rel=1e-9)


@pytest.mark.filterwarnings("ignore:cadence=Window")
def test_steps_that_do_not_perturb_are_swept_as_if_they_did():
    model, opt = trained(lambda m: SAM(sgd(m), model=m, cadence=Window(1000)))
    assert bisam.rho_range(opt, model, DATA, radii=(0.5,)).rows[0].cosine < 0.9999


def test_autocast_does_not_hide_the_perturbation():
    model = Net().float()
    opt = SAM(sgd(model), model=model)
    data = [(x.float(), y) for x, y in DATA]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = bisam.rho_range(opt, model, data, radii=(1.0, 4.0))
    full = bisam.rho_range(opt, model, data, radii=(1.0, 4.0))
    for a, b in zip(mixed.rows, full.rows, strict=True):
        assert a.cosine == pytest.approx(b.cosine, abs=0.03)
        assert b.cosine < 0.97


def far(model):
    with torch.no_grad():
        model.head.weight.fill_(math.inf)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"batches": []}, ValueError, "batches holds 0 of the n=4"),
        ({"batches": DATA[:1]}, ValueError, "smaller n"),
        ({"batches": [DATA[0][0]] * 4}, TypeError, "pairs"),
        ({"radii": ()}, ValueError, "increasing"),
        ({"radii": (0.1, 0.1)}, ValueError, "increasing"),
        ({"radii": (0.0, 0.1)}, ValueError, "radii=0.0"),
        ({"radii": (1e3, 1e4)}, ValueError, "sweep smaller ones"),
        ({"n": 0}, ValueError, "n=0"),
        ({"max_passes": 7}, ValueError, "less than the 8"),
        ({"max_passes": 11, "radii": (0.1, 0.2)}, ValueError, "fewer radii"),
        ({"model": nn.Linear(2, 2)}, ValueError, "none of the parameters"),
        ({"rho": 0.0}, ValueError, "rho=0 in every group"),
        ({"spoil": far}, ValueError, "loss of batch 0"),
        ({"descent": lambda f, y: 0 * f.sum()}, ValueError, "zero or not finite on batch 0"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else None,
)
def test_errors_name_what_is_wrong_and_leave_everything_as_it_was(change, error, words):
    model = Net()
    opt = SAM(sgd(model), model=model, **{key: change[key] for key in ("rho", "descent") if key in change})
    change.get("spoil", lambda model: None)(model)
    given = {key: value for key, value in change.items() if key not in ("rho", "descent", "spoil")}
    before = everything(model, opt)
    with pytest.raises(error, match=words):
        bisam.rho_range(opt, **{"model": model, "batches": DATA, **given})
    assert same(before, everything(model, opt))


def test_a_plain_optimizer_is_refused_by_name():
    model = Net()
    with pytest.raises(TypeError, match=r"opt=SGD.*bisam\.SAM"):
        bisam.rho_range(sgd(model), model, DATA)


def test_sparse_gradients_are_refused():
    model = nn.Sequential(nn.Embedding(5, 4, sparse=True), nn.Flatten(), nn.Linear(8, 3))
    opt = SAM(sgd(model), model=model)
    data = [(torch.randint(0, 5, (6, 2)), torch.randint(0, 3, (6,)))]
    with pytest.raises(ValueError, match="sparse=False"):
        bisam.rho_range(opt, model, data, n=1)


def test_a_wrapped_model_is_refused():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        model = nn.parallel.DistributedDataParallel(nn.Linear(6, 4).double())
        opt = SAM(sgd(model), model=model)
        with pytest.raises(ValueError, match="bare model in one process"):
            bisam.rho_range(opt, model, DATA)
    finally:
        torch.distributed.destroy_process_group()
