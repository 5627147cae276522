"""The blocks of the loop's pages do what the page says: each is compared with the step written out."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy, kl_div

from bisam import SAM, LowerBoundLoss
from tests.pages import blocks_with

NETWORKS, LOSSES, LOG = "docs/loop/several-networks.md", "docs/loop/losses.md", "docs/loop/logging.md"
Q = LowerBoundLoss()


@pytest.fixture(autouse=True)
def _double():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(2)
    yield
    torch.set_default_dtype(before)


def reader():
    """The reader's model as the loop finds it."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 3))


def run(page, word, loader, **names):
    """Run the blocks with ``word`` from one seed, and return their namespace."""
    model = reader()
    torch.manual_seed(1)
    namespace = {"__name__": "page", "torch": torch, "model": model, "loader": loader} | names
    exec(compile(blocks_with(page, word), page, "exec"), namespace)
    return namespace


def before_and_after(page, word, loader, **names):
    """The namespace before the loop, with the random state that the loop finds, and the one after it."""
    after = run(page, word, loader, **copy.deepcopy(names))
    return run(page, word, [], **copy.deepcopy(names)), after


def images(count=3):
    return [(torch.randn(8, 3, 2, 2), torch.randint(3, (8,))) for _ in range(count)]


def perturbed(balls, loss):
    """Move each ball's parameters by rho g / ||g|| and return the way back."""
    params = [p for ball, _ in balls for p in ball]
    gradients = iter(torch.autograd.grad(loss, params))
    back = [p.detach().clone() for p in params]
    with torch.no_grad():
        for ball, rho in balls:
            own = [next(gradients) for _ in ball]
            norm = torch.sqrt(sum(g.square().sum() for g in own))
            for p, g in zip(ball, own, strict=True):
                p.add_(rho * g / norm)
    return params, back


def step(bases, balls, ascent, descent, networks=()):
    """One step written out; the networks' buffers are as the pass at w left them."""
    params, back = perturbed(balls, ascent())
    buffers = [(b, b.clone()) for network in networks for b in network.buffers()]
    gradients = torch.autograd.grad(descent(), params)
    with torch.no_grad():
        for p, w, g in zip(params, back, gradients, strict=True):
            p.copy_(w)
            p.grad = g
        for buffer, value in buffers:
            buffer.copy_(value)
    for base in bases:
        base.step()
        base.zero_grad()


def same(ours, theirs):
    mine, other = ours.state_dict(), theirs.state_dict()
    assert mine.keys() == other.keys()
    for key, value in mine.items():
        torch.testing.assert_close(value, other[key], rtol=1e-10, atol=1e-12, msg=lambda m, key=key: f"{key}: {m}")


def params(network):
    return list(network.parameters())


def sgd(*networks):
    return torch.optim.SGD([p for network in networks for p in network.parameters()], lr=0.1, momentum=0.9)


def test_each_network_of_a_gan_takes_its_own_step():
    data = images()
    start, end = before_and_after(NETWORKS, "opt_d", data)
    g, d = start["generator"], start["discriminator"]
    adam = {name: torch.optim.Adam(params(network), lr=2e-4) for name, network in (("g", g), ("d", d))}

    def judged(samples, label):
        return binary_cross_entropy_with_logits(d(samples), torch.full((len(samples), 1), label))

    for real, _ in data:
        noise = torch.randn(len(real), 4)
        fake = g(noise).detach()
        loss = lambda real=real, fake=fake: judged(real, 1.0) + judged(fake, 0.0)  # noqa: E731
        step([adam["d"]], [(params(d), 0.05)], loss, loss, [d])
        loss = lambda noise=noise: judged(g(noise), 1.0)  # noqa: E731
        step([adam["g"]], [(params(g), 0.05)], loss, loss, [g, d])
    same(end["generator"], g)
    same(end["discriminator"], d)


def test_one_optimizer_over_two_networks_has_one_perturbation_with_two_radii():
    data = images()
    start, end = before_and_after(NETWORKS, "groups =", data)
    model, head = start["model"], start["head"]
    groups = [{"params": params(model), "lr": 0.1}, {"params": params(head), "lr": 0.01}]
    base = torch.optim.SGD(groups, momentum=0.9)
    for x, y in data:
        own = torch.autograd.grad(cross_entropy(head(model(x)), y), params(model) + params(head))
        squares = [g.square().sum() for g in own]
        mine, other = sum(squares[: len(params(model))]), sum(squares[len(params(model)) :])
        norm = torch.sqrt(0.05**2 * mine + 0.02**2 * other)
        balls = [(params(model), 0.05**2 * mine.sqrt() / norm), (params(head), 0.02**2 * other.sqrt() / norm)]
        loss = lambda x=x, y=y: cross_entropy(head(model(x)), y)  # noqa: E731
        step([base], balls, loss, loss)
    same(end["model"], model)
    same(end["head"], head)


def test_two_optimizers_of_one_loss_climb_in_balls_of_their_own():
    data = images()
    start, end = before_and_after(NETWORKS, "strict=True", data, head=nn.Linear(3, 3))
    model, head = start["model"], start["head"]
    bases = [sgd(model), torch.optim.AdamW(params(head), lr=1e-3)]
    for x, y in data:
        loss = lambda x=x, y=y: cross_entropy(head(model(x)), y)  # noqa: E731
        step(bases, [(params(model), 0.05), (params(head), 0.02)], loss, loss)
    same(end["model"], model)
    same(end["head"], head)


def test_a_teacher_follows_the_restored_weights():
    data = images()
    start, end = before_and_after(NETWORKS, "AveragedModel", data)
    model, base = start["model"], sgd(start["model"])
    teacher = copy.deepcopy(model)
    for number, (x, _) in enumerate(data):
        view, other = x + 0.1 * torch.randn_like(x), x + 0.1 * torch.randn_like(x)
        target = teacher(other).detach()
        loss = lambda view=view, target=target: nn.functional.mse_loss(model(view), target)  # noqa: E731
        step([base], [(params(model), 0.05)], loss, loss)
        with torch.no_grad():  # AveragedModel copies the first time
            for p, q in zip(params(teacher), params(model), strict=True):
                p.copy_(q if number == 0 else 0.99 * p + 0.01 * q)
    same(end["model"], model)
    same(end["teacher"].module, teacher)


def test_two_base_optimizers_have_one_perturbation():
    data = images()
    start, end = before_and_after(NETWORKS, "adamw = ", data)
    model = start["model"]
    matrices, others = [p for p in params(model) if p.ndim == 2], [p for p in params(model) if p.ndim != 2]
    bases = [torch.optim.Muon(matrices, lr=0.02), torch.optim.AdamW(others, lr=1e-3)]
    schedules = [torch.optim.lr_scheduler.CosineAnnealingLR(base, T_max=10) for base in bases]
    for x, y in data:
        loss = lambda x=x, y=y: cross_entropy(model(x), y)  # noqa: E731
        step(bases, [(params(model), 0.05)], loss, loss)
        for schedule in schedules:
            schedule.step()
    same(end["model"], model)


def test_an_encoder_that_forward_moves_is_moved_once_a_step():
    data = images()
    start, end = before_and_after(NETWORKS, "Contrast", data)
    contrast, query, key = start["contrast"], start["contrast"].query, start["contrast"].key
    base = torch.optim.SGD(params(query), lr=0.1)
    for x, _ in data:
        moved = [k.lerp(q.detach(), 0.01) for k, q in zip(params(key), params(query), strict=True)]
        loss = lambda x=x: nn.functional.mse_loss(*contrast(x, x.flip(-1)))  # noqa: E731
        step([base], [(params(query), 0.05)], loss, loss)
        with torch.no_grad():
            for k, m in zip(params(key), moved, strict=True):
                k.copy_(m)
    same(end["contrast"], contrast)


def test_the_logged_loss_and_accuracy_are_those_at_w():
    ((x, y),) = data = images(1)
    end, model = run(LOG, "MeanMetric", data), reader()
    assert end["loss"].compute().item() == pytest.approx(cross_entropy(model(x), y).item(), rel=1e-6)
    assert end["accuracy"].compute().item() == pytest.approx((model(x).argmax(1) == y).double().mean().item())


def test_the_closure_of_the_migration_page_takes_one_step():
    data = images()
    names = {"loss_function": cross_entropy}
    start, end = before_and_after("docs/migration.md", "def closure", data, **names)
    model, base = start["model"], sgd(start["model"])
    for x, y in data:
        loss = lambda x=x, y=y: cross_entropy(model(x), y)  # noqa: E731
        step([base], [(params(model), 0.05)], loss, loss)
    same(end["model"], model)


def test_a_backward_before_the_closure_adds_the_plain_gradient():
    ((x, y),) = images(1)
    model = reader()
    plain = torch.autograd.grad(cross_entropy(model(x), y), params(model))
    opt = SAM(torch.optim.SGD(params(model), lr=0.0), model=model, rho=0.05)
    for objective in opt.passes():
        objective(model(x), y).backward()
    sharp = [p.grad for p in params(model)]
    opt.step()
    opt.zero_grad()

    def closure():
        loss = opt.objective(model(x), y)
        loss.backward()
        return loss

    cross_entropy(model(x), y).backward()
    with pytest.warns(UserWarning, match=r"leave out the backward\(\) before step\(closure\)"):
        opt.step(closure)
    for p, g, h in zip(params(model), plain, sharp, strict=True):
        torch.testing.assert_close(p.grad, g + h)


def test_a_term_beside_the_objective_belongs_to_both_passes():
    data = images()
    start, end = before_and_after(LOSSES, "divergence", data)
    model, teacher, base = start["model"], start["teacher"], sgd(start["model"])

    def loss(objective, x, y):
        taught = teacher(x).log_softmax(1).detach()
        output = model(x)
        beside = kl_div(output.log_softmax(1), taught, reduction="batchmean", log_target=True)
        return objective(output, y) + 0.5 * beside

    for x, y in data:
        both = [lambda f=f, x=x, y=y: loss(f, x, y) for f in (Q, cross_entropy)]
        step([base], [(params(model), 0.05)], *both)
    same(end["model"], model)


def test_two_targets_and_two_heads_are_weighted_alike_in_both_passes():
    data = images()
    start, end = before_and_after(LOSSES, "auxiliary", data)
    model, head = start["model"], start["head"]
    base = sgd(model, head)

    def loss(objective, x, y, order):
        mixed = 0.7 * x + 0.3 * x[order]
        output = model(mixed)
        main = 0.7 * objective(output, y) + 0.3 * objective(output, y[order])
        return main + 0.3 * objective(head(mixed.flatten(1)), y)

    for x, y in data:
        order = torch.randperm(len(x))
        both = [lambda f=f, x=x, y=y, o=order: loss(f, x, y, o) for f in (Q, cross_entropy)]
        step([base], [(params(model) + params(head), 0.05)], *both)
    same(end["model"], model)
    same(end["head"], head)


def test_a_recorded_loss_is_climbed_and_descended():
    data = images()
    start, end = before_and_after(LOSSES, "detailed", data)
    model, base = start["model"], sgd(start["model"])
    for x, y in data:
        loss = lambda x=x, y=y: cross_entropy(model(x), y) + 0.01 * model(x).square().mean()  # noqa: E731
        step([base], [(params(model), 0.05)], loss, loss)
    same(end["model"], model)
