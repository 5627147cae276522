"""The SAM family as the papers print it: a flat vector of weights, the gradient there, and a dozen lines a method.

Each rule is ``rule(at, w, t, memory, **numbers)`` and returns the gradient to descend: ``at(w)`` is the gradient of
cross-entropy at w, ``at(w, ascent=True)`` that of the ascent objective, ``at.names`` the name of each entry's tensor.
"""

import math

import torch
from torch.nn.functional import cross_entropy

from bisam._vectors.random import seeded


class At:
    """The gradient of a model's loss on a batch, as a function of the flat weights."""

    def __init__(self, model, x, y, ascent=cross_entropy):
        self.model, self.x, self.y, self.ascent = model, x, y, ascent
        trainable = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        used = torch.autograd.grad(self.loss(cross_entropy), [p for _, p in trainable], allow_unused=True)
        self.params = [(n, p) for (n, p), g in zip(trainable, used, strict=True) if g is not None]
        self.names = [n for n, p in self.params for _ in range(p.numel())]
        self.sizes = torch.tensor([p.numel() for _, p in self.params])
        self.w = torch.cat([p.detach().flatten() for _, p in self.params])

    def loss(self, objective):
        buffers = {n: b.clone() for n, b in self.model.named_buffers()}
        return objective(torch.func.functional_call(self.model, buffers, (self.x,)), self.y)

    def write(self, flat, attribute="data"):
        for part, (_, p) in zip(flat.split([p.numel() for _, p in self.params]), self.params, strict=True):
            setattr(p, attribute, part.view_as(p).clone())

    def logits(self, w):
        self.write(w)
        buffers = {n: b.clone() for n, b in self.model.named_buffers()}
        logits = torch.func.functional_call(self.model, buffers, (self.x,))
        self.write(self.w)
        return logits

    def functional(self, w, u):
        """J(w)^T u, the gradient of <logits(w), u>."""
        self.write(w)
        buffers = {n: b.clone() for n, b in self.model.named_buffers()}
        logits = torch.func.functional_call(self.model, buffers, (self.x,))
        grads = torch.autograd.grad((logits * u).sum(), [p for _, p in self.params])
        self.write(self.w)
        return torch.cat([g.flatten() for g in grads])

    def __call__(self, w, ascent=False):
        self.write(w)
        grads = torch.autograd.grad(self.loss(self.ascent if ascent else cross_entropy), [p for _, p in self.params])
        self.write(self.w)
        return torch.cat([g.flatten() for g in grads])


def step(rule, model, base, x, y, t, memory, ascent=cross_entropy, **numbers):
    at = At(model, x, y, ascent)
    gradient = rule(at, at.w, t, memory, **numbers)
    at.write(memory.pop("seen_at", at.w))
    model(x)  # running statistics see the batch once, in the first pass: at w, unless that one is perturbed
    at.write(at.w)
    at.write(gradient, "grad")
    base.step()
    if "after" in memory:  # a step of its own after the base's
        now = torch.cat([p.detach().flatten() for _, p in at.params])
        at.write(now - base.param_groups[0]["lr"] * memory.pop("after"))
    base.zero_grad()


def unit(v):
    return v / v.norm()


def orthogonal(v, other):
    return v - (v @ other) / (other @ other) * other


def draws(n, seed, t):
    return torch.rand(n, generator=torch.Generator().manual_seed(seeded(seed, t, 0, 0)))


def chosen(n, beta, seed, t):
    """Which of n weights move: four draws of 16 bits from each 64, the lowest bits first, as signed numbers."""
    words = torch.empty(-(-n // 4), dtype=torch.int64)
    words.random_(-(2**63), None, generator=torch.Generator().manual_seed(seeded(seed, t, 0, 0)))
    lanes = [(word >> shift) % 65536 for word in words.tolist() for shift in (0, 16, 32, 48)]
    return torch.tensor([(lane + 32768) % 65536 < round(beta * 65536) for lane in lanes[:n]])


def sam(at, w, t, memory, rho):
    return at(w + rho * unit(at(w, ascent=True)))


def asam(at, w, t, memory, rho, eta):
    T = torch.where(torch.tensor(["weight" in n for n in at.names]), w.abs() + eta, 1.0)
    g = at(w, ascent=True)
    return at(w + rho * T**2 * g / (T * g).norm())


def esam(at, w, t, memory, rho, beta, seed=0):
    m = chosen(len(w), beta, seed, t).to(w)
    return at(w + rho * m / beta * unit(at(w, ascent=True)))


def esam_tensor(at, w, t, memory, rho, beta, seed=0):
    """Whole tensors are live or frozen, and the norm is that of the live ones, as in the authors' code."""
    drawn = torch.rand(len(at.sizes), generator=torch.Generator().manual_seed(seeded(seed, t, 0)))
    g = at(w, ascent=True) * (drawn < beta).repeat_interleave(at.sizes)
    memory.setdefault("norms", []).append(rho / beta if g.any() else 0.0)
    return at(w + memory["norms"][-1] * unit(g)) if g.any() else at(w)


def gsam(at, w, t, memory, rho, alpha):
    g, g_s = at(w), at(w + rho * unit(at(w, ascent=True)))
    return g_s - alpha * orthogonal(g, g_s)


def wsam(at, w, t, memory, rho, gamma):
    g, g_s = at(w), at(w + rho * unit(at(w, ascent=True)))
    return gamma / (1 - gamma) * g_s + (1 - 2 * gamma) / (1 - gamma) * g


def wsam_decoupled(at, w, t, memory, rho, gamma):
    g, g_s = at(w), at(w + rho * unit(at(w, ascent=True)))
    memory["after"] = gamma / (1 - gamma) * (g_s - g)
    return g


def looksam(at, w, t, memory, rho, k, alpha):
    g = at(w)
    if t % k:
        return g + alpha * g.norm() * unit(memory["v"])
    g_s = at(w + rho * unit(at(w, ascent=True)))
    memory["v"] = orthogonal(g_s, g)
    return g_s


def friendlysam(at, w, t, memory, rho, sigma, decay):
    g = at(w, ascent=True)
    d = g - sigma * memory["m"] if t else g
    memory["m"] = decay * memory["m"] + (1 - decay) * g if t else g
    return at(w + rho * unit(d))


def vasso(at, w, t, memory, rho, theta):
    g = at(w, ascent=True)
    memory["d"] = (1 - theta) * memory["d"] + theta * g if t else g
    return at(w + rho * unit(memory["d"]))


def samon(at, w, t, memory, rho):
    g = at(w, ascent=True) * torch.tensor([n.startswith("norm.") for n in at.names])
    return at(w + rho * unit(g))


def fishersam(at, w, t, memory, rho, eta):
    g = at(w, ascent=True)
    f = 1 + eta * g**2
    return at(w + rho * g / f / (g * g / f).sum().sqrt())


def live(g, t, memory, sparsity, every, drop_rate, total_steps, seed=0):
    """Which weights move at step t; every so often that changes, for the steps after."""
    live = memory.get("live", torch.ones(len(g), dtype=torch.bool))
    if t % every == 0:
        n = round(len(g) * (1 - sparsity))
        drop = drop_rate * (1 + math.cos(math.pi * min(1, t / total_steps))) / 2
        kept = torch.zeros_like(live).index_fill(0, (g.abs() * live).topk(round(n * (1 - drop))).indices, True)
        may_grow = ~live if (~live).sum() >= n - kept.sum() else ~kept
        grown = ((1 - draws(len(g), seed, t)) * may_grow).topk(n - int(kept.sum())).indices
        memory["live"] = kept.index_fill(0, grown, True)
    return live.to(g)


def ssam(at, w, t, memory, rho, **mask):
    g = at(w, ascent=True)
    return at(w + rho * live(g, t, memory, **mask) * unit(g))


def is_large(g, t, memory, total_steps, lambda_1=-1, lambda_2=1, delta=0.9):
    """Whether g is large for its time."""
    n = g @ g
    memory["mu"] = delta * memory.get("mu", 0) + (1 - delta) * n
    memory["s2"] = delta * memory.get("s2", math.exp(-10)) + (1 - delta) * (n - memory["mu"]) ** 2
    c = t / total_steps * lambda_1 + (1 - t / total_steps) * lambda_2
    return bool(n >= memory["mu"] + c * memory["s2"].sqrt())


def aesam(at, w, t, memory, rho, total_steps):
    g = at(w)
    memory.setdefault("perturbed", []).append(is_large(g, t, memory, total_steps))
    return at(w + rho * unit(at(w, ascent=True))) if memory["perturbed"][-1] else g


def tailsam(at, w, t, memory, rho, total_steps, tail):
    return at(w + rho * unit(at(w, ascent=True))) if t >= total_steps - round(tail * total_steps) else at(w)


def momentumsam(at, w, t, memory, rho, uphill=False, momentum=0.9):
    v = memory.get("v", torch.zeros_like(w))
    sign = 1 if uphill else -1
    memory["seen_at"] = w + sign * rho * unit(v) if t else w
    g = at(memory["seen_at"])
    memory["v"] = momentum * v + g  # as torch.optim.SGD accumulates it
    return g


def asyncsam(at, w, t, memory, rho):
    memory["seen_at"] = w + rho * unit(memory["last"]) if t else w
    memory["last"] = at(memory["seen_at"])
    return memory["last"]


def usam(at, w, t, memory, rho, lambda_):
    g = at(w, ascent=True)
    return at(w + rho * (1 - lambda_ + lambda_ / g.norm()) * g)


def lesam(at, w, t, memory, rho, sigma):
    g = at(w, ascent=True)
    return at(w + min(sigma / g.norm(), rho) * unit(g))


def lightsam(at, w, t, memory, rho):
    """Not a named method: LightSAM's radius alone."""
    g = at(w, ascent=True)
    memory["sum"] = memory.get("sum", 0.0) + g @ g
    return at(w + rho * g / memory["sum"].sqrt())


def stablesam(at, w, t, memory, rho):
    g, g_s = at(w), at(w + rho * unit(at(w, ascent=True)))
    return g_s * g.norm() / g_s.norm()


def functionalsam(at, w, t, memory, rho):
    logits = at.logits(w).detach().requires_grad_()
    (u,) = torch.autograd.grad(cross_entropy(logits, at.y), logits)
    return at.functional(w + rho * unit(at(w, ascent=True)), u)


def composed(at, w, t, memory, rho, direction, ball, support, perturbs, combine):
    """Any direction in any ball, of which any part moves, on any steps, under any combination: the axes multiplied out.

    ``perturbs(g, t, memory)`` tells whether step t perturbs.
    """
    g = at(w)
    memory.setdefault("perturbed", []).append(perturbs(g, t, memory))
    if not memory["perturbed"][-1]:
        return g + 0.7 * g.norm() * unit(memory["v"]) if combine == "looksam" and "v" in memory else g
    a = at(w, ascent=True)
    d = a
    if direction == "vasso":
        d = memory["m"] = 0.6 * memory["m"] + 0.4 * a if "m" in memory else a
    elif direction == "friendlysam":
        d = a - 0.8 * memory["m"] if "m" in memory else a
        memory["m"] = 0.7 * memory["m"] + 0.3 * a if "m" in memory else a
    T, share = torch.ones_like(w), 1.0
    if ball == "asam":
        T = torch.where(torch.tensor(["weight" in n for n in at.names]), w.abs() + 0.01, 1.0)
    elif ball == "fishersam":
        T = (1 + d**2).rsqrt()
    if support == "samon":
        T = T * torch.tensor([float(n.startswith("norm.")) for n in at.names]).to(w)
    elif support == "esam":
        share = chosen(len(w), 0.6, 0, t).to(w) / 0.6
    elif support == "ssam":
        share = live(d, t, memory, sparsity=0.5, every=3, drop_rate=0.5, total_steps=7)
    g_s = at(w + share * rho * T**2 * d / (T * d).norm())
    if combine == "gsam":
        return g_s - 0.4 * orthogonal(g, g_s)
    if combine == "wsam":
        return 2.0 * g_s - 1.0 * g
    if combine == "looksam":
        memory["v"] = orthogonal(g_s, g)
    return g_s
