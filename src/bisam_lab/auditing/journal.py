"""What an unfinished audit has measured, in a file: the same audit goes on from there after a kill."""

from collections.abc import Sequence
from dataclasses import asdict
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..run.checkpoint import CheckpointError, read, write
from .batches import Batch
from .measure import AtW, Climbed, Gradient, Measured, Score

__all__ = ["Journal"]


class Journal:
    """The file of an audit.

    Args:
        path: of the file; None keeps nothing.
        model: the network, at the weights that are audited.
        batches: all that are looked at.
        asked: what else decides what comes out, as its ``repr`` tells.
    """

    def __init__(self, path: Path | None, model: nn.Module, batches: Sequence[Batch], asked: object) -> None:
        self.path = path
        self._mark = "" if path is None else _mark(model, batches, asked)

    def begun(self) -> Measured:
        """Return what the same audit has measured before; nothing where there is no such file, or one of another."""
        if self.path is None:
            return Measured()
        try:
            state = read(self.path)
        except (FileNotFoundError, CheckpointError):
            return Measured()
        return _measured(state) if state.get("mark") == self._mark else Measured()

    def keep(self, measured: Measured) -> None:
        """Write everything that is measured, which ends with a whole batch."""
        if self.path is not None:
            lists = {name: [asdict(one) for one in getattr(measured, name)] for name in vars(measured)}
            write(self.path, {"mark": self._mark, **lists})

    def remove(self) -> None:
        """Delete the file, and what killed processes have left of it: the audit is done."""
        if self.path is not None:
            for path in (self.path, *self.path.parent.glob(f".{self.path.stem}.*")):
                path.unlink(missing_ok=True)


def _measured(state: dict[str, Any]) -> Measured:
    return Measured(
        [AtW(**_scored(one)) for one in state["at_w"]],
        [Gradient(**one) for one in state["gradients"]],
        [Climbed(**_scored(one)) for one in state["climbed"]],
    )


def _scored(one: dict[str, Any]) -> dict[str, Any]:
    return {**one, "here": Score(**one["here"]), "held_out": Score(**one["held_out"])}


def _mark(model: nn.Module, batches: Sequence[Batch], asked: object) -> str:
    """Return a digest of the network, its weights, the data and the question."""
    found = sha256(repr([version("bisam"), asked, model]).encode())
    for tensor in [*model.state_dict().values(), *(t for batch in batches for t in (*_tensors(batch.x), batch.y))]:
        if isinstance(tensor, Tensor):
            found.update(repr((tuple(tensor.shape), tensor.dtype)).encode())
            found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _tensors(x: Any) -> list[Tensor]:
    if isinstance(x, Tensor):
        return [x]
    inner = x.values() if isinstance(x, dict) else x if isinstance(x, tuple | list) else ()
    return [tensor for one in inner for tensor in _tensors(one)]
