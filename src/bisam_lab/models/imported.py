"""Networks of the user's own, by import path."""

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from ..recipe import RecipeError
from ..recipe.known import nearest
from .trial import explained

__all__ = ["build_imported"]


def build_imported(name: str, options: dict[str, Any], shape: tuple[int, ...], classes: int) -> nn.Module:
    """Call ``package.module:NAME`` or ``file.py:NAME`` as NAME(num_classes=classes, **options).

    Files, and packages that are not installed, are looked for from the working directory. A NAME with an argument
    ``channels``, ``in_channels`` or ``in_chans`` is given that of the images, unless the options do.

    Raises:
        RecipeError: no such file, module or name; one that cannot be called so, raises, or returns no module.
    """
    where, _, attribute = name.rpartition(":")
    with torch.random.fork_rng(devices=[]):  # what a module draws, it draws in one run of a process only: the first
        module = _from_file(name, where) if where.endswith(".py") else _from_package(name, where)
    target = getattr(module, attribute, None)
    if target is None:
        known = [word for word, value in vars(module).items() if callable(value)]
        raise RecipeError(f"model.name={name!r}: {where} has no {attribute}{nearest(attribute, known)}")
    if isinstance(target, nn.Module):
        raise RecipeError(
            f"model.name={name!r}: {attribute} is a network already, which every run would train on; name its class, "
            "or a function that returns a new one"
        )
    if not callable(target):
        raise RecipeError(f"model.name={name!r}: {attribute} is a {type(target).__name__}, not a class or function")
    arguments = _arguments(name, target, {"num_classes": classes, **options}, shape)
    with explained(f"model.name={name!r}: {attribute}"):
        model = target(**arguments)
    if not isinstance(model, nn.Module):
        raise RecipeError(
            f"model.name={name!r}: {attribute} returned a {type(model).__name__}; it must return a torch.nn.Module"
        )
    return model


def _from_file(name: str, where: str) -> ModuleType:
    """Run the file as a module, once for each of its contents; those beside it can be imported from it."""
    path = Path(where).expanduser().resolve()
    if not path.is_file():
        raise RecipeError(f"model.name={name!r}: there is no file {path}; paths start at the working directory")
    digest = hashlib.sha256(str(path).encode() + path.read_bytes()).hexdigest()[:12]
    known = f"_bisam_model_{path.stem}_{digest}"
    if known in sys.modules:
        return sys.modules[known]
    _look_in(path.parent)
    spec = importlib.util.spec_from_file_location(known, path)
    assert spec is not None and spec.loader is not None  # for the type checker: true of every path that ends in .py
    module = sys.modules[known] = importlib.util.module_from_spec(spec)
    try:
        with explained(f"model.name={name!r}: importing {path}"):
            spec.loader.exec_module(module)
    except RecipeError:
        del sys.modules[known]
        raise
    return module


def _from_package(name: str, where: str) -> ModuleType:
    _look_in(Path.cwd())
    with explained(f"model.name={name!r}: importing {where}"):
        try:
            return importlib.import_module(where)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{where}.".startswith(f"{error.name}."):
                raise  # a module that this one wants
            raise RecipeError(
                f"model.name={name!r}: there is no module {error.name}; install it, start in the folder that has it, "
                f"or name a file: {where.replace('.', '/')}.py:{name.rpartition(':')[2]}"
            ) from None


def _look_in(folder: Path) -> None:
    """Let modules of the folder be imported, now and later, wherever no other of that name is."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    importlib.invalidate_caches()


def _arguments(
    name: str, target: Callable[..., Any], arguments: dict[str, Any], shape: tuple[int, ...]
) -> dict[str, Any]:
    try:
        signature = inspect.signature(target)
    except ValueError:  # some that are written in C have none
        return arguments
    if len(shape) == 3:
        wanted = {"channels", "in_channels", "in_chans"} & set(signature.parameters)
        arguments = {**dict.fromkeys(sorted(wanted), shape[0]), **arguments}
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise RecipeError(
            f"model.name={name!r}: {name.rpartition(':')[2]}{signature} cannot be called with "
            f"{', '.join(f'{key}={value!r}' for key, value in arguments.items())}: {error}; it must take num_classes, "
            "and model.options gives it the rest"
        ) from None
    return arguments
