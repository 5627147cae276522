"""Turns the roles of our docstrings, ``:class:`~bisam.SAM```, into links of the API reference."""

import re
from typing import Any

import griffe

__all__ = ["Roles"]

_ROLE = re.compile(r":(?:class|func|meth|mod):`(~?)([\w.]+)`")


class Roles(griffe.Extension):
    """Rewrites each docstring as it is read; a name without dots is looked up from where it stands."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite its docstring."""
        if obj.docstring is not None:
            obj.docstring.value = _ROLE.sub(lambda found: _link(found, obj), obj.docstring.value)


def _link(found: re.Match[str], obj: griffe.Object) -> str:
    name = found[2]
    shown = name.rpartition(".")[2] if found[1] else name
    path = name if name.startswith("bisam.") else _resolved(name, obj)
    return f"[`{shown}`][{path}]" if path.startswith("bisam.") else f"`{shown}`"


def _resolved(name: str, obj: griffe.Object) -> str:
    """Return the path of what a member of ``obj``, or else a name in its scope, is called; the name where it is neither."""
    if name in obj.members:
        return f"{obj.path}.{name}"
    try:
        return obj.resolve(name)
    except griffe.NameResolutionError:  # of another package
        return name
