"""The smoothed maximum in float32 against float64, from the mean of the margins (small mu) to their maximum."""

import pytest
import torch

from bisam.bounds import as_bound
from bisam.functional import binary_lower_bound_loss, lower_bound_loss
from tests.losses.problems import EVERY

MUS = [1e-8, 1e-6, 1e-4, 1e-2, 0.3, 0.99, 1.0, 3.0, 100.0, 1e4]


def exact(bound, mu, logits, target):
    """1/mu log mean_j exp(mu phi(F_j)) in float64, by the form that does not cancel, and its gradient."""
    logits = logits.double().requires_grad_()
    phi = bound.phi(logits - logits.gather(1, target[:, None]))
    top = phi.amax(1, keepdim=True).detach()
    below = mu * (phi - top)
    mean = torch.expm1(below).mean(1)
    log = torch.where(mean > -0.5, torch.log1p(mean.clamp(min=-0.5)), torch.exp(below).mean(1).log())
    value = top[:, 0] + log / mu
    return value.detach(), torch.autograd.grad(value.sum(), logits)[0]


@pytest.mark.parametrize("mu", MUS)
@pytest.mark.parametrize("bound", EVERY, ids=repr)
def test_value_and_gradient_equal_those_of_float64(bound, mu):
    torch.manual_seed(0)
    for classes in (2, 3, 10, 1000):
        for scale in (1e-3, 1.0, 30.0):
            logits = (scale * torch.randn(6, classes)).requires_grad_()
            target = torch.randint(classes, (6,))
            value = lower_bound_loss(logits, target, bound=bound, mu=mu, reduction="none")
            (gradient,) = torch.autograd.grad(value.sum(), logits)
            expected, slope = exact(as_bound(bound), mu, logits.detach(), target)
            torch.testing.assert_close(value.double(), expected, rtol=2e-6, atol=2e-6)
            torch.testing.assert_close(gradient.double(), slope, rtol=max(3e-5, 3e-7 * mu), atol=1e-7)


def test_a_small_mu_is_the_mean_over_the_classes():
    """Of phi at margins 0, 20 and -10; (logsumexp - log K) / mu was off by 0.6 in float32."""
    logits, target = torch.tensor([[0.0, 20.0, -10.0]]), torch.tensor([0])
    mean = torch.tanh(torch.tensor([0.0, 2.0, -1.0])).mean()
    for mu in (1e-8, 1e-6):
        torch.testing.assert_close(lower_bound_loss(logits, target, bound="tanh", mu=mu), mean, rtol=1e-5, atol=0)
    z, y = torch.tensor([20.0, 20.0]), torch.tensor([0, 1])
    half = torch.tanh(torch.tensor([2.0, -2.0])) / 2
    for mu in (1e-8, 1e-6):
        value = binary_lower_bound_loss(z, y, bound="tanh", mu=mu, reduction="none")
        torch.testing.assert_close(value, half, rtol=1e-5, atol=0)


@pytest.mark.parametrize("mu", [1e-6, 0.5])
def test_small_mu_keeps_infinities_and_nan(mu):
    inf, nan = torch.inf, torch.nan
    logits = torch.tensor([[-inf, 1.0, 0.0], [inf, 0.0, 1.0], [0.0, nan, 0.0], [nan, 0.0, 0.0]])
    value = lower_bound_loss(logits, torch.zeros(4, dtype=torch.long), bound="tanh", mu=mu, reduction="none")
    expected = torch.tensor([[0.0, 1.0, 1.0], [0.0, -1.0, -1.0]], dtype=torch.float64)
    expected = (mu * expected).exp().mean(1).log() / mu
    torch.testing.assert_close(value[:2].double(), expected, rtol=1e-5, atol=0)
    assert value[2:].isnan().all()
    masked = torch.tensor([[0.0, -inf]], requires_grad=True)  # phi of "log" is -inf there
    value = lower_bound_loss(masked, torch.tensor([0]), mu=mu)
    value.backward()
    torch.testing.assert_close(value.double(), torch.tensor(0.5, dtype=torch.float64).log() / mu, rtol=1e-5, atol=0)
    assert masked.grad.isfinite().all()


@pytest.mark.parametrize("mu", [1e-3, 0.5])
def test_small_mu_has_second_derivatives_and_those_of_the_target(mu):
    torch.manual_seed(0)
    logits = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    share = torch.softmax(torch.randn(5, 4, dtype=torch.float64), 1).requires_grad_()
    for bound in ("log", "tanh"):
        assert torch.autograd.gradcheck(lambda f, p, b=bound: lower_bound_loss(f, p, bound=b, mu=mu), (logits, share))
        assert torch.autograd.gradgradcheck(
            lambda f, p, b=bound: lower_bound_loss(f, p, bound=b, mu=mu),
            (logits, share),
        )
