"""Directions: the running mean of the gradients."""

import torch

from bisam import VaSSO
from bisam.testing import Net
from tests.steps import X, Y, sgd


def test_the_mean_of_a_parameter_that_has_no_gradient_for_a_while_stays():
    model = Net()
    opt = VaSSO(sgd(model), model=model, theta=0.5)

    def means():
        state = opt.state_dict()["state"]
        names = [name for name, _ in model.named_parameters()]
        return {
            n: state[k]["sharpness_mean"].clone() for k, n in enumerate(names) if "sharpness_mean" in state.get(k, {})
        }

    seen = []
    for used in (True, False, True):
        for objective in opt.passes():
            (objective(model(X), Y) + (model.unused.sum() if used else 0.0)).backward()
        opt.step()
        opt.zero_grad()
        seen.append(means())
    assert torch.equal(seen[0]["unused"], torch.ones(2, dtype=torch.float64))
    assert all(torch.equal(mean["unused"], seen[0]["unused"]) for mean in seen)
    assert not torch.equal(seen[1]["head.weight"], seen[0]["head.weight"])
    assert not torch.equal(seen[2]["head.weight"], seen[1]["head.weight"])
