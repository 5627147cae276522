"""Batches as users have them, and the logits that a network gives for them."""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Batch", "check_labels", "logits_of", "taken"]


@dataclass(frozen=True)
class Batch:
    """Inputs and class indices.

    Attributes:
        x: what the network is called with: a tensor, a tuple of arguments, or a mapping of keyword arguments.
        y: labels (B,), int64, on the network's device.
    """

    x: Any
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def parts(self, m: int) -> list["Batch"]:
        """Return it in m parts; inputs that are no tensors stay whole where m is 1."""
        if m == 1:
            return [self]
        m = min(m, len(self))
        return [Batch(x, y) for x, y in zip(_split(self.x, m), self.y.tensor_split(m), strict=True)]

    def first(self, share: float) -> "Batch":
        """Return its first samples, at least one."""
        kept = max(1, round(share * len(self)))
        return Batch(_mapped(self.x, lambda tensor: tensor[:kept]), self.y[:kept])


def taken(name: str, batches: Iterable[Any], n: int, device: torch.device) -> list[Batch]:
    """Return the first ``n`` batches, or all where there are fewer.

    Args:
        name: of the argument, for messages.
        batches: (input, target) pairs, or mappings with ``labels`` as a data loader of transformers yields them.
        n: how many at the most.
        device: of the network.

    Raises:
        TypeError: a batch of another kind.
        ValueError: no batch; targets that are no class indices.
    """
    if isinstance(batches, Tensor | str | bytes) or not isinstance(batches, Iterable):
        raise TypeError(
            f"{name}={type(batches).__name__} must be an iterable of (input, target) pairs, such as a DataLoader"
        )
    found = [_batch(f"{name}[{i}]", batch, device) for i, batch in enumerate(itertools.islice(batches, n))]
    if not found:
        raise ValueError(
            f"{name} is empty: pass at least one (input, target) pair, 20 for intervals that say something"
        )
    return found


def _batch(name: str, batch: Any, device: torch.device) -> Batch:
    if isinstance(batch, Mapping) and "labels" in batch:
        x: Any = {key: value for key, value in batch.items() if key != "labels"}
        y = batch["labels"]
    elif isinstance(batch, tuple | list) and len(batch) == 2:
        x, y = batch
    else:
        raise TypeError(f"{name} is a {type(batch).__name__}: pass (input, target) pairs, or mappings with 'labels'")
    if not isinstance(y, Tensor) or y.dim() != 1 or y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        told = f"{tuple(y.shape)} in {y.dtype}" if isinstance(y, Tensor) else type(y).__name__
        raise ValueError(f"{name} has targets of {told}: an audit counts mistakes, so pass class indices (B,)")
    if not len(y):
        raise ValueError(f"{name} holds no samples: leave empty batches out")

    def there(tensor: Tensor) -> Tensor:
        moved = tensor.to(device)
        return moved.clone() if moved.is_inference() else moved  # autograd refuses what inference mode has made

    return Batch(_mapped(x, there), there(y).long())


def logits_of(model: nn.Module, batch: Batch) -> Tensor:
    """Return the network's logits (B, K) in float32 or better.

    Raises:
        TypeError: the network returns no tensor, nor an output with ``logits``.
        ValueError: logits of another shape, or a batch that is too small for BatchNorm.
    """
    output = _called(model, batch)
    logits = getattr(output, "logits", output)
    if not isinstance(logits, Tensor):
        raise TypeError(f"model returned a {type(output).__name__}: it must return logits (B, K), or have .logits")
    if logits.dim() != 2 or len(logits) != len(batch) or logits.shape[1] < 2:
        raise ValueError(
            f"model returned {tuple(logits.shape)} for {len(batch)} labels: an audit needs logits (B, K) of K >= 2 "
            "classes"
        )
    return logits.float() if logits.dtype.itemsize < 4 else logits


def _called(model: nn.Module, batch: Batch) -> Any:
    try:
        if isinstance(batch.x, Mapping):
            return model(**batch.x)
        return model(*batch.x) if isinstance(batch.x, tuple | list) else model(batch.x)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):  # BatchNorm's words
            raise
        raise ValueError(
            f"a batch, or a part of one as msam and subbatch take it, has {len(batch)} sample, which BatchNorm cannot "
            "normalise: pass larger batches"
        ) from None


def check_labels(name: str, batches: Iterable[Batch], classes: int) -> None:
    """Check that each label is one of the network's classes.

    Raises:
        ValueError: one is not.
    """
    for i, batch in enumerate(batches):
        low, high = int(batch.y.min()), int(batch.y.max())
        if low < 0 or high >= classes:
            wrong = low if low < 0 else high
            raise ValueError(f"{name}[{i}] has the label {wrong}, and model has {classes} classes, 0 to {classes - 1}")


def _mapped(x: Any, change: Any) -> Any:
    if isinstance(x, Tensor):
        return change(x)
    if isinstance(x, Mapping):
        return {key: _mapped(value, change) for key, value in x.items()}
    if isinstance(x, tuple | list):
        return tuple(_mapped(value, change) for value in x)
    return x


def _split(x: Any, m: int) -> list[Any]:
    if isinstance(x, Tensor):
        return list(x.tensor_split(m))
    if isinstance(x, Mapping):
        parts = {key: _split(value, m) for key, value in x.items()}
        return [{key: value[i] for key, value in parts.items()} for i in range(m)]
    if isinstance(x, tuple | list):
        return list(zip(*(_split(value, m) for value in x), strict=True))
    return [x] * m
