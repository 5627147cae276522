"""The tables of the pages beyond images: pretrained weights, graphs, policies, large networks; from ``results/``."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bisam_lab.statistics.tuned import markdown

__all__ = ["tables"]

ROOT = Path(__file__).resolve().parent.parent
_GIB = 2**30
#: What the settings of each file are called on a page.
TESTS = {"clean": "The greedy policy", "actions": "A fifth of the actions at random", "weights": "Noise on the weights"}


def _kept(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "results" / f"{name}.json").read_text())
    return found


def tables() -> dict[str, str]:
    """Return a table for each setting that was run, by name."""
    found = {f"graph-{name}": _rows(kept) for name, kept in _kept("graphs").items()}
    found |= {name: _rows(kept, "adamw") for name, kept in _kept("finetune").items()}
    found |= {
        f"policy-{name.partition('-')[0].lower()}": _policies(kept) for name, kept in _kept("reinforcement").items()
    }
    return {**found, "grid": _grid(_kept("grid"))}


def _caption(kept: Mapping[str, Any], rows: Any) -> str:
    tuning = kept["tuning"]
    return (
        f"{kept['date']}, `{kept['command']}`: n = {len(rows[0]['scores'])} fresh seeds; {tuning['values']} values "
        f"tried, each on {tuning['seeds']} other seed{'s' * (tuning['seeds'] != 1)}."
    )


def _rows(kept: Mapping[str, Any], base: str = "adam") -> str:
    rows = kept["rows"]
    return f"{_caption(kept, rows)}\n\n{markdown(rows, [base, 'sam'], kept.get('metric', 'test accuracy') + ' %')}"


def _policies(kept: Mapping[str, Any]) -> str:
    parts = [_caption(kept, kept["tests"]["clean"])]
    for test, words in TESTS.items():
        parts.append(f"{words}:\n\n{markdown(kept['tests'][test], ['adam', 'sam'], 'return')}")
    return "\n\n".join(parts)


def _grid(kept: Mapping[str, Any]) -> str:
    head = ["network", "trained", "method", "step time", "peak memory", "by its choices", "usual batch, GiB"]
    lines = [f"| {' | '.join(head)} |", f"|---|---|---|{'---:|' * 4}"]
    lines += [f"| {' | '.join(_cell(row))} |" for row in kept["cells"].values()]
    return "\n".join(lines)


def _cell(row: Mapping[str, Any]) -> list[str]:
    names = [row["network"], row["training"], row["method"]]
    if "error" in row:
        return [*names, "failed", "", "", ""]
    paper, usual = row["paper"], row["usual"]
    measured = ["does not fit", ""]
    if "ratios" in row:
        measured = [f"x {min(row['ratios']):.2f} to {max(row['ratios']):.2f}", f"x {row['memory']:.2f}"]
    beyond = f"{usual['plain'] / _GIB:.1f} to {usual['method'] / _GIB:.1f}"
    return [*names, *measured, f"x {paper['method'] / paper['plain']:.2f}", beyond]
