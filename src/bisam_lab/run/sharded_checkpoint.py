"""Checkpoints of a sharded run: a folder into which each process writes its shards (torch.distributed.checkpoint).

Any number of processes can go on from it, one alone included. Tensors are in torch's files; everything else lies in
``rest.pt``, which is read without running code, and so is torch's own index. Each file's checksum is kept, for torch
reads a damaged one without a word.
"""

import pickle
import shutil
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.optim import Optimizer

from .checkpoint import CheckpointError, read, write
from .sharding import reshard
from .team import Team

__all__ = ["ShardedCheckpoints", "load_whole"]

REST = "rest.pt"
_INDEX = ".metadata"


class ShardedCheckpoints:
    """The sharded checkpoints in a run's folder: ``last.dcp``, and the one before it, ``previous.dcp``.

    All processes call each method together.

    Args:
        folder: where they lie, on a disk that all processes share.
        team: the processes.
        note: is called with a message if one cannot be read.
    """

    def __init__(self, folder: Path, team: Team, note: Callable[[str], None] = lambda text: None) -> None:
        self.folder, self.team, self.note = folder, team, note
        self.last, self.previous = folder / "last.dcp", folder / "previous.dcp"

    def save(self, model: nn.Module, opt: Optimizer, chosen: Mapping[str, Any] | None, rest: dict[str, Any]) -> None:
        """Save a state completely or not at all; the old last one becomes the previous one.

        Args:
            model: the network.
            opt: its optimizer.
            chosen: the selected epoch's weights, if they are other ones.
            rest: everything else, the same in all processes.
        """
        fresh = self.folder / ".fresh.dcp"
        if self.team.first:
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(parents=True)
        self.team.wait()
        reshard(model)
        state: dict[str, Any] = dict(get_optimizer_state_dict(model, opt))
        tensors, others = _apart(state["state"])
        flat = {f"model/{name}": value for name, value in get_model_state_dict(model).items()} | tensors
        flat |= {f"chosen/{name}": value for name, value in (chosen or {}).items()}
        with _quiet():
            save(flat, checkpoint_id=fresh, process_group=self.team.group)
        mine = sorted(fresh.glob(f"__{self.team.rank}_*")) + ([fresh / _INDEX] if self.team.first else [])
        sums = {name: number for each in self.team.gathered(_checksums(mine)) for name, number in each.items()}
        if self.team.first:
            groups = state["param_groups"]
            write(fresh / REST, {**rest, "groups": groups, "state": others, "sums": sums, "chosen": chosen is not None})
            shutil.rmtree(self.previous, ignore_errors=True)
            if self.last.is_dir():
                self.last.rename(self.previous)
            fresh.rename(self.last)  # if the process is killed between the two, the previous one is there
        self.team.wait()

    def load(self) -> tuple[Path, dict[str, Any]] | None:
        """Return the last whole checkpoint, and what it holds beside tensors; None if there is none.

        A damaged one is renamed to ``NAME.unreadable``.

        Raises:
            CheckpointError: a newer version wrote it.
        """
        self.team.wait()
        if self.team.first:
            shutil.rmtree(self.folder / ".fresh.dcp", ignore_errors=True)
        for path in (self.last, self.previous):
            reason = self._damage(path)
            if reason is None:
                return path, read(path / REST)
            if reason and self.team.first:
                shutil.rmtree(path.with_suffix(".unreadable"), ignore_errors=True)
                path.rename(path.with_suffix(".unreadable"))
                self.note(f"{path} is damaged ({reason}); it is set aside, and an earlier one is used if there is one")
            self.team.wait()
        return None

    def _damage(self, path: Path) -> str | None:
        """Return what is wrong with a checkpoint; None: nothing; empty: it is not there. All share the reading."""
        found: str | None = None
        if not path.is_dir():
            found = ""
        else:
            try:
                sums = dict(read(path / REST)["sums"])
                names = sorted(sums)[self.team.rank :: self.team.size]
                here = _checksums([path / name for name in names])
                found = next((f"{name} in it has a wrong checksum" for name in names if here[name] != sums[name]), None)
            except (CheckpointError, LookupError, TypeError, ValueError, OSError) as error:
                found = f"{type(error).__name__}"
        all_found = self.team.gathered(found)
        return next((one for one in all_found if one), "" if "" in all_found else None)

    def restore(
        self, path: Path, rest: Mapping[str, Any], model: nn.Module, opt: Optimizer, chosen: dict[str, Any]
    ) -> dict[str, Any] | None:
        """Load weights and the optimizer's state; this process takes the shards that it has now.

        Args:
            path: of the checkpoint.
            rest: what :meth:`load` returned with it.
            model: the network.
            opt: its optimizer.
            chosen: a copy of the network's state, which becomes that of the selected epoch.

        Returns:
            The selected epoch's weights; None: they are the present ones.
        """
        reshard(model)
        reader = _Reader(path)
        index = reader.read_metadata().state_dict_metadata
        weights: dict[str, Any] = dict(get_model_state_dict(model))
        kept: Any = get_optimizer_state_dict(model, opt)["state"]
        state: dict[str, dict[str, Any]] = {name: dict(values) for name, values in rest["state"].items()}
        flat: dict[str, Any] = {f"model/{name}": value for name, value in weights.items()}
        for key in [key for key in index if key.startswith("optimizer/")]:
            _, name, word = key.split("/")
            flat[key] = state.setdefault(name, {})[word] = _room(
                index[key], kept.get(name, {}).get(word), weights[name]
            )
        if rest["chosen"]:
            flat |= {f"chosen/{name}": value for name, value in chosen.items()}
        with _quiet():
            load(flat, storage_reader=reader, process_group=self.team.group)
        set_model_state_dict(model, weights)
        whole: dict[str, Any] = {"state": state, "param_groups": rest["groups"]}
        set_optimizer_state_dict(model, opt, whole)
        return chosen if rest["chosen"] else None

    def remove(self) -> None:
        """Delete all of them."""
        for path in (self.last, self.previous, self.folder / ".fresh.dcp"):
            shutil.rmtree(path, ignore_errors=True)


def load_whole(model: nn.Module, opt: Optimizer, state: Mapping[str, Any]) -> dict[str, Any] | None:
    """Load the state of a run that was not sharded into a sharded network and its optimizer.

    Args:
        model: the network.
        opt: its optimizer.
        state: the network's, ``model``, the optimizer's, ``optimizer``, and the selected weights, ``chosen``.

    Returns:
        The selected epoch's weights, sharded; None: they are the present ones.
    """
    reshard(model)
    options = StateDictOptions(full_state_dict=True)
    chosen: dict[str, Any] | None = None
    if state["chosen"] is not None:
        set_model_state_dict(model, state["chosen"], options=options)
        chosen = {name: value.clone() for name, value in model.state_dict().items()}
    set_model_state_dict(model, state["model"], options=options)
    names = {param: name for name, param in model.named_parameters()}
    ordered = [[names[param] for param in group["params"]] for group in opt.param_groups]
    there = state["optimizer"]
    groups = [group | {"params": own} for group, own in zip(there["param_groups"], ordered, strict=True)]
    keys = {
        key: name
        for group, own in zip(there["param_groups"], ordered, strict=True)
        for key, name in zip(group["params"], own, strict=True)
    }
    own: dict[str, Any] = {"state": {keys[key]: values for key, values in there["state"].items()}}
    set_optimizer_state_dict(model, opt, own | {"param_groups": groups}, options=options)
    return chosen


def _apart(state: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]]]:
    """Return the tensors of an optimizer's state by ``optimizer/PARAMETER/WORD``, and the rest as it is."""
    tensors: dict[str, Tensor] = {}
    others: dict[str, dict[str, Any]] = {}
    for name, values in state.items():
        tensors |= {f"optimizer/{name}/{word}": value for word, value in values.items() if isinstance(value, Tensor)}
        if rest := {word: value for word, value in values.items() if not isinstance(value, Tensor)}:
            others[name] = rest
    return tensors, others


def _room(there: Any, here: Any, param: Tensor) -> Tensor:
    """Return a tensor to read a stored one into: sharded as the parameter is, if it has the parameter's shape."""
    if isinstance(here, Tensor):
        return here
    if not isinstance(there, TensorStorageMetadata):
        raise CheckpointError("the checkpoint is damaged (its optimizer's state is no tensor)")
    dtype = there.properties.dtype
    if there.size == param.shape:
        return torch.empty_like(param, dtype=dtype)
    return torch.empty(there.size, dtype=dtype)


def _checksums(paths: list[Path]) -> dict[str, int]:
    """Return the CRC-32 of files by their names."""
    sums = {}
    for path in paths:
        number = 0
        with path.open("rb") as file:
            while block := file.read(1 << 24):
                number = zlib.crc32(block, number)
        sums[path.name] = number
    return sums


@contextmanager
def _quiet() -> Iterator[None]:
    """Without torch's warning that one process loads alone, which it may."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class _Reader(FileSystemReader):
    """Reads torch's index without running code: it is a pickle, and torch would run whatever it names."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Return the index.

        Raises:
            CheckpointError: it is damaged, or names anything but what describes tensors.
        """
        with (Path(self.path) / _INDEX).open("rb") as file:
            try:
                found = _Unpickler(file).load()
            except (pickle.UnpicklingError, EOFError, AttributeError, LookupError, ValueError, TypeError) as error:
                raise CheckpointError(f"the checkpoint's index is damaged ({type(error).__name__})") from None
        if not isinstance(found, Metadata):
            raise CheckpointError("the checkpoint's index is damaged (it is none)")
        return found


class _Unpickler(pickle.Unpickler):
    """Knows only the classes that describe stored tensors."""

    _NAMES = {
        "torch.distributed.checkpoint.metadata": (
            *("BytesStorageMetadata", "ChunkStorageMetadata", "Metadata", "MetadataIndex", "StorageMeta"),
            *("TensorProperties", "TensorStorageMetadata", "_MEM_FORMAT_ENCODING"),
        ),
        "torch.distributed.checkpoint.filesystem": ("_StorageInfo",),
        "torch.serialization": ("_get_layout",),
        "torch": ("Size", "device"),
        "pathlib": ("PosixPath", "PurePosixPath"),
        "pathlib._local": ("PosixPath", "PurePosixPath"),
        "collections": ("OrderedDict",),
    }

    def find_class(self, module: str, name: str) -> Any:
        """Return a known class, or a dtype of torch."""
        dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if not dtype and name not in self._NAMES.get(module, ()):
            raise pickle.UnpicklingError(f"{module}.{name}")
        return super().find_class(module, name)
