"""Weights to start from, out of a file."""

import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..recipe import RecipeError
from ..recipe.imported import explained
from ..untrusted import check_stored
from .outside import extra

__all__ = ["UntrainedWarning", "load_weights"]


class UntrainedWarning(UserWarning):
    """Published weights lack some of the network's, which start at their initialisation."""


def load_weights(model: nn.Module, file: str, classes: int) -> None:
    """Load the weights of a file into the network, all of them but a head of another number of classes.

    The file is what ``torch.save`` made of a state dict, by itself or as ``model`` or ``state_dict`` of a checkpoint,
    or one of safetensors. Names that all begin with ``module.`` lose it.

    Raises:
        RecipeError: no such file, not of such content, or weights that the network lacks or has beyond these.
    """
    theirs, ours = _read(file), model.state_dict()
    other = [key for key, value in theirs.items() if key in ours and value.shape != ours[key].shape]
    heads = [key for key in other if _is_head(theirs[key], ours[key], classes)]
    wrong = [f"{key} {tuple(theirs[key].shape)} for {tuple(ours[key].shape)}" for key in other if key not in heads]
    missing, unexpected = model.load_state_dict({**theirs, **{key: ours[key] for key in other}}, strict=False)
    found = {"missing": missing, "unexpected": unexpected, "of other shapes": wrong}
    problems = [f"{what}: {_some(keys)}" for what, keys in found.items() if keys]
    if problems:
        raise RecipeError(
            f"model.checkpoint={file!r} is of another network than model.name and model.options: {'; '.join(problems)}"
        )
    if heads:
        warnings.warn(
            f"model.checkpoint={file!r} has another number of classes than the data's {classes}: "
            f"{', '.join(heads)} start at their initialisation",
            UntrainedWarning,
            stacklevel=3,
        )


def _is_head(theirs: Tensor, ours: Tensor, classes: int) -> bool:
    return ours.dim() > 0 and ours.shape[0] == classes and theirs.shape[1:] == ours.shape[1:]


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")


def _read(file: str) -> dict[str, Tensor]:
    path = Path(file).expanduser()
    if not path.is_file():
        raise RecipeError(f"model.checkpoint={file!r}: there is no such file; paths start at the working directory")
    content = _unpack(path, file)
    for key in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
            break
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise RecipeError(
            f"model.checkpoint={file!r} holds no weights; save model.state_dict(), by itself or as 'model' of a dict"
        )
    if all(key.startswith("module.") for key in content):
        content = {key.removeprefix("module."): value for key, value in content.items()}
    return content


def _unpack(path: Path, file: str) -> Any:
    remedy = "it must be of torch.save, with tensors and plain values only, or of safetensors"
    with explained(f"model.checkpoint={file!r} cannot be read: loading it", remedy):
        if path.suffix == ".safetensors":
            return extra("safetensors.torch", file, "pip install safetensors").load_file(path)
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                check_stored(archive, path)
        return torch.load(path, map_location="cpu", weights_only=True)
