"""Textbook steps: compute the perturbation, add it, take the gradient, subtract it, let the optimizer move."""

import torch
from torch.nn.functional import cross_entropy


def _gradients(model, loss):
    names, params = zip(*[(n, p) for n, p in model.named_parameters() if p.requires_grad], strict=True)
    grads = torch.autograd.grad(loss, params, allow_unused=True)
    return [(n, p, g) for n, p, g in zip(names, params, grads, strict=True) if g is not None]


def sharpness_aware_step(model, base, x, y, rho, ascent=cross_entropy, scale=lambda name, w: torch.ones_like(w)):
    """eps = rho T^2 g / ||T g|| with g = grad ascent(w); then base descends grad CE(w + eps)."""
    first = [(p, scale(n, p.detach()), g) for n, p, g in _gradients(model, ascent(model(x), y))]
    norm = torch.sqrt(sum(((t * g) ** 2).sum() for _, t, g in first))
    eps = [rho * t**2 * g / norm for _, t, g in first]
    statistics = {name: b.clone() for name, b in model.named_buffers()}
    with torch.no_grad():
        for (p, _, _), e in zip(first, eps, strict=True):
            p.add_(e)
    second = _gradients(model, cross_entropy(model(x), y))
    with torch.no_grad():
        for (_, p, g), e in zip(second, eps, strict=True):
            p.sub_(e)
            p.grad = g
        for name, b in model.named_buffers():
            b.copy_(statistics[name])
    base.step()
    base.zero_grad()


def asam_scale(name, w):
    """T of ASAM (arXiv 2102.11600): abs(w) + eta for weights, 1 for the rest."""
    return w.abs() + 0.01 if "weight" in name else torch.ones_like(w)


def msam_gradient(model, x, y, rho, m):
    """mSAM (arXiv 2302.09693): the mean over m micro-batches of each one's own SAM gradient."""
    total = None
    for xs, ys in zip(x.chunk(m), y.chunk(m), strict=True):
        first = _gradients(model, cross_entropy(model(xs), ys))
        norm = torch.sqrt(sum((g**2).sum() for _, _, g in first))
        before = [p.detach().clone() for _, p, _ in first]
        with torch.no_grad():
            for _, p, g in first:
                p.add_(rho * g / norm)
        second = [g for _, _, g in _gradients(model, cross_entropy(model(xs), ys))]
        with torch.no_grad():
            for (_, p, _), w in zip(first, before, strict=True):
                p.copy_(w)
        total = second if total is None else [a + b for a, b in zip(total, second, strict=True)]
    return [g / m for g in total]
