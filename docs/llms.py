"""``llms.txt``: the lines to copy, and an index of all pages, as plain text for language models (llmstxt.org)."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig

__all__ = ["text"]

DOCS = Path(__file__).resolve().parent
#: The page that is in it as a whole.
WHOLE = "assistants.md"


def text(config: MkDocsConfig) -> str:
    """Return the file's text. Links are relative to the site's root."""
    lines = [f"# {config.site_name}", "", f"> {config.site_description}", ""]
    lines += [_whole(), "## Pages", ""]
    lines += [f"- [{title}]({_html(page)}){_about(page)}" for title, page in _pages(config.nav or [])]
    return "\n".join(lines) + "\n"


def _whole() -> str:
    """Return the page that is in it, its headings one level lower; ``#`` within code stays."""
    body = _linked((DOCS / WHOLE).read_text()).partition("---\n\n")[2]
    parts = re.split(r"(^```.*?^```$)", body, flags=re.DOTALL | re.MULTILINE)
    return "".join(part if part.startswith("```") else re.sub(r"^#", "##", part, flags=re.MULTILINE) for part in parts)


def _pages(nav: list[Any]) -> Iterator[tuple[str, str]]:
    """Yield title and file of each page of the navigation, in its order."""
    for entry in nav:
        for title, inside in entry.items():
            if isinstance(inside, str):
                yield title, inside
            else:
                yield from _pages(inside)


def _about(page: str) -> str:
    """Return the first sentence of a page's first paragraph; nothing for a page that has none."""
    path = DOCS / page
    body = path.read_text() if path.is_file() else ""
    paragraphs = [part for part in re.split(r"\n\s*\n", body) if re.match(r"(?!```)[A-Z`*]", part)]
    words = (
        " ".join(re.sub(r"\[([^\]]+)\](?:\([^)]*\)|\[[^\]]*\])", r"\1", paragraphs[0]).split()) if paragraphs else ""
    )
    found = re.match(r".+?[.:](?=\s|$)", words)
    return f": {found[0].rstrip(':.')}." if found else ""


def _linked(markdown: str) -> str:
    return re.sub(r"\]\((?!\w+:)([^)#]+)\.md", lambda found: f"]({found[1]}.html", markdown)


def _html(page: str) -> str:
    return page.removesuffix(".md") + ".html"
