"""What the frontier of accuracy against cost looks like: tables and figures from ``results/frontier.json``."""

import io
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bisam_lab.run.result import RunResult
from bisam_lab.statistics import Comparison, compare

__all__ = ["figures", "measured", "tables"]

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results" / "frontier.json"
SUB_BATCH = ROOT / "results" / "sub_batch.json"
#: Each data set, and how its two settings are called.
TITLES = {
    "digits-noisy": "digits, 40 % wrong",
    "digits-noisy-last": "digits, 40 % wrong, last epoch",
    "digits-clean": "digits, clean",
    "fashion-noisy": "Fashion-MNIST, 40 % wrong",
    "fashion-noisy-rate": "Fashion-MNIST, 40 % wrong, learning rate 0.4",
    "fashion-clean": "Fashion-MNIST, clean",
    "cifar10-noisy": "CIFAR-10, 40 % wrong",
    "cifar10-noisy-8000": "CIFAR-10, 8000 images, 40 % wrong",
    "cifar10-clean": "CIFAR-10, clean",
}
#: What one writes for a contestant whose name is not its class; the others are found by their names.
CALLS = {
    "sgd": "base",
    "sam": "SAM(base, model=model)",
    "bisam-log": "BiSAM(base, model=model)",
    "looksam": "LookSAM(base, model=model)",
    "momentumsam": "MomentumSAM(base, model=model)",
    "asyncsam": "AsyncSAM(base, model=model)",
    "subbatch": "SAM(base, model=model) with bisam.loops.SubBatch(0.25)",
    "tailsam@tail=0.2": "TailSAM(base, model=model, total_steps=steps, tail=0.2)",
    "tailsam@tail=0.4": "TailSAM(base, model=model, total_steps=steps, tail=0.4)",
    "bisam-log+tailsam@tail=0.2": "BiSAM(base, model=model, cadence=Tail(steps, 0.2))",
}


@dataclass(frozen=True)
class Contestant:
    """One row of a setting: its stored numbers, and its differences to SGD and to SAM at the recipe's epochs."""

    name: str
    stored: Mapping[str, Any]
    to_sgd: Comparison
    to_sam: Comparison

    @property
    def tuned(self) -> str:
        """The number that the tuning has chosen."""
        return f"{'lr' if self.stored['method'] == 'sgd' else 'rho'} {self.stored['chosen']:g}"

    @property
    def passes(self) -> float:
        """Of its whole training, as a multiple of SGD's."""
        return float(self.stored["passes"])


def _name(row: Mapping[str, Any]) -> str:
    return str(row["method"]) if row["epochs"] == 1 else f"{row['method']}, {row['epochs']:g} x epochs"


def _setting(stored: Mapping[str, Any]) -> list[Contestant]:
    runs = [
        RunResult(_name(row), seed, "ok", score, math.nan, 0, 1.0, 1.0)
        for row in stored["rows"]
        for seed, score in enumerate(row["scores"])
    ]
    to_sgd, to_sam = ({found.method: found for found in compare(runs, name)} for name in ("sgd", "sam"))
    return [Contestant(n := _name(row), row, to_sgd[n], to_sam[n]) for row in stored["rows"]]


def _settings() -> dict[str, tuple[Mapping[str, Any], list[Contestant]]]:
    kept = json.loads(RESULTS.read_text())
    return {name: (kept[name], _setting(kept[name])) for name in TITLES if name in kept}


def tables() -> dict[str, str]:
    """Return a table for each setting, by name, and that of the directions of parts of a batch."""
    each = {f"frontier-{name}": _table(stored, rows) for name, (stored, rows) in _settings().items()}
    return {**each, "sub-batch": _directions()}


def _table(stored: Mapping[str, Any], rows: list[Contestant]) -> str:
    timed = any(row["seconds"] for row in stored["rows"])
    head = ["method", "chosen", "test accuracy %", "minus SGD", "minus SAM", "passes", *["seconds"] * timed]
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    for row in rows:
        edge = " (at the grid's edge)" if _at_edge(row.stored) else ""
        failed = f", {row.stored['failed']} failed" if row.stored["failed"] else ""
        seconds = row.stored["seconds"]
        cells = [
            row.name,
            f"{row.tuned}{edge}",
            f"{row.to_sgd.mean:.2f} ± {row.to_sgd.std:.2f}{failed}",
            _difference(row.to_sgd),
            _difference(row.to_sam),
            f"{row.passes:.2f}",
            *[f"{seconds[1]:.2f} [{seconds[0]:.2f}, {seconds[2]:.2f}]" if seconds else ""] * timed,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    data, tuning = stored["recipe"]["data"], stored["tuning"]
    size = f" at {data['image_size']} x {data['image_size']} pixels" if data["image_size"] else ""
    caption = (
        f"{stored['date']}: {data['train_size']} training images{size}, {stored['recipe']['train']['epochs']} epochs, "
        f"n = {len(stored['rows'][0]['scores'])}; {tuning['values']} values tried, each on {tuning['seeds']} seeds."
    )
    return "\n".join([caption, "", *lines])


def _at_edge(row: Mapping[str, Any]) -> bool:
    tried = [float(value) for value in row["tried"]]
    return bool(math.isclose(row["chosen"], min(tried)) or math.isclose(row["chosen"], max(tried)))


def _difference(found: Comparison) -> str:
    """Return a paired difference with its interval; a star marks what Holm's correction leaves significant."""
    if not found.differences:
        return ""
    if not any(found.differences):
        return "equal"
    star = "*" if found.p_adjusted < 1 - found.level else ""
    return f"{found.difference:+.2f}{star} [{found.low:+.2f}, {found.high:+.2f}]"


def _directions() -> str:
    """Return the cosines between the gradient of a part of a batch and that of the whole batch."""
    lines = ["| data | part of the batch | first epoch | middle | last epoch |", "|---|---|---:|---:|---:|"]
    for name, stored in json.loads(SUB_BATCH.read_text()).items():
        seeds = stored["seeds"]
        for share in ("0.5", "0.25", "0.125", "another batch"):
            each = np.array([[row[share] for row in rows] for rows in seeds])
            at = (each[:, 0], each[:, each.shape[1] // 2], each[:, -1])
            cells = [f"{values.mean():.2f} ± {values.std(ddof=1):.2f}" for values in at]
            lines.append(f"| {name}, n = {len(seeds)} | {share} | {' | '.join(cells)} |")
    return "\n".join(lines)


def measured() -> Iterator[tuple[object, ...]]:
    """Yield what :func:`bisam.recommend` knows: setting, what one writes, passes, what was tuned, and the gain.

    That is what was measured on the data sets as they are trained usually, of what can be written in one line.
    """
    for setting, (_, rows) in _settings().items():
        if not setting.endswith(("noisy", "clean")):
            continue
        for row in rows:
            if (call := _call(row.stored)) is not None:
                gain = row.to_sgd
                numbers = (gain.difference, gain.low, gain.high) if any(gain.differences) else (0.0, 0.0, 0.0)
                yield setting, call, round(row.passes, 2), row.tuned, *(round(number, 2) for number in numbers)


def _call(row: Mapping[str, Any]) -> str | None:
    call = CALLS.get(row["method"])
    if call is None or row["epochs"] == 1:
        return call
    return f"{call}, for {row['epochs']:g} times the epochs"


def figures() -> dict[str, tuple[str, str]]:
    """Return the frontier of each setting by name: its title, and an SVG of points above SGD against passes."""
    return {name: (TITLES[name], _figure(rows, TITLES[name])) for name, (_, rows) in _settings().items()}


def _figure(rows: list[Contestant], title: str) -> str:
    with mpl.rc_context({"font.size": 9, "svg.hashsalt": "bisam"}):
        drawn = Figure(figsize=(4.8, 3.9), layout="constrained")
        axes = drawn.subplots()
        _draw(axes, rows, title)
        handles, labels = axes.get_legend_handles_labels()
        drawn.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=7)
        out = io.StringIO()
        drawn.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def _draw(axes: Axes, rows: list[Contestant], title: str) -> None:
    """Draw SGD's line, and each cheaper contestant with its interval in the colour of its kind."""
    plain = sorted(
        (row.passes, row.to_sgd.difference if row.to_sgd.differences else 0.0) for row in rows if _plain(row)
    )
    axes.plot(*zip(*plain, strict=True), color="0.5", marker="s", markersize=4, label="SGD, and for longer")
    for kind, colour in KINDS.items():
        mine = [row for row in rows if not _plain(row) and _kind(row) == kind and (row.passes < 1.8 or kind == SAM)]
        middle = np.array([row.to_sgd.difference for row in mine])
        ends = np.array([(row.to_sgd.low, row.to_sgd.high) for row in mine]).reshape(-1, 2)
        lengths = np.nan_to_num([middle - ends[:, 0], ends[:, 1] - middle])
        places = [row.passes for row in mine]
        axes.errorbar(places, middle, lengths, fmt="o", color=colour, markersize=4, elinewidth=0.5, label=kind)
    named = [row for row in rows if not _plain(row) and _kind(row) != BOUND and (row.passes < 1.8 or _kind(row) == SAM)]
    axes.margins(x=0.15)
    low, high = axes.get_ylim()
    written: list[tuple[float, float]] = []
    for row in sorted(named, key=lambda row: row.to_sgd.difference):
        height = row.to_sgd.difference
        for x, y in written:  # no name on another one
            if abs(x - row.passes) < 0.25 and abs(y - height) < 0.035 * (high - low):
                height = y + 0.035 * (high - low)
        written.append((row.passes, height))
        words = row.name.replace("tailsam@", "").replace("every@", "every ").replace(" epochs", "")
        axes.text(row.passes + 0.015, height, words, fontsize=6.5, va="bottom")
    axes.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set(xlabel="passes, as a multiple of SGD's", ylabel="points above SGD")
    axes.set_title(title, fontsize="medium")


def _plain(row: Contestant) -> bool:
    return bool(row.stored["method"] == "sgd")


def _kind(row: Contestant) -> str:
    """Return the kind of a contestant that is not SGD."""
    for start, kind in zip(("bisam", "tailsam"), KINDS, strict=False):
        if row.name.startswith(start):
            return kind
    return SAM if row.stored["method"] == "sam" else "other methods"


BOUND, SAM = "under BiSAM's bound", "SAM, and for shorter"
#: Colour of each kind of contestant.
KINDS = {BOUND: "tab:red", "TailSAM": "tab:orange", SAM: "tab:blue", "other methods": "tab:green"}
