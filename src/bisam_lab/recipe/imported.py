"""Code that is not ours, named in a recipe by its import path: found, and its failures explained."""

import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from .known import nearest
from .reading import RecipeError

__all__ = ["call_arguments", "explained", "imported"]


def imported(field: str, name: str) -> Any:
    """Return the class or function that ``package.module:NAME`` or ``file.py:NAME`` names.

    Files, and packages that are not installed, are looked for from the working directory.

    Args:
        field: of the recipe, for the messages.
        name: its value.

    Raises:
        RecipeError: no such file, module or name; importing it raises; it cannot be called.
    """
    where, _, attribute = name.rpartition(":")
    with torch.random.fork_rng(devices=[]):  # a module is imported once a process: what it draws must not count
        module = _from_file(field, name, where) if where.endswith(".py") else _from_package(field, name, where)
    target = getattr(module, attribute, None)
    if target is None:
        known = [word for word, value in vars(module).items() if callable(value)]
        raise RecipeError(f"{field}={name!r}: {where} has no {attribute}{nearest(attribute, known)}")
    if not callable(target):
        raise RecipeError(f"{field}={name!r}: {attribute} is a {type(target).__name__}, not a class or function")
    return target


def call_arguments(
    what: str,
    target: Callable[..., Any],
    *first: Any,
    given: Mapping[str, Any],
    offered: Mapping[str, Any] | None = None,
    remedy: str,
) -> dict[str, Any]:
    """Return the keyword arguments for a call: all that are ``given``, and of those ``offered`` the ones it takes.

    Args:
        what: names the target in the message.
        target: to be called.
        first: the positional arguments.
        given: must be taken.
        offered: passed if ``target`` has a parameter of this name.
        remedy: for the message.

    Raises:
        RecipeError: the target cannot be called with these arguments.
    """
    try:
        signature = inspect.signature(target)
    except ValueError:  # some that are written in C have none
        return dict(given)
    named = signature.parameters
    arguments = {key: value for key, value in (offered or {}).items() if key in named} | dict(given)
    try:
        signature.bind(*first, **arguments)
    except TypeError as error:
        unknown = [key for key in arguments if key not in named and f"'{key}'" in str(error)]
        hint = nearest(unknown[0], named) if unknown else ""
        said = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        raise RecipeError(f"{what}({', '.join(named)}) cannot be called with {said}: {error}{hint}; {remedy}") from None
    return arguments


@contextlib.contextmanager
def explained(what: str, remedy: str = "") -> Iterator[None]:
    """Turn whatever is raised inside into a RecipeError that says ``what`` raised it, where, and the remedy.

    Raises:
        RecipeError: something was raised.
    """
    try:
        yield
    except RecipeError:
        raise
    except (Exception, SystemExit) as error:
        said = textwrap.shorten(str(error), 400) or "without a word"
        end = f"; {remedy}" if remedy else ""
        raise RecipeError(f"{what} raised {type(error).__name__}{_place(error)}: {said}{end}") from error


def _place(error: BaseException) -> str:
    """Return the innermost line of the user's own code that the error went through, if there is one."""
    installed = (str(Path(torch.__file__).parents[1]), str(Path(__file__).parents[1]), "<")
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not f.filename.startswith(installed) and "importlib" not in f.filename]
    return f" at {own[-1].filename}:{own[-1].lineno}" if own else ""


def _from_file(field: str, name: str, where: str) -> ModuleType:
    """Run the file as a module, once for each of its contents; those beside it can be imported from it."""
    path = Path(where).expanduser().resolve()
    if not path.is_file():
        raise RecipeError(f"{field}={name!r}: there is no file {path}; paths start at the working directory")
    digest = hashlib.sha256(str(path).encode() + path.read_bytes()).hexdigest()[:12]
    known = f"_bisam_recipe_{path.stem}_{digest}"
    if known in sys.modules:
        return sys.modules[known]
    _look_in(path.parent)
    spec = importlib.util.spec_from_file_location(known, path)
    assert spec is not None and spec.loader is not None  # for the type checker: true of every path that ends in .py
    module = sys.modules[known] = importlib.util.module_from_spec(spec)
    try:
        with explained(f"{field}={name!r}: importing {path}"):
            spec.loader.exec_module(module)
    except RecipeError:
        del sys.modules[known]
        raise
    return module


def _from_package(field: str, name: str, where: str) -> ModuleType:
    _look_in(Path.cwd())
    with explained(f"{field}={name!r}: importing {where}"):
        try:
            return importlib.import_module(where)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{where}.".startswith(f"{error.name}."):
                raise  # a module that this one wants
            raise RecipeError(
                f"{field}={name!r}: there is no module {error.name}; install it, start in the folder that has it, "
                f"or name a file: {where.replace('.', '/')}.py:{name.rpartition(':')[2]}"
            ) from None


def _look_in(folder: Path) -> None:
    """Let modules of the folder be imported, now and later, wherever no other of that name is."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    importlib.invalidate_caches()
