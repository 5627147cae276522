"""Q of arXiv 2407.12993 as it is printed, sample by sample and class by class; the constant log(K)/mu added."""

import math

import torch

GAMMA = math.log(math.e - 1)

PHI = {
    "log": (lambda x: 1 - torch.log(1 + torch.exp(GAMMA - x)), 1.0),  # Eq. 12
    "tanh": (lambda x: torch.tanh(0.1 * x), 10.0),  # Eq. 11
    "ramp": (lambda x: torch.clamp(0.1 * x, -1, 1), 10.0),
    "softsign": (lambda x: 0.1 * x / (1 + torch.abs(0.1 * x)), 10.0),
    "shifted-tanh": (lambda x: torch.tanh(0.1 * (x - 1)), 10.0),
}


def lower_bound(logits, target, name, mu=None):
    """1/n sum_i 1/mu log(1/K sum_j exp(mu phi(f_ij - f_iy)))."""
    phi, default = PHI[name]
    mu = mu or default
    total = 0.0
    for f, y in zip(logits, target, strict=True):
        total = total + torch.log(sum(torch.exp(mu * phi(f_j - f[y])) for f_j in f) / len(f)) / mu
    return total / len(logits)


def lower_bound_gradient(logits, target, name, mu=None):
    """Its gradient: dQ_i/dF_j = softmax_j(mu phi(F_i)) phi'(F_ij); the true class gets minus the sum of the others."""
    phi, default = PHI[name]
    mu = mu or default
    rows = []
    for f, y in zip(logits.detach(), target, strict=True):
        margin = (f - f[y]).requires_grad_()
        value = phi(margin)
        (slope,) = torch.autograd.grad(value.sum(), margin)
        row = torch.exp(mu * value) / torch.exp(mu * value).sum() * slope
        row[y] = 0
        row[y] = -row.sum()
        rows.append(row.detach())
    return torch.stack(rows) / len(rows)
