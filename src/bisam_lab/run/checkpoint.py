"""Checkpoints of a run: written completely or not at all, read without running code, kept in two generations."""

import errno
import os
import random
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import RecipeError
from ..untrusted import check_stored

__all__ = ["CheckpointError", "Checkpoints", "check_kinds", "random_state", "read", "set_random_state", "write"]

FORMAT = "bisam run"
VERSION = 1


class CheckpointError(ValueError):
    """A file that is not a complete checkpoint of this library."""


class _NewerError(CheckpointError):
    """A complete checkpoint of a newer version."""


class Checkpoints:
    """The checkpoints in a run's folder.

    A run continues from ``last.pt``, or from ``previous.pt``, the one before it, if the last one cannot be read.
    ``best.pt`` holds the weights of the best epoch so far, for other programs, and ``epoch-0010.pt`` those after the
    tenth, where they are kept.

    Args:
        folder: created at the first save.
        note: is called with a message if a file cannot be read.
    """

    def __init__(self, folder: Path, note: Callable[[str], None] = lambda text: None) -> None:
        self.note = note
        self.last, self.previous, self.best = (folder / name for name in ("last.pt", "previous.pt", "best.pt"))

    def save(self, state: Mapping[str, Any]) -> None:
        """Save ``state`` as the last checkpoint. The old last one becomes the previous one."""
        fresh = self.last.with_name(f".last.{os.getpid()}")
        _dump(state, fresh, self.last)
        if self.last.is_file():
            os.replace(self.last, self.previous)
        os.replace(fresh, self.last)  # if the process is killed between the two, the previous one is there
        self.remove_sharded()

    def of_epoch(self, epoch: int) -> Path:
        """Return where the weights after an epoch are kept."""
        return self.best.with_name(f"epoch-{epoch:04d}.pt")

    def load(self) -> dict[str, Any] | None:
        """Return the last state that can be read, or None if there is none.

        A file that cannot be read is renamed to ``NAME.unreadable``, and ``note`` is called with the reason. Unfinished
        files of killed processes are deleted. So only the process that trains the run may call this method.

        Raises:
            CheckpointError: a newer version wrote it.
            OSError: the disk does not answer, or may not be read. The file may be complete.
        """
        for name in (self.last.stem, self.best.stem):
            for left in self.last.parent.glob(f".{name}.*"):
                left.unlink(missing_ok=True)
        for path in (self.last, self.previous):
            try:
                return read(path)
            except FileNotFoundError:
                continue
            except _NewerError:
                raise
            except CheckpointError as error:
                os.replace(path, path.with_suffix(".unreadable"))
                self.note(f"{error}; it is set aside, and an earlier one is used if there is one")
        return None

    def remove_states(self) -> None:
        """Delete all but the weights of the best epoch."""
        self.remove_whole()
        self.remove_sharded()

    def remove_sharded(self) -> None:
        """Delete the states of which each process wrote a shard: the run has gone over to whole ones."""
        for path in self.last.parent.glob("*.dcp"):
            shutil.rmtree(path, ignore_errors=True)

    def remove_whole(self) -> None:
        """Delete the states that one process wrote whole: the run has gone over to shards."""
        for path in (self.last, self.previous):
            path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.last.parent, ignore_errors=True)


def write(path: Path, state: Mapping[str, Any]) -> None:
    """Write a state of tensors and plain values, completely or not at all."""
    fresh = path.with_name(f".{path.stem}.{os.getpid()}")
    _dump(state, fresh, path)
    os.replace(fresh, path)


def read(path: Path) -> dict[str, Any]:
    """Read what :func:`write` wrote, onto the CPU.

    Every byte is checked first: a truncated or damaged file may load, with wrong numbers.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file is damaged or truncated, of a newer version, or not a checkpoint of this library.
        OSError: the disk does not answer, or may not be read.
    """
    if not path.is_file():
        raise FileNotFoundError(path)
    try:
        with zipfile.ZipFile(path) as archive:
            check_stored(archive, path)
            damaged = archive.testzip()
        if damaged is not None:
            raise CheckpointError(f"{path} is damaged: {damaged} in it has a wrong checksum")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (CheckpointError, MemoryError):
        raise
    except RecipeError as error:
        raise CheckpointError(str(error)) from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # which a truncated archive's offsets cause
            raise
        raise CheckpointError(f"{path} is no checkpoint, or only a part of one ({type(error).__name__})") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT or not isinstance(state.get("version"), int):
        raise CheckpointError(f"{path} was not written by bisam")
    if state["version"] > VERSION:
        raise _NewerError(f"{path} has version {state['version']}, and this bisam reads {VERSION}: update it")
    return state


def check_kinds(where: str, there: Any, here: Any) -> None:
    """Check that a value that was read has the kind of the one that it will replace, and so have those inside it.

    Args:
        where: names the value in the message.
        there: as it was read.
        here: as it is; None stands for a value of any kind.

    Raises:
        TypeError: it is of another kind, or lacks a key.
    """
    if isinstance(here, dict):
        if not isinstance(there, dict):
            raise TypeError(f"{where} is no mapping")
        for key, value in here.items():
            if key not in there:
                raise TypeError(f"{where} lacks {key}")
            check_kinds(f"{where}.{key}", there[key], value)
    elif isinstance(here, list | tuple):
        if not isinstance(there, list | tuple):
            raise TypeError(f"{where} is no list")
        for number, (value, own) in enumerate(zip(there, here, strict=False)):  # some grow as the training goes on
            check_kinds(f"{where}.{number}", value, own)
    elif here is not None and not _alike(there, here):
        raise TypeError(f"{where} is a {type(there).__name__}, not a {type(here).__name__}")


def _alike(there: Any, here: Any) -> bool:
    kinds: tuple[tuple[type, ...], ...] = ((bool,), (int, float), (str,), (torch.Tensor,))
    kind = next((kind for kind in kinds if isinstance(here, kind)), (object,))
    return isinstance(there, kind) and (bool in kind or object in kind or not isinstance(there, bool))


def _dump(state: Mapping[str, Any], fresh: Path, path: Path) -> None:
    """Write the file ``fresh``, which will become ``path``. If the disk is full, it is deleted.

    Raises:
        OSError: the disk is full, or may not be written. torch hides it behind an error of its own.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with fresh.open("wb") as file:
            torch.save({"format": FORMAT, "version": VERSION, **_own(state)}, file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:
        fresh.unlink(missing_ok=True)
        cause = error if isinstance(error, OSError) else error.__context__
        if isinstance(cause, OSError):
            raise OSError(f"{path} cannot be written ({cause.strerror}): the one before it stays") from error
        raise


def _own(value: Any) -> Any:
    """Return a state whose tensors have storages of their own: torch saves the whole storage of a view."""
    if isinstance(value, Mapping):
        owned = {key: _own(inner) for key, inner in value.items()}
        return owned if any(owned[key] is not inner for key, inner in value.items()) else value
    if isinstance(value, list):
        return [_own(inner) for inner in value]
    if isinstance(value, torch.Tensor) and value.layout == torch.strided:
        return value.clone() if value.untyped_storage().nbytes() > value.nbytes else value
    return value


def random_state(device: torch.device) -> dict[str, Any]:
    """Return the state of all global random generators: of torch, also on ``device``, of Python and of NumPy."""
    numpy = np.random.get_state(legacy=False)
    assert isinstance(numpy, dict)
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "python": random.getstate(),
        "numpy": {
            **{key: numpy[key] for key in ("bit_generator", "has_gauss", "gauss")},
            "state": {"key": numpy["state"]["key"].tolist(), "pos": numpy["state"]["pos"]},
        },
    }


def set_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Restore what :func:`random_state` returned."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)
    random.setstate(state["python"])
    keys = np.array(state["numpy"]["state"]["key"], dtype=np.uint32)
    np.random.set_state(state["numpy"] | {"state": {**state["numpy"]["state"], "key": keys}})
