"""Buckets: the parameters of one group that a step perturbs, with the gradients to climb along."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from . import foreach
from .foreach import Scale
from .shards import local, shards_of
from .vector import Part, real

__all__ = ["Bucket", "ParamInfo", "buckets_of"]


class ParamInfo(NamedTuple):
    """What is known of the parameters: the name of each, and the modules that own it."""

    names: dict[Tensor, str]
    owners: dict[Tensor, list[nn.Module]]

    def name(self, param: Tensor) -> str:
        """Return a parameter's name for a message, or its shape where the name is unknown."""
        return self.names.get(param, f"of shape {tuple(param.shape)}")


@dataclass
class Bucket(Part):
    """Parameters of one group, device, dtype and sharding, with the gradients to climb along.

    Attributes:
        params: the parameters.
        tensors: the gradient of each, in units of ``unit``. A geometry replaces them in place.
        shards: how they are sharded over processes; None where they are whole.
        weights: the weights, as they lie in this process; complex ones as pairs of reals.
        names: their names in the model, None where unknown.
        owners: the modules that own each of them; empty where the model is unknown.
        rho: radius of their group, > 0.
        sign: -1 where the base optimizer maximises, because the worst point then lies downhill; else 1.
        unit: 0-dim; ``tensors`` times ``unit`` are the gradients themselves.
        due: what the optimizer multiplies ``tensors`` by after the geometry; :meth:`normalise` does it on the way.
    """

    weights: list[Tensor]
    names: list[str | None]
    owners: list[list[nn.Module]]
    rho: float
    sign: int
    unit: Tensor
    due: Tensor | float = 1.0

    def normalise(self, length: Tensor) -> None:
        """Divide ``tensors`` by a 0-dim ``length``; what is due afterwards is done by the same operation."""
        foreach.div_(self.tensors, length / self.due)
        self.due = 1.0

    def multiply(self, scale: Scale) -> None:
        """Multiply each of ``tensors`` in place by its factor."""
        foreach.multiply(self.tensors, scale)

    def select(self, chosen: Callable[[int], bool]) -> None:
        """Keep the parameters whose index is ``chosen``; the step does not move the others."""
        left = [number for number in range(len(self.params)) if chosen(number)]
        for name in ("params", "tensors", "weights", "names", "owners"):  # new lists: vectors share the old ones
            setattr(self, name, [getattr(self, name)[number] for number in left])


def buckets_of(groups: Iterable[dict[str, Any]], info: ParamInfo, sources: dict[Tensor, Tensor] | None) -> list[Bucket]:
    """Sort the parameters that have a gradient, and a radius above zero, into buckets.

    Args:
        groups: the optimizer's param groups.
        info: names and owners of the parameters.
        sources: what to climb along, by parameter, instead of the gradients.

    Raises:
        ValueError: a sparse gradient.
    """
    buckets: dict[tuple[Any, ...], Bucket] = {}
    one = torch.ones(())
    for number, group in enumerate(groups):
        for param in group["params"] if group["rho"] > 0 else ():
            grad = param.grad if sources is None else sources.get(param)
            if grad is None or not param.requires_grad or param.numel() == 0:
                continue
            if grad.layout != torch.strided:
                raise ValueError(
                    f"the gradient of parameter {info.name(param)} is sparse ({grad.layout}), and a perturbation is "
                    "dense: build the layer with sparse=False, or give its group rho=0"
                )
            weight, shards = param.detach(), None
            if type(param) is not nn.Parameter or param.is_complex():  # sharded, or complex
                shards = shards_of(param)
                weight, grad = real(local(weight)), real(local(grad, shards))
            key = (number, weight.device, weight.dtype, shards)
            bucket = buckets.get(key)
            if bucket is None:
                sign = -1 if group.get("maximize") else 1
                bucket = buckets[key] = Bucket([], [], shards, [], [], [], float(group["rho"]), sign, one)
            bucket.params.append(param)
            bucket.tensors.append(grad)
            bucket.weights.append(weight)
            bucket.names.append(info.names.get(param))
            bucket.owners.append(info.owners.get(param, []))
    return list(buckets.values())
