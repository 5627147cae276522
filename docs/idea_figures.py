"""The figures of the idea: what a sharp minimum is, what the adversaries climb. Drawn by running the library itself."""

import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import contourpy
import torch
from torch import Tensor, nn

from bisam import ASAM, SAM, SharpnessAware
from bisam.bounds import LogBound, TanhBound
from bisam.functional import lower_bound_loss, zero_one_loss

sys.path.insert(0, str(Path(__file__).parent))
from drawing import Plot, Point

__all__ = ["balls", "bounds", "climbed", "minima", "pull", "valley", "worst"]

#: The radius of the figures in one dimension.
RHO = 0.55
Loss = Callable[[Tensor], Tensor]


def valley(w: Tensor) -> Tensor:
    """Return a loss with a sharp minimum at the left and a flat one at the right; ``w``: (..., 1)."""
    sharp = 0.9 * torch.exp(-((w + 1.6) ** 2) / (2 * 0.17**2))
    return (0.6 + 0.1 * (w - 1.3) ** 2 - sharp).sum(-1)


def climbed(loss: Loss, start: Tensor, rho: float, method: Callable[..., SharpnessAware] = SAM) -> Tensor:
    """Return the weights at which a method takes its last gradient: w + eps."""
    weights = nn.Parameter(start.clone())
    opt = method(torch.optim.SGD([weights], lr=0.1), rho=rho, descent=_itself)
    at = start
    for objective in opt.passes():
        at = weights.detach().clone()
        objective(loss(weights), None).backward()
    return at


def _itself(output: Tensor, target: None) -> Tensor:
    return output


def _curve(loss: Loss, low: float, high: float, points: int = 241) -> list[Point]:
    places = torch.linspace(low, high, points)
    return [(float(w), float(loss(w.reshape(1)))) for w in places]


def _bottom(low: float, high: float) -> float:
    """Return where the loss in one dimension is least between two weights."""
    return min(_curve(valley, low, high, 2001), key=lambda point: point[1])[0]


def minima() -> str:
    """Return the picture of a sharp and a flat minimum, each with its ball and the adversary's move."""
    plot = Plot((480, 270), (-2.9, 4.1), (0, 2.48), (16, 16, 16, 30))
    plot.axes("weights w", "loss")
    drawn = (("sharp minimum", _bottom(-2.2, -1) + 0.02), ("flat minimum", _bottom(0.5, 2.5) + 0.06))
    for name, w in drawn:
        _ball(plot, w)
        plot.text(name, (w, 0), "name", shift=(0, -8))
    plot.line(_curve(valley, *plot.x, 481), "curve")
    for (_, w), shift in zip(drawn, ((10, -4), (-12, -26)), strict=True):
        _move(plot, w, shift)
    return plot.svg(
        "A loss with a sharp and a flat minimum. Within the same radius the loss rises much at the sharp one and "
        "little at the flat one."
    )


def _ball(plot: Plot, w: float) -> None:
    """Draw the ball of the radius around w, over the whole height."""
    low, high = w - RHO, w + RHO
    plot.area([(low, 0), (low, 2.3), (high, 2.3), (high, 0)], "ball")
    plot.text("radius \u03c1", (w, 2.3), "small", shift=(0, -4))


def _move(plot: Plot, w: float, shift: Point) -> None:
    """Draw the adversary's move, and how much the loss has risen."""
    at = float(climbed(valley, torch.tensor([w]), RHO))
    before, after = (float(valley(torch.tensor([place]))) for place in (w, at))
    plot.line([(w, before), (at, before)], "guide")
    plot.arrow((at, before), (at, after - 0.02), "adversary")
    plot.dot((w, before), "weights")
    plot.dot((at, after), "perturbed")
    plot.text("w", (w, before), "mark", shift=(0, 20))
    words = f"w + \u03b5, loss +{after - before:.2f}"
    plot.text(words, (at, after), "adversary-text", "start" if shift[0] > 0 else "middle", shift)


def worst() -> str:
    """Return the loss and the worst loss within the radius: the function that SAM lowers. A script moves the radius."""
    plot = Plot((480, 260), (-2.9, 3.9), (0, 2.58), (16, 14, 16, 30))
    plot.axes("weights w", "loss")
    curve = _curve(valley, plot.x[0] - 1.2, plot.x[1] + 1.2, 461)
    plot.line([point for point in curve if plot.x[0] <= point[0] <= plot.x[1]], "curve")
    high = [(w, max(loss for place, loss in curve if abs(place - w) <= RHO)) for w, _ in curve]
    high = [point for point in high if plot.x[0] <= point[0] <= plot.x[1]]
    plot.line(high, "worst")
    plot.dot(min(high, key=lambda point: point[1]), "perturbed least")
    plot.text("the loss at w", (2.3, 0.3), "name")
    plot.text("the worst loss within \u03c1 of w", (-1.2, 1.68), "adversary-text", "start")
    drawn = plot.svg("A loss, and above it the worst loss within the radius: its least value lies at the flat minimum.")
    samples = json.dumps([[round(w, 3), round(loss, 4)] for w, loss in curve], separators=(",", ":"))
    frame = json.dumps({"x": plot.x, "y": plot.y, "size": plot.size, "pad": plot.pad}, separators=(",", ":"))
    return drawn.replace("<svg ", f"<svg data-worst='{samples}' data-frame='{frame}' data-rho='{RHO}' ", 1)


def balls() -> str:
    """Return the ball of SAM and that of ASAM around the same weights, with the move that each of them makes."""
    drawings = []
    start = torch.tensor([1.5, 0.45])
    for name, method, rho in (("SAM: a ball", SAM, 0.4), ("ASAM: scaled by |w|", ASAM, 0.4)):
        plot = Plot((320, 240), (0.3, 2.7), (-0.45, 1.35), (14, 24, 10, 28))
        plot.axes("w\u2081", "w\u2082")
        _contours(plot)
        at = climbed(_bowl, start, rho, method)
        scale = torch.ones(2) if method is SAM else start.abs() + 0.01
        turn = torch.linspace(0, 2 * torch.pi, 97)
        rim = start + rho * scale * torch.stack([turn.cos(), turn.sin()], 1)
        plot.area([(float(a), float(b)) for a, b in rim], "ball round")
        before, after = ((float(place[0]), float(place[1])) for place in (start, at))
        plot.arrow(before, after, "adversary")
        plot.dot(before, "weights")
        plot.dot(after, "perturbed")
        plot.text(name, (1.5, 1.35), "name", shift=(0, -8))
        drawings.append(plot.svg(f"{name}, around w = (1.5, 0.45), on the contours of a loss."))
    return "".join(drawings)


def _bowl(w: Tensor) -> Tensor:
    return 0.5 * (w[..., 0] - 0.6) ** 2 + 1.6 * (w[..., 1] + 0.2) ** 2 + 0.5 * w[..., 0] * w[..., 1]


def _contours(plot: Plot) -> None:
    x, y = (torch.linspace(*ends, 60) for ends in (plot.x, plot.y))
    heights = _bowl(torch.stack(torch.meshgrid(x, y, indexing="xy"), -1))
    lines = contourpy.contour_generator(x.numpy(), y.numpy(), heights.numpy())
    for level in (0.25, 0.5, 0.9, 1.4, 2, 2.8, 3.8, 5):
        found: Iterable[Iterable[tuple[float, float]]] = lines.lines(level)  # type: ignore[assignment]
        for line in found:
            plot.line([(float(a), float(b)) for a, b in line], "contour")


def _two_classes(points: int = 321) -> tuple[Tensor, Tensor, Tensor]:
    """Return margins, the logits of two classes with them, and the true class, whose logit is 0."""
    margin = torch.linspace(-8, 8, points)
    return margin, torch.stack([torch.zeros_like(margin), margin], 1), torch.zeros(points, dtype=torch.long)


def bounds() -> str:
    """Return the 0-1 loss, its upper bound and its two lower bounds over the margin."""
    margin, logits, truth = _two_classes()
    plot = Plot((480, 280), (-8, 8), (-2, 3), (34, 14, 120, 40))
    plot.axes("margin F: the largest wrong logit minus the right one", "", (-8, -4, 0, 4, 8), (-2, -1, 0, 1, 2, 3))
    plot.line([(0, -2), (0, 3)], "guide")
    step = zero_one_loss(logits, truth, reduction="none")
    entropy = nn.functional.cross_entropy(logits, truth, reduction="none") / torch.log(torch.tensor(2.0))
    drawn = (
        ("cross-entropy / log 2", entropy, "above", (2.25, 2.9), "start", (12, 6)),
        ("0-1 loss", step, "step", (8, 1), "start", (6, -4)),
        ("\u03c6 of BiSAM-log", LogBound().phi(margin), "log", (8, 1), "start", (6, 14)),
        ("\u03c6 of BiSAM-tanh", TanhBound().phi(margin), "tanh", (8, 0.664), "start", (6, 14)),
    )
    for name, values, kind, place, anchor, shift in drawn:
        points = [(float(x), float(y)) for x, y in zip(margin, values, strict=True)]
        plot.line(points, f"loss {kind}")
        plot.text(name, place, f"{kind}-text", anchor, shift)
    plot.text("right", (-4, -2), "small", shift=(0, -8))
    plot.text("a mistake", (4, -2), "small", shift=(0, -8))
    return plot.svg("The 0-1 loss over the margin, cross-entropy above it, and the bounds tanh and -log below it.")


def pull() -> str:
    """Return how hard a sample pulls at each adversary: the slope of what it climbs."""
    margin, logits, truth = _two_classes()
    plot = Plot((480, 240), (-8, 8), (0, 1.1), (34, 14, 120, 40))
    plot.axes("margin F", "", (-8, -4, 0, 4, 8), (0, 0.5, 1))
    plot.line([(0, 0), (0, 1.1)], "guide")
    drawn = (
        ("cross-entropy", 1, "above", (8, 1), (6, 4)),
        ("10 x Q of tanh", 10, "tanh", (8, 0.56), (6, 4)),
        ("Q of log", 1, "log", (8, 0.0), (6, -4)),
    )
    logits.requires_grad_()
    for name, times, kind, place, shift in drawn:
        if kind == "above":
            loss = nn.functional.cross_entropy(logits, truth, reduction="sum")
        else:
            loss = lower_bound_loss(logits, truth, bound=kind, reduction="sum")
        (slope,) = torch.autograd.grad(times * loss, logits)
        plot.line([(float(x), float(y)) for x, y in zip(margin, slope[:, 1], strict=True)], f"loss {kind}")
        plot.text(name, place, f"{kind}-text", "start", shift)
    plot.text("right", (-4, 0.9), "small")
    plot.text("already a mistake", (4, 0.2), "small")
    return plot.svg("The slope of each objective over the margin: the log bound lets go of samples that are lost.")
