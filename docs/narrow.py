"""Prepares wide tables for narrow screens: each cell knows its column, so that a row can be shown as a card."""

import re
from html import escape

__all__ = ["labelled"]

#: From how many columns on a table becomes cards on a phone, and from how many its heads stand upright everywhere.
CARDS, UPRIGHT = 4, 11


def labelled(html: str) -> str:
    """Return a page's HTML with its wide tables in a box that names their kind, and their cells labelled."""
    return re.sub(r"<table>.*?</table>", lambda found: _table(found[0]), html, flags=re.DOTALL)


def _table(table: str) -> str:
    names = [re.sub(r"<[^>]+>", "", head) for head in re.findall(r"<th\b[^>]*>(.*?)</th>", table, re.DOTALL)]
    if len(names) < CARDS:
        return table
    rows = re.sub(r"<tr>.*?</tr>", lambda found: _row(found[0], names), table, flags=re.DOTALL)
    kind = "cards upright" if len(names) >= UPRIGHT else "cards"
    return f'<div class="{kind}">{rows}</div>'


def _row(row: str, names: list[str]) -> str:
    left = iter(names)
    return re.sub(r"<td\b", lambda found: f'<td data-label="{escape(next(left, ""))}"', row)
