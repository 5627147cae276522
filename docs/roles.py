"""Reads docstrings as we write them: roles become links, ``#:`` above a name documents it, examples come first."""

import re
from pathlib import Path
from typing import Any

import griffe

__all__ = ["Roles"]

_EXAMPLE = re.compile(r"^Example:$", re.MULTILINE)
_BLOCK = re.compile(r"^Examples:\n(?:[ ]+.*\n?|\n)+", re.MULTILINE)
_QUOTE = re.compile(r"^( *(?:\w+: )?)>(?!>> )", re.MULTILINE)  # a ">= 0" that stands first is no quotation
_ROLE = re.compile(r":(?:class|func|meth|mod):`(~?)([\w.]+)`")
_TAG = re.compile(r"(?P<code>(?P<ticks>`+).+?(?P=ticks))|<(?=[A-Za-z])", re.DOTALL)  # <g, eps> is no tag


class Roles(griffe.Extension):
    """Completes and rewrites each docstring as it is read; a name without dots is looked up from where it stands."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Find its docstring if it is a variable's, and rewrite it."""
        if obj.docstring is None and isinstance(obj, griffe.Attribute) and (comment := _comment_above(obj)):
            obj.docstring = griffe.Docstring(comment, parent=obj)
        if obj.docstring is not None:
            text = _ROLE.sub(lambda found: _link(found, obj), obj.docstring.value)
            text = _TAG.sub(lambda found: found["code"] or "&lt;", text)
            obj.docstring.value = _QUOTE.sub(r"\1\\>", _example_first(_EXAMPLE.sub("Examples:", text)))


def _example_first(text: str) -> str:
    """Move the example behind the first paragraph: it is what most readers come for."""
    found = _BLOCK.search(text)
    first, _, rest = text.partition("\n\n")
    if found is None or found.start() <= len(first) + 2:
        return text
    return f"{first}\n\n{found[0].strip()}\n\n{rest.replace(found[0].lstrip(), '', 1)}"


def _comment_above(obj: griffe.Attribute) -> str:
    """Return the text of the ``#:`` lines that end right above a name, if there are any."""
    found: list[str] = []
    lines = obj.lines_collection[obj.filepath] if isinstance(obj.filepath, Path) and obj.lineno else []
    for line in reversed(lines[: (obj.lineno or 1) - 1]):
        if not line.strip().startswith("#:"):
            break
        found.insert(0, line.strip().removeprefix("#:").strip())
    return " ".join(found)


def _link(found: re.Match[str], obj: griffe.Object) -> str:
    name = found[2]
    shown = name.rpartition(".")[2] if found[1] else name
    path = name if name.startswith("bisam.") else _resolved(name, obj)
    return f"[`{shown}`][{path}]" if path.startswith("bisam.") else f"`{shown}`"


def _resolved(name: str, obj: griffe.Object) -> str:
    """Return the path of a member of ``obj``, or of a name in its scope; the name itself where it is neither."""
    if name in obj.members:
        return f"{obj.path}.{name}"
    try:
        return obj.resolve(name)
    except griffe.NameResolutionError:  # of another package
        return name
