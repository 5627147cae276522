"""The climb: from gradients to w + eps."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from . import _foreach
from ._foreach import Scale
from ._shards import local, shards_of
from .vector import Part, home, real

__all__ = ["Ball", "Bucket", "Labels", "buckets_of", "climb"]


class Labels(NamedTuple):
    """What the model knows of its parameters: the name of each, and the modules that hold it."""

    names: dict[Tensor, str]
    owners: dict[Tensor, list[nn.Module]]


@dataclass
class Bucket(Part):
    """Parameters of one group, device, dtype and sharding together with the gradients to climb along.

    Attributes:
        params: the parameters.
        tensors: a gradient for each of them, owned by the bucket and changed in place; also called ``grads``.
        shards: how they are sharded over processes; None where they are whole.
        weights: the weights, as they lie in this process; complex ones as pairs of reals.
        names: their names in the model, None where unknown.
        owners: the modules that hold each of them; empty where the model is unknown.
        rho: radius of their group, > 0.
        sign: -1 where the base optimizer maximises, for then the worst point lies downhill; else 1.
    """

    weights: list[Tensor]
    names: list[str | None]
    owners: list[list[nn.Module]]
    rho: float
    sign: int

    @property
    def grads(self) -> list[Tensor]:
        """The gradients."""
        return self.tensors

    def keep(self, chosen: Callable[[int], bool]) -> None:
        """Let go of the parameters whose position is not ``chosen``: they stay where they are."""
        left = [number for number in range(len(self.params)) if chosen(number)]
        for name in ("params", "tensors", "weights", "names", "owners"):  # new lists: vectors share the old ones
            setattr(self, name, [getattr(self, name)[number] for number in left])


class Ball(NamedTuple):
    """The ball of one bucket: ||eps / T|| <= rho, of whose farthest point eps only ``support`` times eps is taken.

    Attributes:
        metric: T.
        support: what multiplies eps after its length is settled, such as a mask.
    """

    metric: Scale = None
    support: Scale = None


def buckets_of(groups: Iterable[dict[str, Any]], labels: Labels) -> list[Bucket]:
    """Sort the parameters that have a gradient, and a radius above zero, into buckets.

    Raises:
        ValueError: a sparse gradient.
    """
    buckets: dict[tuple[Any, ...], Bucket] = {}
    for number, group in enumerate(groups):
        for param in group["params"] if group["rho"] > 0 else ():
            grad = param.grad
            if grad is None or not param.requires_grad or param.numel() == 0:
                continue
            if grad.layout != torch.strided:
                name = labels.names.get(param, f"of shape {tuple(param.shape)}")
                raise ValueError(
                    f"the gradient of parameter {name} is sparse ({grad.layout}), and a perturbation is dense: "
                    "build the layer with sparse=False, or give its group rho=0"
                )
            shards = shards_of(param)
            weight = real(local(param.detach()))
            key = (number, weight.device, weight.dtype, shards)
            if key not in buckets:
                sign = -1 if group.get("maximize") else 1
                buckets[key] = Bucket([], [], shards, [], [], [], group["rho"], sign)
            bucket = buckets[key]
            bucket.params.append(param)
            bucket.tensors.append(real(local(grad, shards)))
            bucket.weights.append(weight)
            bucket.names.append(labels.names.get(param))
            bucket.owners.append(labels.owners.get(param, []))
    return list(buckets.values())


def climb(buckets: Sequence[Bucket], balls: Sequence[Ball]) -> tuple[Tensor, Tensor]:
    r"""Move every weight to w + eps, where eps climbs farthest inside the balls, and use up ``grads``.

    With radii r_k, gradients g_k, metrics T_k and supports s_k of the buckets,

        eps_k = s_k r_k^2 T_k^2 g_k / sqrt(sum_j r_j^2 ||T_j g_j||^2),

    which for equal radii, T = 1 and s = 1 is SAM's rho g / ||g||. A zero or non-finite gradient leaves every bit of the
    weights alone; that is decided on the device. Each bucket's g is divided by its own largest entry before it is
    multiplied or squared, so gradients of any magnitude, and of any mix of dtypes, have a norm.

    Returns:
        The l2 norm of the perturbation as the weights took it, and whether there was one: 0-dim tensors.
    """
    place = home(bucket.weights[0].device for bucket in buckets)
    own = [bucket.norm(torch.inf) for bucket in buckets]
    for bucket, ball, peak in zip(buckets, balls, own, strict=True):
        _foreach.div_(bucket.grads, torch.where(peak > 0, peak, 1))
        _foreach.multiply(bucket.grads, ball.metric)

    peaks = torch.stack([peak.to(place) for peak in own])
    radius = max(bucket.rho for bucket in buckets)
    ratios = [bucket.rho / radius for bucket in buckets]
    highest = peaks.amax()
    shares = peaks / torch.where(highest > 0, highest, 1)  # how large each bucket's unit is, beside the largest
    norms = torch.stack([ratio * b.norm().to(place) for ratio, b in zip(ratios, buckets, strict=True)])
    length = torch.linalg.vector_norm(shares * norms)
    perturbed = torch.isfinite(highest) & torch.isfinite(length) & (length > 0)

    realised = []
    for ratio, bucket, ball, share in zip(ratios, buckets, balls, shares.unbind(), strict=True):
        _foreach.mul_(bucket.grads, -bucket.sign * radius * ratio**2 * share / length)
        _foreach.multiply(bucket.grads, ball.metric)
        _foreach.multiply(bucket.grads, ball.support)
        realised.append(_subtract(bucket, perturbed).to(place))
    return torch.linalg.vector_norm(torch.stack(realised)), perturbed


def _subtract(bucket: Bucket, perturbed: Tensor) -> Tensor:
    """Subtract ``bucket.grads``, which hold -eps, from the weights, and return the norm of the move.

    Without a perturbation -eps may be NaN, and NaN times 0 is NaN: so its *bits* are multiplied by 0, which gives
    +0.0, and w - (+0.0) is w for every w (w + 0.0 would turn -0.0 into 0.0).
    """
    _foreach.mul_([_foreach.bits(step) for step in bucket.grads], perturbed)
    if bucket.weights[0].dtype in (torch.float32, torch.float64):
        _foreach.sub_(bucket.weights, bucket.grads)
        return bucket.norm()
    before = _foreach.copies(bucket.weights)  # a coarse dtype swallows small steps: measure what is left of them
    _foreach.sub_(bucket.weights, bucket.grads)
    _foreach.sub_(before, bucket.weights)
    return Part(bucket.params, before, bucket.shards).norm()
