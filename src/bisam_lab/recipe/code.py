"""Which class or function of a Python file is meant where a recipe names the file alone. The file is not run."""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

from ..errors import RecipeError

__all__ = ["only_one"]

_Definition: TypeAlias = ast.ClassDef | ast.FunctionDef


def only_one(field: str, path: str) -> str:
    """Return ``path:NAME`` with the one class or function that fits the field.

    A network takes ``num_classes``, a reader of data one argument. An optimizer is the one class or function.

    Raises:
        RecipeError: there is no such file, or it is no Python; none fits, or several do.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise RecipeError(f"{field}={path}: there is no file {path}; paths start at the working directory")
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise RecipeError(f"{field}={path}: {path}{line} is not valid Python") from None
    public = {d.name: d for d in _definitions(tree) if not d.name.startswith("_")}
    fits, one, several = _FITTING.get(field, (lambda *_: True, "is there", "are there"))
    found = [name for name, definition in public.items() if fits(definition, public)]
    if len(found) == 1:
        return f"{path}:{found[0]}"
    if found:
        lines = " or ".join(f"{field}={path}:{name}" for name in found[:4])
        raise RecipeError(f"{field}={path}: {len(found)} classes or functions {several}: write {lines}")
    there = f"; it has {', '.join(list(public)[:6])}" if public else ""
    raise RecipeError(f"{field}={path}: no class or function {one}{there}")


def _definitions(tree: ast.Module) -> Iterator[_Definition]:
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            yield node


def _makes_a_network(definition: _Definition, public: dict[str, _Definition]) -> bool:
    """Whether it takes ``num_classes``: itself, or through the class in the same file that it is made from."""
    if isinstance(definition, ast.FunctionDef):
        return _takes(definition.args, "num_classes")
    own = next((d for d in definition.body if isinstance(d, ast.FunctionDef) and d.name == "__init__"), None)
    if own is not None:
        return _takes(own.args, "num_classes")
    bases = [public[base.id] for base in definition.bases if isinstance(base, ast.Name) and base.id in public]
    return any(base is not definition and _makes_a_network(base, public) for base in bases)


def _takes(arguments: ast.arguments, name: str) -> bool:
    return any(a.arg == name for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs))


def _takes_a_folder(definition: _Definition, public: dict[str, _Definition]) -> bool:
    if isinstance(definition, ast.ClassDef):
        return False
    arguments = definition.args
    least = len(arguments.posonlyargs) + len(arguments.args) - len(arguments.defaults)
    return least == 1 and None not in arguments.kw_defaults


_FITTING: dict[str, tuple[Callable[[_Definition, dict[str, _Definition]], bool], str, str]] = {
    "model.name": (_makes_a_network, "takes num_classes", "take num_classes"),
    "data.name": (_takes_a_folder, "takes one argument, the folder of the data", "take one argument"),
}
