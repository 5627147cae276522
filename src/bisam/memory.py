"""What a method remembers from step to step: vectors over the parameters, saved with the optimizer."""

import operator
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from ._foreach import wide
from ._shards import local, shards_of, whole
from .vector import Part, Vector, real

__all__ = ["Memory", "without_memory"]

_PREFIX = "sharpness_"


class Memory:
    """Vectors by name, zero at first, in float32 or better, each entry with its parameter.

    What is written counts from the end of a step's passes on: a loop that is left early leaves no trace, and a
    gradient that is not finite is forgotten.

    Attributes:
        step: number of steps taken, from 0; of all micro-batches of a step the same.
        sound: 0-dim; where it is false, what is written from here on does not count. None counts.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.step = 0
        self.sound: Tensor | None = None
        self._kept: dict[str, dict[Tensor, Tensor]] = {name: {} for name in names}
        self._rows: dict[str, Vector] = {}  # the vectors as they were last asked for: what is kept are views of them
        self._written: dict[str, tuple[Vector, Tensor]] = {}
        self._when: dict[str, int] = {}

    def read(self, name: str, beside: Vector) -> Vector:
        """Return the vector ``name`` over the parameters of ``beside``: in rows, shared, so change a copy of it."""
        known = self._rows.get(name)
        if known is None or not _alike(known, beside):
            kept = self._kept[name]
            parts = [Part(p.params, [self._entry(kept, w) for w in p.params], p.shards) for p in beside.parts]
            self._rows[name] = known = Vector(parts).copy()
            kept.update(pair for part in known.parts for pair in zip(part.params, part.tensors, strict=True))
        return known

    def written(self, name: str) -> bool:
        """Whether an earlier micro-batch of this step has written the vector ``name``."""
        return self._when.get(name) == self.step

    def write(self, name: str, vector: Vector) -> None:
        """Replace the vector ``name`` over its parameters by ``vector``, which must not change during the step."""
        good = vector.peak().isfinite()
        self._written[name] = vector, good if self.sound is None else good & self.sound.to(good.device)

    def commit(self) -> None:
        """Keep what was written."""
        for name, (vector, good) in self._written.items():
            self._when[name] = self.step
            self.read(name, vector).keep_unless_(~good, vector)
        self.discard()

    def discard(self) -> None:
        """Forget what was written."""
        self._written.clear()
        self.sound = None

    def _entry(self, kept: dict[Tensor, Tensor], param: Tensor) -> Tensor:
        """Return what is kept beside ``param``, as it lies in this process."""
        entry = kept.get(param)
        here = real(local(param.detach()))
        if entry is None:
            entry = torch.zeros_like(here, dtype=wide(here.dtype), memory_format=torch.contiguous_format)
        kept[param] = entry = entry.to(here.device, wide(here.dtype))  # a model may move, or be cast
        return entry

    def __getstate__(self) -> dict[str, Any]:
        """Copy entry by entry: views of one row would each bring the whole of it along."""
        kept = {name: {p: entry.clone() for p, entry in own.items()} for name, own in self._kept.items()}
        return {**vars(self), "_kept": kept, "_rows": {}}

    # -- in a state dict: beside the base optimizer's own state of each parameter ----------------------------------

    def save(self, params: Sequence[Tensor], keys: Sequence[Any], state: dict[Any, Any]) -> None:
        """Add every vector to ``state``, which calls the parameters by ``keys``."""
        for name, kept in self._kept.items():
            for key, param in zip(keys, params, strict=True):
                if param.requires_grad:
                    state[key] = {**state.get(key, {}), _PREFIX + name: whole(self._entry(kept, param), param)}

    def load(self, params: Sequence[Tensor], keys: Sequence[Any], state: dict[Any, Any]) -> None:
        """Take every vector from ``state``; one that is missing becomes zero again."""
        self.discard()
        self._when.clear()
        self._rows.clear()
        for name, kept in self._kept.items():
            kept.clear()
            for key, param in zip(keys, params, strict=True):
                saved = state.get(key, {}).get(_PREFIX + name)
                if saved is not None:
                    with torch.no_grad():
                        self._entry(kept, param).copy_(local(saved, shards_of(param)))


def _alike(known: Vector, beside: Vector) -> bool:
    """Whether ``known`` is over the same parameters, and they have stayed where and what they were."""
    both = list(zip(known.parts, beside.parts, strict=False))
    return len(known.parts) == len(beside.parts) and all(
        len(mine.params) == len(theirs.params)
        and all(map(operator.is_, mine.params, theirs.params))
        and mine.tensors[0].device == theirs.tensors[0].device
        and mine.tensors[0].dtype == wide(theirs.tensors[0].dtype)
        for mine, theirs in both
    )


def without_memory(state: dict[Any, Any]) -> dict[Any, Any]:
    """Return the base optimizer's part of a state dict's ``state``."""
    rest = {
        key: {name: value for name, value in own.items() if not str(name).startswith(_PREFIX)}
        if isinstance(own, dict)
        else own
        for key, own in state.items()
    }
    return {key: own for key, own in rest.items() if own != {}}
