"""A command's words as a user may first write them, and the recipe and overrides that they stand for.

``pictures/ lr=0.1`` is the recipe ``own`` with ``data.name=folder:pictures train.lr=0.1``. What has one meaning is
accepted, and the command says how it reads it. The rest is answered with the line to write.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..datasets.registry import PREFIXES, SETS
from ..errors import RecipeError
from ..registry.method_names import METHOD_NAMES
from ..registry.optimizers import OPTIMIZERS
from .code import only_one
from .fields import full_name
from .known import is_imported_data
from .places import data_at
from .reading import methods_of, names

__all__ = ["Understood", "understood"]

_PICTURES, _TEXTS = "own", "own-texts"
#: The network of the recipe for texts: its options are for it alone.
_TEXT_MODEL = "hf:bert"


class Understood(NamedTuple):
    """How the words of a command are read.

    Attributes:
        recipe: its name or its file.
        overrides: ``dotted.key=value``, in order.
        guessed: whether these are not the words that were given.
    """

    recipe: str
    overrides: list[str]
    guessed: bool

    def __str__(self) -> str:
        return " ".join(f"'{word}'" if " " in word else word for word in (self.recipe, *self.overrides))


def understood(recipe: str, overrides: Sequence[str]) -> Understood:
    """Return the recipe and the overrides that the words of a command stand for.

    The recipe may be left out: then it is ``digits``, or one for data of one's own where data or a model are named.

    Args:
        recipe: the first word: a recipe, a file, data, or an override.
        overrides: the other words.

    Raises:
        RecipeError: a word with no meaning or with several.
    """
    words = [recipe, *overrides]
    plain = [word for word in words if not _assigns(word)]
    given = [_override(word) for word in words if _assigns(word)]
    if len(plain) > 1:
        raise RecipeError(f"{plain[1]!r} stands beside {plain[0]!r}: {_as_override(plain[1])}")
    name, data = _first(plain[0]) if plain else ("", None)
    overridden = given if data is None else [f"data.name={data}", *given]
    name = name or _recipe_for(overridden)
    if name == _TEXTS and _names_another_network(overridden):
        overridden = ["model.options={}", *overridden]
    overridden = [*_methods_around(name, overridden), *overridden]
    typed = [name, *(word for word in words if word != name)] if plain or not given else [name, *words]
    return Understood(name, overridden, [name, *overridden] != typed)


def _assigns(word: str) -> bool:
    return "=" in word and "@" not in word.partition("=")[0] and not Path(word).exists()


def _first(word: str) -> tuple[str, str | None]:
    """Return the recipe that the first word names; or no recipe, and the data that it names."""
    if word in names() or Path(word).suffix.lower() in (".yaml", ".yml"):
        return word, None
    if word.partition(":")[0] in PREFIXES and word.partition(":")[2]:
        return "", word
    data = data_at(word)
    if data is not None:
        return "", data
    if word in SETS or _is_method(word) or re.search(r"\.py(:\w+)?$", word) or _is_network(word):
        raise RecipeError(f"{word!r} is no recipe: {_as_override(word)}")
    return word, None


def _as_override(word: str) -> str:
    """Return what to write for a word that is no override."""
    if word.endswith(".py") or re.search(r"\.py:\w+$", word):
        return f"a network is model.name={word}, a reader of data data.name={word}"
    if _is_method(word):
        return f"a method is methods={word}"
    if _is_network(word):
        return f"a network is model.name={word}"
    if word in SETS:
        return f"a data set is data.name={word}"
    data = data_at(word)
    return "any field is FIELD=VALUE, such as train.lr=0.05" if data is None else f"data are data.name={data}"


def _is_method(word: str) -> bool:
    return all(part in METHOD_NAMES for part in re.split(r"[,+]", re.sub(r"@[^,+]*", "", word)))


def _is_network(word: str) -> bool:
    return bool(re.match(r"(timm|hf):|(resnet|wrn)-\d", word))


def _override(word: str) -> str:
    """Return a word ``key=value`` with the dotted name of its field, and its value as the field takes it."""
    key, _, value = word.partition("=")
    dotted = full_name(key.lstrip("-")) or key
    if value.startswith("{") and dotted != key:
        return word  # a whole section
    return f"{dotted}={_VALUES[dotted](value)}" if dotted in _VALUES and value else f"{dotted}={value}"


def _data(value: str) -> str:
    if value in SETS or value.partition(":")[0] in PREFIXES or is_imported_data(value):
        return value
    if value.endswith(".py"):
        return only_one("data.name", value)
    return data_at(value) or value


def _methods(value: str) -> str:
    return value if value.startswith("[") else f"[{value}]"


_VALUES = {
    "data.name": _data,
    "model.name": lambda value: only_one("model.name", value) if value.endswith(".py") else value,
    "train.optimizer": lambda value: only_one("train.optimizer", value) if value.endswith(".py") else value,
    "methods": _methods,
}


def _recipe_for(overrides: Sequence[str]) -> str:
    named = dict(word.partition("=")[::2] for word in overrides)
    if named.get("data.name", "").startswith(("text:", "glue:")):
        return _TEXTS
    return _PICTURES if {"data.name", "model.name"} & named.keys() else "digits"


def _methods_around(recipe: str, overrides: Sequence[str]) -> list[str]:
    """Return the recipe's methods with the optimizer that is named in the place of its own, where that changes them."""
    named = dict(word.partition("=")[::2] for word in overrides)
    optimizer = named.get("train.optimizer", "")
    if not optimizer or "methods" in named:
        return []
    plain = optimizer if optimizer in OPTIMIZERS else "plain"
    before = methods_of(recipe)
    after = [plain if name in OPTIMIZERS else name for name in before]
    return [f"methods=[{','.join(after)}]"] if after != before else []


def _names_another_network(overrides: Sequence[str]) -> bool:
    named = dict(word.partition("=")[::2] for word in overrides)
    own = any(key.startswith("model.options") for key in named)
    return named.get("model.name", _TEXT_MODEL) != _TEXT_MODEL and not own
