"""What the site takes from elsewhere as it is built: changelog, commands, recipes, fields, figures, the demo's study.

MkDocs calls these functions (``hooks`` in mkdocs.yml). A page asks for a part by ``<!-- generated: NAME -->``.
"""

import atexit
import functools
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
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

from bisam_lab import Study
from bisam_lab import recipe as recipes
from bisam_lab.cli.app import app
from bisam_lab.recipe import Recipe

sys.path.insert(0, str(Path(__file__).parent))
import demo_study
import frontier_tables as frontier
import idea_figures as idea
import llms
import narrow

__all__ = ["commands", "fields", "on_files", "on_page_content", "on_page_markdown", "on_post_build", "shipped"]

ROOT = Path(__file__).resolve().parent.parent
#: Pages of the site that are files beside ``docs``.
OUTSIDE = ("CHANGELOG.md", "CONTRIBUTING.md")
#: The pictures of the frontier, drawn from the results as the site is built.
FRONTIER = "images/frontier-{}.svg"
#: The head of a page that the search leaves out.
_UNFOUND = "---\nsearch: {exclude: true}\n---\n\n"
#: The page of ``bisam report`` about the demo's study.
REPORT = "demo-report.html"
#: The figures of the idea.
FIGURES = {"minima": idea.minima, "worst": idea.worst, "balls": idea.balls, "bounds": idea.bounds, "pull": idea.pull}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what lies outside of ``docs`` or is drawn. Links into ``docs`` become links within the site."""
    for name in OUTSIDE:
        text = (ROOT / name).read_text().replace("](docs/", "](")
        hidden = name == "CHANGELOG.md"  # it tells of everything, and would be the first that a search finds
        files.append(File.generated(config, name.lower(), content=f"{_UNFOUND * hidden}{text}"))
    pictures = {FRONTIER.format(name): svg for name, (_, svg) in frontier.figures().items()}
    pictures |= demo_study.pictures(_demo())
    for name, content in pictures.items():
        files.append(File.generated(config, name, content=content))
    page = _demo().report(Path(tempfile.mkdtemp()) / REPORT).read_text()
    files.append(File.generated(config, REPORT, content=page))
    files.append(File.generated(config, "llms.txt", content=llms.text(config)))
    return files


@functools.cache
def _demo() -> Study:
    """Return the demo's study, in a folder that ends with the process."""
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    return demo_study.unpack(Path(folder.name) / "demo")


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill the generated parts of a page.

    Raises:
        KeyError: there is no such part.
    """
    return re.sub(r"<!-- generated: ([\w-]+) -->", lambda found: _PARTS[found[1]](), markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Prepare the page's tables for narrow screens."""
    return narrow.labelled(html)


def on_post_build(config: MkDocsConfig) -> None:
    """Cut what the theme would load from elsewhere: diagrams, which we do not use. Its search in a frame is ours."""
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


def frontier_figures() -> str:
    """Return the pictures of the frontier, which :func:`on_files` draws."""
    each = [f"![{title}]({FRONTIER.format(name)}){{.paper}}" for name, (title, _) in frontier.figures().items()]
    return '<div class="pictures" markdown>\n' + "\n".join(each) + "\n</div>"


def _figure(name: str) -> str:
    return f'<figure class="drawn"><div>{FIGURES[name]()}</div></figure>'


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("[", "\\[").replace("\n", " ")


_PARTS: dict[str, Callable[[], str]] = {
    "commands": commands,
    "fields": fields,
    "recipes": shipped,
    "frontier": frontier_figures,
    "demo-terminal": demo_study.terminal,
    "demo-notebook": lambda: demo_study.shown(_demo()),
    **{f"figure-{name}": functools.partial(_figure, name) for name in FIGURES},
}
