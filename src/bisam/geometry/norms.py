"""Balls of other norms than a weighted l2 norm."""

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from .._validation import count, positive
from .._vectors import foreach
from ..choice import Bucket, Memory, Part, Vector
from ._base import Geometry

__all__ = ["PNormBall", "SpectralBall"]


class PNormBall(Geometry):
    """The ball of the p-norm (Foret et al., arXiv 2010.01412, Eq. 2): ||e||_p <= 1.

    Its farthest point along g is e = sign(g) abs(g)^(q-1) / (||g||_q^q)^(1/p) with 1/p + 1/q = 1. p = 2 is SAM's ball.
    In the ball of p = infinity every weight moves by rho, in the direction of its sign.

    Example:
        >>> from bisam import SAM
        >>> from bisam.geometry import PNormBall
        >>> opt = SAM(base, model=model, rho=0.001, geometry=PNormBall(float("inf")))

    Args:
        p: in (1, inf], ``torch.inf`` included.
    """

    def __init__(self, p: float) -> None:
        self.p = torch.inf if p == torch.inf else positive("p", p)
        if self.p <= 1:
            raise ValueError(f"p={p!r} must lie in (1, inf]: 2 is SAM's ball, torch.inf moves every weight by rho")

    def __call__(self, buckets: Sequence[Bucket], memory: Memory) -> None:
        """Replace each gradient by its farthest point."""
        gradient = Vector(buckets)
        if self.p == torch.inf:
            for bucket in buckets:
                foreach.copy_(bucket.entries, foreach.signs(bucket.entries))
            return
        q = self.p / (self.p - 1)
        length = gradient.norm(q).pow(q - 1)
        gradient.sign_power_(q - 1)
        for bucket in buckets:
            bucket.normalise(length)


class SpectralBall(Geometry):
    """One spectral-norm ball for each matrix, and the l2 ball for all other parameters together.

    The farthest point of ||E||_op <= 1 along a gradient G = U S V^T is its polar factor U V^T, the direction in which
    Muon updates (Jordan et al., 2024). Tensors with more axes than two count as matrices (first axis, rest), as in
    Muon; vectors, scalars and complex parameters form the l2 ball. So each matrix moves by rho in spectral norm, and
    the rest together by rho in l2 norm.

    The polar factor comes from Newton-Schulz iterations: Muon's own five, which lift small singular values quickly and
    leave them between about 0.7 and 1.2, and then steps of the quintic that converges to 1. Singular values below about
    1/500 of the largest do not get to 1. Matrix products of float32 gradients have the precision that
    ``torch.set_float32_matmul_precision`` asks for. Sharded tensors are refused.

    Example:
        >>> from bisam import SAM
        >>> from bisam.geometry import SpectralBall
        >>> opt = SAM(base, model=model, rho=0.05, geometry=SpectralBall())

    Args:
        steps: Muon's iterations, >= 1.
        refine: iterations of the convergent quintic after them, >= 0; 0 is what Muon itself does.
    """

    #: Coefficients (a, b, c) of X <- a X + b (X X^T) X + c (X X^T)^2 X: Muon's, and the ones that converge to 1.
    _MUON = (3.4445, -4.7750, 2.0315)
    _CONVERGENT = (15 / 8, -10 / 8, 3 / 8)

    def __init__(self, steps: int = 5, refine: int = 3) -> None:
        self.steps = count("steps", steps)
        self.refine = count("refine", refine, 0)

    def __call__(self, buckets: Sequence[Bucket], memory: Memory) -> None:
        """Replace each matrix by its polar factor, and the rest by its direction."""
        if any(bucket.shards is not None for bucket in buckets):
            raise ValueError("SpectralBall() needs whole matrices, and these are sharded (FSDP): use L2Ball()")
        rest = []
        for bucket in buckets:
            is_matrix = [p.dim() >= 2 and not p.is_complex() for p in bucket.params]
            matrices = [t for t, chosen in zip(bucket.entries, is_matrix, strict=True) if chosen]
            if matrices:
                foreach.copy_(matrices, self._polar_factors(matrices))
            others = [
                (p, t) for p, t, chosen in zip(bucket.params, bucket.entries, is_matrix, strict=True) if not chosen
            ]
            if others:
                rest.append(Part([p for p, _ in others], [t for _, t in others], None))
        left = Vector(rest)
        length = left.norm()
        left.div_(torch.where(length > 0, length, 1))  # a zero gradient of the rest leaves the matrices free to move

    def _polar_factors(self, matrices: list[Tensor]) -> list[Tensor]:
        """Return the polar factor of each tensor, matrices of one shape in one batch."""
        alike: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
        for number, tensor in enumerate(matrices):
            alike[tensor.shape[0], tensor[0].numel()].append(number)
        factors: dict[int, Tensor] = {}
        for shape, numbers in alike.items():
            batch = torch.stack([matrices[number].reshape(shape) for number in numbers])
            polar = self._newton_schulz(batch.to(foreach.accumulation_dtype(batch.dtype))).to(batch.dtype)
            factors |= zip(numbers, polar.unbind(), strict=True)
        return [factors[number].view_as(tensor) for number, tensor in enumerate(matrices)]

    def _newton_schulz(self, matrices: Tensor) -> Tensor:
        """Return the polar factors of a batch (N, rows, columns)."""
        tall = matrices.shape[-2] > matrices.shape[-1]
        x = matrices.mT if tall else matrices
        largest = x.abs().amax((-2, -1), keepdim=True)  # squares of a tiny matrix would vanish
        x = x / torch.where(largest > 0, largest, 1)
        length = torch.linalg.matrix_norm(x, keepdim=True)
        x = x / torch.where(length > 0, length, 1)
        for a, b, c in (*[self._MUON] * self.steps, *[self._CONVERGENT] * self.refine):
            gram = x @ x.mT
            x = a * x + (b * gram + c * gram @ gram) @ x
        return x.mT if tall else x
