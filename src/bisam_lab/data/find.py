"""The entry of a data set by the name that a recipe gives it, or by the import path of a function of the user's own."""

import inspect
from pathlib import Path

from ..datasets import Contents, DataSet, Images, Pictures, Texts
from ..datasets.registry import OWN, SETS, check_name
from ..errors import RecipeError
from ..recipe.imported import explained, imported
from ..recipe.known import is_imported_data

__all__ = ["find"]


def find(name: str) -> DataSet:
    """Return the entry of a shipped set, of ``folder:PATH`` or ``text:PATH``, or of ``file.py:FUNCTION``.

    Raises:
        RecipeError: there is no such set.
    """
    if is_imported_data(name):
        return DataSet(name, lambda data_dir: _read_imported(name, data_dir), "a reader of your own")
    check_name(name)
    kind, _, path = name.partition(":")
    return SETS[name] if name in SETS else OWN[kind](path)


def _read_imported(name: str, data_dir: Path) -> Contents:
    """Call the function with the folder of --data-dir.

    Raises:
        RecipeError: it cannot be imported or called so, raises an exception, or returns something else.
    """
    function, attribute = imported("data.name", name), name.rpartition(":")[2]
    try:
        inspect.signature(function).bind(data_dir)
    except TypeError:
        raise RecipeError(f"data.name={name!r}: {attribute} must take one argument, the folder of --data-dir") from None
    with explained(f"data.name={name!r}: {attribute}"):
        found = function(data_dir)
    if not isinstance(found, Images | Pictures | Texts):
        raise RecipeError(
            f"data.name={name!r}: {attribute} returned a {type(found).__name__}; it must return Images, Pictures or "
            "Texts of bisam_lab.datasets"
        )
    return found
