"""What audits found, as tables, from ``results/audit.json``."""

import json
import math
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["tables"]

RESULTS = Path(__file__).resolve().parent.parent / "results" / "audit.json"


def tables() -> dict[str, str]:
    """Return the table of each checkpoint, by name, and the sentence of README.md."""
    stored = json.loads(RESULTS.read_text())
    return {f"audit-{name}": _table(one) for name, one in stored.items()} | {
        "audit-answer": _answer(stored["resnet20"])
    }


def _answer(stored: Mapping[str, Any]) -> str:
    """Say what the log bound does to the batch and beyond, with the batch's statistics at rho 0.1."""
    wanted = {"adversary": "bisam-log", "statistics": "batch", "rho": 0.1}
    (row,) = [row for row in stored["audits"][0]["rows"] if wanted.items() <= row.items()]
    batch, beyond = (_words(row, f"difference_{where}") for where in ("batch", "held_out"))
    return (
        "**Does its adversary make more mistakes?** On a published ResNet-20, at rho 0.1, the log bound raises the "
        f"error of the batch that it climbs by {batch} points more than SAM's does, and that of held-out "
        f"images by {beyond}, n = {row['n']} batches, on two cores of an {stored['processor']}. "
        "[`bisam audit`](docs/lab/audit.md) asks your checkpoint."
    )


def _words(row: Mapping[str, Any], key: str) -> str:
    value, low, high, p = (row[name] for name in (key, f"{key}_low", f"{key}_high", f"{key}_p"))
    return f"{value:.2f} [{low:.2f}, {high:.2f}]" + ("" if p < 0.05 else f" (p = {p:.2f} after Holm's correction)")


def _table(stored: Mapping[str, Any]) -> str:
    heads = ["adversary", "statistics", "rho", "cosine", "batch", "against SAM", "held-out", "against SAM"]
    course = ["epoch"] if len(stored["audits"]) > 1 else []
    lines = [f"| {' | '.join([*course, *heads])} |", f"|{'---:|' * len(course)}{'---|' * 3}{'---:|' * 5}"]
    for audit in stored["audits"]:
        for row in audit["rows"]:
            lines.append(f"| {' | '.join([*(str(audit[key]) for key in course), *_cells(row)])} |")
    first = stored["audits"][0]
    n, size = first["batches"], first["size"]
    told = f"{n} batches of {size}; rises of the error in points, differences paired by batch with 95 % intervals, "
    told += f"**bold** where Holm's p is below 5 %. {stored['processor']}, torch {stored['torch']}, {stored['date']}:"
    return "\n".join([*lines, "", told, "", *_wrapped(stored["command"])])


def _wrapped(command: str) -> list[str]:
    """Return a command as indented lines, each but the last with a backslash at its end."""
    first, *rest = textwrap.wrap(command, 100, break_long_words=False, break_on_hyphens=False)
    return [f"    {line}" for line in (" \\\n".join([first, *(f"      {line}" for line in rest)])).split("\n")]


def _cells(row: Mapping[str, Any]) -> list[str]:
    cells = [row["adversary"], row["statistics"], f"{row['rho']:g}", _number(row["cosine_median"], 4)]
    for where in ("batch", "held_out"):
        cells += [_number(row[f"rise_error_{where}"], 2), _difference(row, f"difference_{where}")]
    return cells


def _difference(row: Mapping[str, Any], key: str) -> str:
    value, low, high, p = (row[name] for name in (key, f"{key}_low", f"{key}_high", f"{key}_p"))
    if value is None:
        return ""
    text = f"{value:+.2f}" + ("" if low is None else f" [{low:.2f}, {high:.2f}]")
    return f"**{text}**" if p is not None and p < 0.05 else text


def _number(value: float | None, digits: int) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"
