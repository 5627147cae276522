"""Sharpness at w: curvature of the loss, how far it rises within a radius, and the loss around w."""

import importlib
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import RecipeError
from .adversaries import Adversary, Gradients, length_of
from .batches import Batch, logits_of
from .measure import cosine, mean, score
from .modes import mode

__all__ = ["Plane", "Sharpness", "check_installed", "sharpness"]

#: Batches over which curvature and rises are taken.
BATCHES = 2
#: Eigenvalues of the Hessian, and products with it for the estimate of its trace. With no more parameters it is exact.
LARGEST = 3
VECTORS = 30
#: Multiples of eps along each direction, and steps of the plane's grid.
ALONG = tuple(i / 2 for i in range(-4, 5))
GRID = tuple(i * 0.4 for i in range(-5, 6))
#: Parts of a batch for the smaller m of m-sharpness.
PARTS = 4


@dataclass(frozen=True)
class Plane:
    """A number on a grid of w + a eps_1 + b eps_2.

    Attributes:
        what: the number.
        first: adversary whose eps is eps_1, across.
        second: adversary of eps_2, of the part of its eps that is orthogonal to eps_1, stretched to its length, up.
        values: rows from b = -2 to 2, each from a = -2 to 2.
    """

    what: str
    first: str
    second: str
    values: list[list[float]]


@dataclass(frozen=True)
class Sharpness:
    """What :func:`sharpness` found, all of it with running statistics.

    Attributes:
        rho: radius of the rises, the lines and the planes.
        numbers: by name.
        note: how they were taken.
        loss_along: by adversary: (multiple of its eps, cross-entropy on the first batch).
        error_along: the same of the error, in per cent.
        planes: loss and error in the plane of two perturbations of the first batch.
    """

    rho: float
    numbers: dict[str, float]
    note: str
    loss_along: dict[str, list[tuple[float, float]]]
    error_along: dict[str, list[tuple[float, float]]]
    planes: list[Plane]


def check_installed() -> None:
    """Check that the library of curvature is there.

    Raises:
        RecipeError: it is not.
    """
    _curvlinops()


def sharpness(
    model: nn.Module,
    batches: Sequence[Batch],
    adversaries: Sequence[Adversary],
    sam: Adversary,
    asam: Adversary,
    rho: float,
) -> Sharpness:
    """Measure the sharpness of the cross-entropy of the first batches.

    - The three largest eigenvalues of the Hessian and its trace (Hutch++, Meyer et al. 2021), by curvlinops.
    - Critical sharpness, 2 / eta with eta the smallest step along minus the gradient that does not lower the loss
      (Kalra and Barkeshli, arXiv 2404.04189, there as critical learning rate): forward passes alone.
    - m-sharpness of SAM and ASAM: mean rise of the loss of m samples at their own perturbation (Foret et al., arXiv
      2010.01412, Section 4.2), with the whole batch and with a quarter of it.
    """
    few = list(batches[:BATCHES])
    with mode(model, ()):
        numbers = _curvature(model, few)
        numbers["critical sharpness, mean over batches"] = mean(_critical(model, batch) for batch in few)
        for adversary in (sam, asam):
            for parts in (1, PARTS):
                m = math.ceil(len(few[0]) / parts)
                numbers[f"{adversary.name}'s m-sharpness, m = {m}"] = _m_sharpness(model, few, adversary, parts, rho)
        around = _Around(model, few[0], rho)
        eps = {one.name: around.eps(one) for one in adversaries if one.whole}
        lines = {name: [(t, around.at(t, vector)) for t in ALONG] for name, vector in eps.items()}
        pair = list(eps)[:2] if len(eps) > 1 else []
        planes = _planes(around, eps, pair[0], _other(eps, pair)) if pair else []
    return Sharpness(
        rho=rho,
        numbers=numbers,
        note="With running statistics. Curvature, critical sharpness and m-sharpness are of the cross-entropy of "
        f"{len(few)} batches of {len(few[0])}. The trace is an estimate from {VECTORS} products. m-sharpness is at "
        f"rho {rho:g}, ASAM's in proportion. The lines and planes are of the first batch.",
        loss_along={name: [(t, loss) for t, (loss, _) in found] for name, found in lines.items()},
        error_along={name: [(t, 100 * error) for t, (_, error) in found] for name, found in lines.items()},
        planes=planes,
    )


def _curvlinops() -> Any:
    try:
        with _without_news_of_torch():
            return importlib.import_module("curvlinops")
    except ImportError as error:
        raise RecipeError(f"--sharpness needs curvlinops ({error}): pip install 'bisam[sharpness]'") from None


@contextmanager
def _without_news_of_torch() -> Iterator[None]:
    """Hide that torch's own forward derivatives, and what curvlinops imports, use what torch deprecates."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.script", FutureWarning)
        yield


def _curvature(model: nn.Module, batches: Sequence[Batch]) -> dict[str, float]:
    from scipy.sparse.linalg import eigsh

    library = _curvlinops()
    params = [param for param in model.parameters() if param.requires_grad]
    data = [({"batch": batch}, batch.y) for batch in batches]
    operator = library.HessianLinearOperator(
        _Called(model),
        nn.CrossEntropyLoss(),
        params,
        data,
        check_deterministic=False,
        num_data=sum(map(len, batches)),
        batch_size_fn=lambda x: len(x["batch"]),
    )
    with _without_news_of_torch():
        if operator.shape[0] <= VECTORS:
            dense = operator.to_scipy() @ np.eye(operator.shape[0], dtype=operator.to_scipy().dtype)
            largest, trace = np.linalg.eigvalsh((dense + dense.T) / 2)[-LARGEST:], np.trace(dense)
        else:
            # scipy would draw the start from a random state of its own
            start = torch.randn(operator.shape[0], generator=torch.Generator().manual_seed(0)).numpy()
            largest = eigsh(operator.to_scipy(), k=LARGEST, which="LA", return_eigenvectors=False, tol=1e-2, v0=start)
            trace = library.hutchpp_trace(operator, VECTORS)
    told = enumerate(sorted(map(float, largest), reverse=True), 1)
    return {f"Hessian, eigenvalue {i}": value for i, value in told} | {"Hessian, trace": float(trace)}


class _Called(nn.Module):
    """Calls a network with a batch, as curvlinops hands it over: in a mapping."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: dict[str, Batch]) -> Tensor:
        return logits_of(self.model, x["batch"])


def _critical(model: nn.Module, batch: Batch) -> float:
    """Return 2 / eta: eta doubles until the loss along minus the gradient is not lower than at w, then is bisected."""
    params = [param for param in model.parameters() if param.requires_grad]
    at_w = F.cross_entropy(logits_of(model, batch), batch.y)
    gradient = torch.autograd.grad(at_w, params, materialize_grads=True, allow_unused=True)
    if not 0 < length_of(gradient) < math.inf:
        return math.nan
    start, w = float(at_w.detach()), [param.detach().clone() for param in params]

    def rises(eta: float) -> bool:
        with torch.no_grad():
            for param, origin, entry in zip(params, w, gradient, strict=True):
                param.copy_(origin - eta * entry)
            value = float(F.cross_entropy(logits_of(model, batch), batch.y))
            for param, origin in zip(params, w, strict=True):
                param.copy_(origin)
        return not value < start

    low, high = _bracket(rises)
    for _ in range(10):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if rises(middle) else (middle, high)
    return 2 / high


def _bracket(rises: Callable[[float], bool]) -> tuple[float, float]:
    """Return a step that lowers the loss and its double, which does not."""
    eta = next((2.0**k for k in range(0, -40, -1) if not rises(2.0**k)), 2.0**-40)
    while not rises(2 * eta) and eta < 2.0**40:
        eta *= 2
    return eta, 2 * eta


def _m_sharpness(model: nn.Module, batches: Sequence[Batch], adversary: Adversary, parts: int, rho: float) -> float:
    params = [param for param in model.parameters() if param.requires_grad]
    rises, weights = [], []
    for batch in batches:
        for part in batch.parts(parts):
            logits = logits_of(model, part)
            before, ascent = float(F.cross_entropy(logits.detach(), part.y)), adversary.gradient(logits, part.y, params)
            with adversary.at_perturbed(model, part, logits.detach(), ascent, rho), torch.no_grad():
                rises.append(float(F.cross_entropy(logits_of(model, part), part.y)) - before)
            weights.append(len(part))
    return sum(r * w for r, w in zip(rises, weights, strict=True)) / sum(weights)


class _Around:
    """Loss and error of a batch around w."""

    def __init__(self, model: nn.Module, batch: Batch, rho: float) -> None:
        self.model, self.batch, self.rho = model, batch, rho
        self.params = [param for param in model.parameters() if param.requires_grad]
        self.w = [param.detach().clone() for param in self.params]

    def eps(self, adversary: Adversary) -> Gradients:
        """Return an adversary's perturbation."""
        logits = logits_of(self.model, self.batch)
        ascent = adversary.gradient(logits, self.batch.y, self.params)
        with adversary.at_perturbed(self.model, self.batch, logits.detach(), ascent, self.rho), torch.no_grad():
            return [param - origin for param, origin in zip(self.params, self.w, strict=True)]

    def at(self, a: float, first: Gradients, b: float = 0.0, second: Gradients | None = None) -> tuple[float, float]:
        """Return cross-entropy and error at w + a first + b second."""
        with torch.no_grad():
            for i, (param, origin) in enumerate(zip(self.params, self.w, strict=True)):
                param.copy_(origin + a * first[i] + (b * second[i] if second is not None else 0))
            logits = logits_of(self.model, self.batch)
            for param, origin in zip(self.params, self.w, strict=True):
                param.copy_(origin)
        found = score(logits, self.batch.y)
        return found.loss, found.error


def _other(eps: dict[str, Gradients], pair: Sequence[str]) -> str:
    """Return the lower bound's adversary for the plane, or else the second one."""
    return next((name for name in eps if name.startswith("bisam-log") and name != pair[0]), pair[1])


def _planes(around: _Around, eps: dict[str, Gradients], first: str, second: str) -> list[Plane]:
    across, up = eps[first], _orthogonal(eps[second], eps[first])
    if up is None:
        return []
    grid = [[around.at(a, across, b, up) for a in GRID] for b in GRID]
    return [
        Plane("Cross-entropy", first, second, [[loss for loss, _ in row] for row in grid]),
        Plane("Error (%)", first, second, [[100 * error for _, error in row] for row in grid]),
    ]


def _orthogonal(vector: Gradients, to: Gradients) -> Gradients | None:
    """Return the part of a vector that is orthogonal to another one, as long as the vector; None if there is none."""
    along = cosine(vector, to)
    if not math.isfinite(along):
        return None
    rest = [x - along * length_of(vector) / length_of(to) * y for x, y in zip(vector, to, strict=True)]
    length = length_of(rest)
    return [length_of(vector) / length * x for x in rest] if length > 1e-6 * length_of(vector) else None
