"""Labels that people gave to the training images: CIFAR-10N and CIFAR-100N (Wei et al., arXiv 2110.12088)."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..datasets.registry import SETS
from ..errors import RecipeError

__all__ = ["human_labels"]


def human_labels(noise: str, name: str, clean: Tensor, data_dir: Path | None) -> Tensor:
    """Return the labels (N,) that people gave to the training images.

    Args:
        noise: ``cifar-n:KIND``.
        name: of the data set.
        clean: its official labels (N,). They must be the whole official training set or its beginning, in the official
            order: the files of human labels have that order.
        data_dir: the folder that holds the files.

    Raises:
        RecipeError: the set has no such noise, the file is missing, or it is about other images.
    """
    kind, human = noise.partition(":")[2], SETS[name].human
    assert human is not None  # the recipe has checked it
    if kind not in human.columns:
        raise RecipeError(f"data.noise={noise}: of {name} there is {', '.join(f'cifar-n:{k}' for k in human.columns)}")
    path = (data_dir or Path()) / human.path
    columns = _load(path)
    try:
        known, given = (torch.as_tensor(np.asarray(columns[human.columns[k]])).long() for k in ("clean", kind))
    except (KeyError, TypeError, ValueError) as error:
        raise RecipeError(f"{path} is not a file of CIFAR-N: {error}") from None
    if len(known) < len(clean) or not torch.equal(known[: len(clean)], clean):
        raise RecipeError(
            f"{path} is about other images: its clean labels are not those of the {len(clean)} training images here, "
            "which must be the official training set or its beginning, in the official order"
        )
    return given[: len(clean)]


def _load(path: Path) -> dict[str, object]:
    """Read a file that may hold arrays of int64 and plain values, and no code."""
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
