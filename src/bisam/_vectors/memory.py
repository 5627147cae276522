"""What a method remembers from step to step: vectors over the parameters and numbers, saved with the optimizer."""

import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from .foreach import accumulation_dtype
from .host import can_read
from .part import Part, real
from .shards import local, shards_of, whole
from .vector import Vector

__all__ = ["PREFIX", "STEPS", "Memory", "keys_of", "without_memory"]

#: What the names of our entries in param groups and state dicts begin with.
PREFIX = "sharpness_"
#: The number of steps taken, in every param group: saved, resumed, and seen by whatever copies the groups.
STEPS = PREFIX + "steps"


class Memory:
    """Vectors and numbers by name.

    A vector is zero at first, in float32 or better, and keeps each entry with its parameter. What is written to it
    counts from the end of the step's passes on: a loop that is left early leaves no trace, and a gradient that is not
    finite is forgotten. A number lies in the optimizer's param groups. What is written to it counts from ``step()``
    on, so that all micro-batches of a step see the same number.

    Example:
        >>> from bisam.direction import Direction
        >>> class Mean(Direction):
        ...     memory = ("mean",)
        ...     def __call__(self, gradient, memory):
        ...         mean = memory.read("mean", gradient)
        ...         mean.lerp_(gradient, 0.1)
        ...         memory.write("mean", mean)
        ...         gradient.copy_(mean)

    Args:
        base: the optimizer whose param groups hold the numbers.
        vectors: names of the vectors.
        numbers: the numbers' first values, by name: plain values, lists of them, or 0-dim tensors.

    Attributes:
        valid: 0-dim; where it is false, what is written from here on is forgotten. None: all counts.
    """

    def __init__(self, base: Optimizer, vectors: Iterable[str] = (), numbers: Mapping[str, Any] | None = None) -> None:
        self.valid: Tensor | None = None
        self._base = base
        self._vectors: dict[str, Vector | None] = dict.fromkeys(vectors)
        self._left_out: dict[str, dict[Tensor, Tensor]] = {name: {} for name in self._vectors}  # entries in no vector
        self._numbers = dict(numbers or {})
        self._written: dict[str, tuple[Vector, Tensor]] = {}
        self._new_numbers: dict[str, Any] = {}  # of the running loop
        self._step_numbers: dict[str, Any] = {}  # of the loops since the last step
        self._when: dict[str, int] = {}
        self._owing: Vector | None = None  # of the running loop
        self._owed: Vector | None = None  # of the loops since gradients were cleared

    @property
    def step(self) -> int:
        """Number of steps taken, from 0; the same for all micro-batches of a step."""
        steps: int = self._base.param_groups[0][STEPS]
        return steps

    # -- vectors -------------------------------------------------------------------------------------------------

    def read(self, name: str, beside: Vector) -> Vector:
        """Return the vector ``name`` over the parameters of ``beside``. It is shared, in rows: change a copy of it."""
        vector = self._vectors[name]
        if vector is None or not _alike(vector, beside):
            entries = self._entries(name)
            parts = [Part(p.params, [_entry(entries, w) for w in p.params], p.shards) for p in beside.parts]
            self._vectors[name] = vector = Vector(parts).copy()
            left_out = set(entries).difference(vector.params)
            self._left_out[name] = {param: entries[param] for param in left_out}
        return vector

    def written(self, name: str) -> bool:
        """Whether an earlier micro-batch of this step has written the vector ``name``."""
        return self._when.get(name) == self.step

    def write(self, name: str, vector: Vector, *, finite: Tensor | None = None) -> None:
        """Replace the vector ``name`` over its parameters by ``vector``, which is taken over and must not change.

        Args:
            name: of the vector.
            vector: its new entries.
            finite: whether they all are finite, 0-dim, where that is known already; it spares a look at them.
        """
        good = vector.is_finite() if finite is None else finite
        self._written[name] = vector, good if self.valid is None else good & self.valid.to(good.device)

    def commit(self) -> None:
        """Keep what the running loop has written: the vectors now, the numbers for ``step()``."""
        self._add_owing()
        if not (self._written or self._new_numbers):
            self.valid = None
            return
        for name, (vector, good) in self._written.items():
            self._when[name] = self.step
            if vector.lies_alone and vector.on_host and can_read(good.device):
                if good:
                    self._keep(name, vector)
            else:
                self.read(name, vector).replace_unless_(~good, vector)
        self._step_numbers |= self._new_numbers
        self.discard()

    def discard(self) -> None:
        """Forget what the running loop has written."""
        self._written.clear()
        self._new_numbers.clear()
        self._owing = None
        self.valid = None

    def _keep(self, name: str, vector: Vector) -> None:
        """Put a vector in the place of the one that is kept, without a copy."""
        known = self._vectors[name]
        if known is None or not _alike(known, vector):
            entries = self._entries(name)
            self._left_out[name] = {param: entries[param] for param in set(entries).difference(vector.params)}
        self._vectors[name] = vector

    def _entries(self, name: str) -> dict[Tensor, Tensor]:
        """Return what is kept under ``name``, by parameter."""
        vector = self._vectors[name]
        return {**self._left_out[name], **({} if vector is None else _by_param(vector))}

    # -- numbers -------------------------------------------------------------------------------------------------

    @property
    def numbers(self) -> dict[str, Any]:
        """The numbers' first values, by their keys in the param groups."""
        return {PREFIX + name: value for name, value in self._numbers.items()}

    def number(self, name: str) -> Any:
        """Return the number ``name`` as the last step left it."""
        return self._base.param_groups[0][PREFIX + name]

    def write_number(self, name: str, value: Any) -> None:
        """Replace the number ``name``, from ``step()`` on."""
        self._new_numbers[name] = value

    def commit_step(self) -> None:
        """Count a step, and keep the numbers that were written."""
        for group in self._base.param_groups:
            group[STEPS] += 1
            for name, value in self._step_numbers.items():
                group[PREFIX + name] = value
        self._step_numbers.clear()

    # -- the step after the step -----------------------------------------------------------------------------------

    @property
    def owed(self) -> Vector | None:
        """What the weights lose, times the learning rate, after the base optimizer's step; None for nothing."""
        return self._owed

    def owe(self, vector: Vector) -> None:
        """Let the weights lose ``vector`` times the learning rate after the base optimizer's step.

        It counts from the end of the step's passes on, adds up over micro-batches, lives as long as the gradients, and
        is not saved.
        """
        self._owing = vector

    def scale_owing(self, factor: Tensor | float) -> None:
        """Multiply what the running loop owes."""
        if self._owing is not None:
            self._owing.mul_(factor)

    def clear_with_gradients(self) -> None:
        """Forget what belongs to the gradients that are being cleared: what is owed, and who has written in this step.

        A step that ``GradScaler`` skips does not count, so the next loop may be the step's first one again.
        """
        self._owed = None
        self._when.clear()

    def forget_owed_without_gradient(self) -> None:
        """Forget what is owed where somebody else has cleared the gradient: set it to None, or all of them to zero."""
        if self._owed is None:
            return
        kept = self._owed.only({param for param in self._owed.params if param.grad is not None})
        self._owed = kept if kept.parts else None
        if kept.parts:
            cleared = kept.gradients().max_abs() == 0
            kept.replace_unless_(~cleared, kept.of_rows([torch.zeros_like(row) for row in kept.rows()]))

    def _add_owing(self) -> None:
        new, old = self._owing, self._owed
        self._owing = None
        if new is None or old is None:
            self._owed = old if new is None else new
            return
        mine, theirs = _by_param(old), _by_param(new)
        both = [param for param in theirs if param in mine]
        Vector.of((p, mine[p]) for p in both).add_(Vector.of((p, theirs[p]) for p in both))
        self._owed = Vector.of((theirs | mine).items())

    # -- copies and state dicts ----------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        """Copy entry by entry: pickled views of one row would each bring the whole row along.

        What is owed stays behind, as gradients do.
        """
        kept = {name: {p: entry.clone() for p, entry in self._entries(name).items()} for name in self._vectors}
        own = {"_left_out": kept, "_vectors": dict.fromkeys(self._vectors), "_owing": None, "_owed": None}
        return {**vars(self), **own}

    def save(self, params: Sequence[Tensor], keys: Sequence[Any], state: dict[Any, Any]) -> None:
        """Add every vector to ``state``, the base optimizer's state by parameter, in which ``keys`` stand for them."""
        for name in self._vectors:
            entries = self._entries(name)
            for key, param in zip(keys, params, strict=True):
                if param.requires_grad:
                    state[key] = {**state.get(key, {}), PREFIX + name: whole(_entry(entries, param), param)}

    def load(self, params: Sequence[Tensor], keys: Sequence[Any], state: dict[Any, Any]) -> None:
        """Take every vector from ``state``; one that is missing becomes zero again."""
        self.discard()
        self._step_numbers.clear()
        self._when.clear()
        for name in self._vectors:
            self._vectors[name] = None
            entries: dict[Tensor, Tensor] = {}
            self._left_out[name] = entries
            for key, param in zip(keys, params, strict=True):
                saved = state.get(key, {}).get(PREFIX + name)
                if saved is not None:
                    with torch.no_grad():
                        entries[param] = _entry(entries, param).copy_(local(saved, shards_of(param)))


def _entry(entries: Mapping[Tensor, Tensor], param: Tensor) -> Tensor:
    """Return the entry kept beside ``param``, or zeros, as it lies in this process."""
    here = real(local(param.detach()))
    entry = entries.get(param)
    if entry is None:
        return torch.zeros_like(here, dtype=accumulation_dtype(here.dtype), memory_format=torch.contiguous_format)
    return entry.to(here.device, accumulation_dtype(here.dtype))  # a model may move, or be cast


def _by_param(vector: Vector) -> dict[Tensor, Tensor]:
    return {p: t for part in vector.parts for p, t in zip(part.params, part.entries, strict=True)}


def _alike(known: Vector, beside: Vector) -> bool:
    """Whether ``known`` is over the same parameters, and they still have their devices and dtypes."""
    both = list(zip(known.parts, beside.parts, strict=False))
    return len(known.parts) == len(beside.parts) and all(
        len(mine.params) == len(theirs.params)
        and all(map(operator.is_, mine.params, theirs.params))
        and mine.kind == (theirs.kind[0], accumulation_dtype(theirs.kind[1]))
        for mine, theirs in both
    )


def keys_of(state_dict: Mapping[str, Any]) -> list[Any]:
    """Return what stands for each parameter in a state dict, in the order of the groups."""
    return [key for group in state_dict["param_groups"] for key in group["params"]]


def without_memory(state: dict[Any, Any]) -> dict[Any, Any]:
    """Return the base optimizer's part of a state dict's ``state``."""
    rest = {
        key: {name: value for name, value in own.items() if not str(name).startswith(PREFIX)}
        if isinstance(own, dict)
        else own
        for key, own in state.items()
    }
    return {key: own for key, own in rest.items() if own != {}}
