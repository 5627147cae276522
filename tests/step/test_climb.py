"""The climb: how long eps is and where it points, over dtypes, groups and odd gradients."""

import contextlib
import gc
import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from bisam import ASAM, METHODS, SAM, AsyncSAM, BiSAM
from bisam.testing import Net, batches, bits, count_operations, run_steps
from tests.makers import MAKERS
from tests.steps import X, Y, moves, perturbations, sgd, turn

# -- length and direction ----------------------------------------------------------------------------------------------


@given(rho=st.floats(1e-3, 2.0), scale=st.floats(1e-30, 1e30), seed=st.integers(0, 50))
@settings(max_examples=30)
def test_eps_has_norm_rho_whatever_the_scale_of_the_loss(rho, scale, seed):
    model = Net(seed)
    opt = SAM(sgd(model), model=model, rho=rho, descent=lambda f, y: scale * nn.functional.cross_entropy(f, y))
    eps = moves(opt, model)
    assert math.isclose(torch.cat([e.flatten() for e in eps]).norm(), rho, rel_tol=1e-9)
    assert math.isclose(opt.last.norm, rho, rel_tol=1e-9)
    again = moves(SAM(sgd(model), model=model, rho=rho), model)
    for a, b in zip(eps, again, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_radius_of_each_group():
    """eps_k = rho_k^2 g_k / sqrt(sum_j rho_j^2 ||g_j||^2); a group with rho = 0 shortens nobody else's."""
    model, plain = Net(), Net()
    plain.zero_grad()
    nn.functional.cross_entropy(plain(X), Y).backward()
    g1, g2 = plain.first.weight.grad, plain.middle.weight.grad
    groups = [
        {"params": [model.first.weight], "rho": 0.3},
        {"params": [model.middle.weight]},
        {"params": [model.head.weight], "rho": 0.0},
    ]
    opt = SAM(torch.optim.SGD(groups, lr=0.1), model=model, rho=0.1)
    eps = dict(zip([n for n, _ in model.named_parameters()], moves(opt, model), strict=True))
    root = torch.sqrt(0.3**2 * (g1**2).sum() + 0.1**2 * (g2**2).sum())
    torch.testing.assert_close(eps["first.weight"], 0.3**2 * g1 / root, rtol=1e-9, atol=1e-14)
    torch.testing.assert_close(eps["middle.weight"], 0.1**2 * g2 / root, rtol=1e-9, atol=1e-14)
    assert (eps["head.weight"] == 0).all()


def test_maximising_turns_the_perturbation_around():
    """Maximising R is minimising -R: same weights, to the bit."""
    ours, theirs = Net(), Net()
    up = torch.optim.SGD(ours.parameters(), lr=0.1, maximize=True)
    down = torch.optim.SGD(theirs.parameters(), lr=0.1)

    def reward(f, y):
        return -nn.functional.cross_entropy(f, y)

    run_steps(ours, SAM(up, model=ours, rho=0.1, descent=reward), batches(5))
    run_steps(theirs, SAM(down, model=theirs, rho=0.1), batches(5))
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(p, q)
    model = Net()
    opt = BiSAM(torch.optim.SGD(model.parameters(), lr=0.1, maximize=True), model=model)
    with pytest.raises(ValueError, match="maximize=True"):
        next(opt.passes())


# -- dtypes ------------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:weights in torch.float16")
@pytest.mark.parametrize(
    ("low", "high"),
    [
        ((torch.float16, [0.0, 0.0]), (torch.float32, [1e-9, 2e-9])),  # the common unit is 0 in float16
        ((torch.float32, [0.0, 0.0]), (torch.float64, [1e-60, 1e-60])),
        ((torch.float16, [6e4, 3e4]), (torch.float32, [1e5, 2e5])),  # the common unit is inf in float16
        ((torch.float16, [1.0, 2.0]), (torch.float32, [1e-3, 1e-3])),
    ],
)
def test_one_norm_over_dtypes_of_different_range(low, high):
    params = [nn.Parameter(torch.zeros(2, dtype=dtype)) for dtype, _ in (low, high)]
    grads = [torch.tensor(values, dtype=dtype) for dtype, values in (low, high)]
    exact = torch.cat([g.double() for g in grads])
    moved = torch.cat(perturbations(params, grads))
    torch.testing.assert_close(moved, exact / exact.norm(), rtol=2e-3, atol=1e-6)


def test_mixed_dtypes_complex_and_empty_parameters():
    parts = [
        torch.randn(3, dtype=torch.float32),
        torch.randn(4, dtype=torch.float64),
        torch.randn(2, dtype=torch.complex64),
        torch.randn(5, dtype=torch.float16),
        torch.randn(0),
        torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
    ]
    params = [nn.Parameter(p) for p in parts]
    opt = SAM(
        torch.optim.SGD(params, lr=0.1),
        rho=0.5,
        descent=lambda: sum((p.abs().double() ** 2).sum() for p in params),
    )
    before = [p.detach().clone() for p in params]
    with pytest.warns(UserWarning, match="float16"):
        for objective in opt.passes():
            if not objective.is_ascent:
                moved = math.sqrt(
                    sum(((p.detach() - b).abs().double() ** 2).sum() for p, b in zip(params, before, strict=True))
                )
            objective().backward()
    assert math.isclose(moved, 0.5, rel_tol=2e-3)
    assert math.isclose(opt.last.norm, moved, rel_tol=1e-5)
    assert all(torch.equal(p, b) for p, b in zip(params, before, strict=True))


def test_conjugate_gradients():
    w = nn.Parameter(torch.randn(3, dtype=torch.complex64))
    opt = SAM(torch.optim.SGD([w], lr=0.1), descent=lambda: (w.conj() * torch.arange(3)).imag.pow(2).sum())
    before = w.detach().clone()
    for _ in range(2):
        for objective in opt.passes():
            objective().backward()
    assert torch.equal(w, before)
    assert opt.last.perturbed


def test_coarse_weights_report_the_realised_norm_and_warn_once():
    torch.manual_seed(0)
    layer = nn.Linear(1000, 100).bfloat16()
    opt = SAM(sgd(layer))
    x, y = torch.randn(4, 1000).bfloat16(), torch.tensor([0, 1, 2, 3])
    with pytest.warns(UserWarning, match=r"bfloat16.*opt\.last\.norm"):
        turn(opt, layer, x, y)
    assert 0.005 < opt.last.norm < 0.2
    assert not math.isclose(opt.last.norm, 0.05, rel_tol=1e-4)  # what bf16 weights really took
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        turn(opt, layer, x, y)


# -- gradients that vanish ---------------------------------------------------------------------------------------------


def test_float32_gradients_whose_squares_vanish_still_have_a_direction():
    for scale in (1e-23, 1e-38, 1e37):
        model = Net().float()
        opt = SAM(sgd(model), model=model, descent=lambda f, y, s=scale: s * nn.functional.cross_entropy(f, y))
        turn(opt, model, X.float())
        assert math.isclose(opt.last.norm, 0.05, rel_tol=1e-4)


def test_a_gradient_of_zero_in_float16_is_no_nan():
    layer = nn.Linear(3, 2).half()
    opt = SAM(sgd(layer))
    with pytest.warns(UserWarning, match="float16"):
        for _ in opt.passes():
            (layer.weight * 0).sum().backward()
    opt.step()
    assert all(p.isfinite().all() for p in layer.parameters())
    assert not opt.last.perturbed


@pytest.mark.parametrize("name", METHODS)
def test_a_step_leaves_no_tensor_to_the_search_for_cycles(name):
    """What a step needs is freed where it ends, and does not wait for Python to collect it."""
    model = Net()
    opt = MAKERS[name](sgd(model), model=model)

    def step():
        for objective in opt.passes():
            objective(model(X), Y).backward()
        opt.step()
        opt.zero_grad()

    for _ in range(7):  # a cycle of LookSAM's, and what is furnished in the first step
        step()
    gc.collect()
    gc.disable()
    try:
        for _ in range(7):
            step()
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        assert [tuple(left.shape) for left in gc.garbage if isinstance(left, torch.Tensor)] == []
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


# -- the ends of float32 -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rho", "size"), [(1e35, 1e-10), (1e-30, 1e12), (1e25, 1e-14)])
def test_a_radius_whose_ratio_to_the_gradient_float32_does_not_hold(rho, size):
    gradient = torch.tensor([3.0, 4.0])
    (eps,) = perturbations([nn.Parameter(torch.zeros(2))], [gradient * size], rho=rho)
    torch.testing.assert_close(eps / rho, gradient.double() / 5, rtol=1e-5, atol=0)


def test_groups_whose_radii_lie_as_far_apart_as_their_gradients():
    params = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))]
    groups = [{"params": params[:1], "rho": 1.0}, {"params": params[1:], "rho": 1e-20}]
    opt = SAM(
        torch.optim.SGD(groups, lr=0.1),
        descent=lambda: (params[0] * torch.tensor([3.0, 4.0]) + params[1] * torch.tensor([12e20, 0.0])).sum(),
    )
    for objective in opt.passes():
        if not objective.is_ascent:
            moved = [p.detach().clone() for p in params]
        objective().backward()
    torch.testing.assert_close(moved[0], torch.tensor([3 / 13, 4 / 13]))
    torch.testing.assert_close(moved[1] * 1e20, torch.tensor([12 / 13, 0.0]))


@pytest.mark.parametrize("weights", [1e-4, 1e-9, 1e-15])
@pytest.mark.parametrize("size", [1e-14, 1e-6, 1.0])
def test_a_perturbation_that_scales_with_small_weights_has_its_length(weights, size):
    """The gradient times T^2 may have squares that float32 does not hold, where the gradient times T has none."""
    w, g = torch.linspace(-1, 1, 50) * weights, torch.linspace(1, 2, 50)
    (eps,) = perturbations([nn.Parameter(w)], [g * size], rho=0.5, method=ASAM, eta=0.0)
    scale = w.double().abs()
    want = 0.5 * scale**2 * g / (scale * g).norm()
    torch.testing.assert_close(eps / weights, want / weights, rtol=1e-4, atol=1e-6)


def test_a_weight_without_data_stays_where_the_ascent_is_at_hand():
    model = Net()
    model.later = nn.Linear(3, 3, device="meta")
    opt = AsyncSAM(sgd(model), model=model)
    for _ in range(2):
        turn(opt, model)
        opt.step()
        opt.zero_grad()
    assert opt.last.perturbed


@pytest.mark.parametrize("name", METHODS)
def test_a_dispatch_mode_that_counts_changes_no_step(name):
    """There torch does not count the versions of what ``_foreach_*_`` changes, and by them a norm is known as stale."""
    seen = []
    for mode in (contextlib.nullcontext, count_operations):
        model = Net()
        opt = MAKERS[name](sgd(model), model=model)
        norms = []
        for x, y in batches(2):
            with mode():
                turn(opt, model, x, y)
                norms.append(opt.last.norm)
                opt.step()
        seen.append((norms, bits(model)))
    assert seen[0] == seen[1]
