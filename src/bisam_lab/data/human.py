"""The labels that people gave to CIFAR: CIFAR-10N and CIFAR-100N (Wei et al., arXiv 2110.12088)."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..recipe import RecipeError

__all__ = ["FILES", "human_labels"]

#: The official file of each set.
FILES = {"cifar10": "CIFAR-10_human.pt", "cifar100": "CIFAR-100_human.pt"}
_COLUMNS = {
    "cifar10": {
        "clean": "clean_label",
        "aggre": "aggre_label",
        "rand1": "random_label1",
        "rand2": "random_label2",
        "rand3": "random_label3",
        "worse": "worse_label",
    },
    "cifar100": {"clean": "clean_label", "noisy": "noisy_label"},
}


def human_labels(noise: str, name: str, clean: Tensor, data_dir: Path | None) -> Tensor:
    """Return what people called the training images, (N,), in the order of ``clean``, the official labels.

    The files go by the order of the official training set. Where ``clean`` is a part of it, it must be its beginning:
    labels that do not belong to their images would be noise of another kind.

    Raises:
        RecipeError: no such noise of this set, no such file, or a file about other images.
    """
    kind = noise.partition(":")[2]
    if name not in FILES:
        raise RecipeError(f"data.noise={noise} is about cifar10 and cifar100, not about {name}")
    if kind not in _COLUMNS[name]:
        raise RecipeError(f"data.noise={noise}: of {name} there is {', '.join(f'cifar-n:{k}' for k in _COLUMNS[name])}")
    path = Path(data_dir or ".") / "cifar-n" / FILES[name]
    columns = _load(path)
    try:
        known, given = (torch.as_tensor(np.asarray(columns[c])).long() for c in ("clean_label", _COLUMNS[name][kind]))
    except (KeyError, TypeError, ValueError) as error:
        raise RecipeError(f"{path} is not a file of CIFAR-N: {error}") from None
    if len(known) < len(clean) or not torch.equal(known[: len(clean)], clean):
        raise RecipeError(
            f"{path} is about other images: its clean labels are not those of the {len(clean)} training images here, "
            "which must be the official training set or its beginning, in the official order"
        )
    return given[: len(clean)]


def _load(path: Path) -> dict[str, object]:
    """Read a file without letting it run code: arrays of int64 are all that it may hold beside plain values."""
    if not path.is_file():
        raise RecipeError(f"no {path}: `bisam data fetch cifar-n --data-dir DIR` gets it")
    array = np.empty(0, np.int64)
    rebuild = array.__reduce__()[0]
    names: list[Any] = [(rebuild, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")]
    allowed = [*names, np.ndarray, np.dtype, type(array.dtype)]
    try:
        with torch.serialization.safe_globals(allowed):
            columns = torch.load(path, weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise RecipeError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None
    if not isinstance(columns, dict):
        raise RecipeError(f"{path} is not a file of CIFAR-N: it holds a {type(columns).__name__}, not a dictionary")
    return columns
