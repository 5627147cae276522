"""What the site takes from elsewhere as it is built: changelog, contributing, commands, recipes, fields, a picture.

MkDocs calls these functions (``hooks`` in mkdocs.yml). A page asks for a part by ``<!-- generated: NAME -->``.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

import typer
import typer.main
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from typer.core import TyperCommand, TyperGroup

from bisam_lab import recipe as recipes
from bisam_lab.cli.app import app
from bisam_lab.recipe import Recipe

sys.path.insert(0, str(Path(__file__).parent))
from frontier_tables import figure

__all__ = ["commands", "fields", "on_files", "on_page_markdown", "on_post_build", "shipped"]

ROOT = Path(__file__).resolve().parent.parent
#: Pages of the site that are files beside ``docs``.
OUTSIDE = ("CHANGELOG.md", "CONTRIBUTING.md")
#: A picture that is drawn from the results as the site is built.
FRONTIER = "images/frontier.svg"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that lie outside of ``docs``; their links into it become links within the site."""
    for name in OUTSIDE:
        text = (ROOT / name).read_text().replace("](docs/", "](")
        files.append(File.generated(config, name.lower(), content=text))
    files.append(File.generated(config, FRONTIER, content=figure()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill the generated parts of a page.

    Raises:
        KeyError: there is no such part.
    """
    return re.sub(r"<!-- generated: ([\w-]+) -->", lambda found: _PARTS[found[1]](), markdown)


def on_post_build(config: MkDocsConfig) -> None:
    """Cut what the theme would load from elsewhere (diagrams and a polyfill, neither of which we use)."""
    for path in Path(config.site_dir, "assets", "javascripts").glob("*.js"):
        text = path.read_text()
        path.write_text(re.sub(r"https://unpkg\.com/[\w@./-]+", "", text))


def commands() -> str:
    """Return the command's help as Markdown, read from the command itself."""
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    parts = [_help(group)]
    parts += [
        f"## bisam {' '.join(path)}\n\n```text\nbisam {' '.join([*path, *_usage(c)])}\n```\n\n{_help(c)}\n\n{_table(c)}"
        for path, c in leaves(group)
    ]
    return "\n\n".join(parts)


def leaves(group: TyperGroup, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], TyperCommand]]:
    """Yield every command below ``group`` with the words that call it."""
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from leaves(command, (*path, name))
        elif isinstance(command, TyperCommand) and not command.hidden:
            yield (*path, name), command


def _usage(command: TyperCommand) -> list[str]:
    return ["[OPTIONS]", *(str(p.metavar or p.name) for p in command.params if p.param_type_name == "argument")]


def _help(command: TyperCommand | TyperGroup) -> str:
    """Return the help text; its dimmed lines, which are examples, become a block."""
    plain, examples = [], []
    for line in (command.help or "").splitlines():
        found = re.fullmatch(r"\s*\[dim\](.*)\[/dim\]\s*", line)
        if found:
            examples.append(found[1])
        else:
            plain.append(line)
    text = "\n".join(plain).strip()
    return f"{text}\n\n```text\n{chr(10).join(examples)}\n```" if examples else text


def _table(command: TyperCommand) -> str:
    records = [parameter.get_help_record(typer.Context(command)) for parameter in command.params]
    rows = [f"| `{name}` | {_cell(words)} |" for name, words in filter(None, records)]
    return "\n".join(["| argument | |", "|---|---|", *rows])


def fields() -> str:
    """Return the fields of a recipe as one table, read from the model that validates them."""
    rows = ["| field | values | default | |", "|---|---|---|---|"]
    return "\n".join([*rows, *(f"| {' | '.join(row)} |" for row in _rows(Recipe))])


def _rows(model: type[BaseModel], path: str = "") -> Iterator[list[str]]:
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield [f"**`{path}{name}`**", "", "", _cell(" ".join((kind.__doc__ or "").split()))]
            yield from _rows(kind, f"{path}{name}.")
        else:
            yield [f"`{path}{name}`", _kind(field), _plain(field.default), _cell(field.description or "")]


def _kind(field: FieldInfo) -> str:
    """Return the values that a field takes, in words, its bounds included."""
    choices = [value for value in get_args(field.annotation) if isinstance(value, str)]
    if choices:
        return ", ".join(f"`{choice}`" for choice in choices)
    names: dict[Any, str] = {str: "text", dict: "mapping", tuple: "list", bool: "true or false", type(None): "null"}
    kinds = get_args(field.annotation) if isinstance(field.annotation, UnionType) else (field.annotation,)
    words = " or ".join(names.get(get_origin(kind) or kind) or str(getattr(kind, "__name__", kind)) for kind in kinds)
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    bounds = [f"{sign} {getattr(m, key):g}" for m in field.metadata for key, sign in signs.items() if hasattr(m, key)]
    return ", ".join([words, *bounds])


def _plain(value: object) -> str:
    """Return a default as YAML says it; nothing for empty text."""
    if value is None or isinstance(value, bool):
        return {None: "`null`", True: "`true`", False: "`false`"}[value]
    return f"`{list(value) if isinstance(value, tuple) else value}`" if value != "" else ""


def shipped() -> str:
    """Return the recipes that come with the laboratory: what the comment at the top of each file says."""
    rows = ["| recipe | |", "|---|---|"]
    for name in recipes.names():
        lines = recipes.text(name).splitlines()
        comment = [line.lstrip("# ") for line in lines[: next(i for i, s in enumerate(lines) if not s.startswith("#"))]]
        rows.append(f"| `{name}` | {_cell(recipes.load(name).description or ' '.join(comment))} |")
    return "\n".join(rows)


def frontier_figure() -> str:
    """Return the picture of the frontier, which :func:`on_files` draws."""
    return f"![Points above SGD against passes, method by method]({FRONTIER})"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("[", "\\[").replace("\n", " ")


_PARTS = {"commands": commands, "fields": fields, "recipes": shipped, "frontier": frontier_figure}
