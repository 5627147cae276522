"""What the evidence says: tables and sentences from results/evidence.json, large-radii.json and ranking.json."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from frontier_tables import TITLES

from bisam_lab.run.result import RunResult
from bisam_lab.statistics import Comparison, compare

__all__ = ["MARGIN", "Row", "Table", "evidence", "tables"]

ROOT = Path(__file__).resolve().parent.parent
FRONTIER = ROOT / "results" / "frontier.json"
RESULTS = ROOT / "results" / "evidence.json"
REGISTERED = ROOT / "results" / "large-radii.json"
RANKING = ROOT / "results" / "ranking.json"
#: Points that do not matter, stated before the runs.
MARGIN = 0.3
SETS = {"digits": "Digits", "fashion-mnist": "Fashion-MNIST", "cifar10": "CIFAR-10"}
LEVEL = 0.05
#: Passes, in SGD's, up to which a training is cheaper than SAM's.
CHEAP = 1.8
#: What costs half of SAM, or as much without its second pass: where it is as good, SAM is not worth its pass.
_CHEAPER = {
    "sgd": "SGD, at half the cost,",
    "sgd, 2 x epochs": "SGD, at equal cost,",
    "momentumsam": "MomentumSAM, with one pass,",
}


@dataclass(frozen=True)
class Row:
    """A contestant of a setting: its stored numbers, and its difference to SAM."""

    stored: Mapping[str, Any]
    to_sam: Comparison

    @property
    def name(self) -> str:
        """As it stands in the table."""
        return _name(self.stored)

    @property
    def bound(self) -> bool:
        """Whether its adversary climbs a lower bound at SAM's cost: a cheaper form differs by its form, too."""
        return str(self.stored["method"]).startswith("bisam") and float(self.stored["passes"]) > CHEAP

    @property
    def better(self) -> bool:
        """Whether it is above SAM after Holm's correction."""
        return self.to_sam.p_adjusted < LEVEL and self.to_sam.difference > 0

    @property
    def worse(self) -> bool:
        """Whether it is below SAM after Holm's correction."""
        return self.to_sam.p_adjusted < LEVEL and self.to_sam.difference < 0

    @property
    def equivalent(self) -> bool:
        """Whether it is shown to be SAM within the margin."""
        found = self.to_sam.equivalence
        return found is not None and found.shown


@dataclass(frozen=True)
class Table:
    """A setting: how it was trained, and who met there.

    Attributes:
        name: for the command.
        stored: recipe, budgets, and a row for each contestant.
        page: the page that shows it whole; empty where that is this one.
    """

    name: str
    stored: Mapping[str, Any]
    page: str = ""

    @cached_property
    def rows(self) -> list[Row]:
        """Every contestant, compared with SAM over all the others of this setting."""
        runs = [
            RunResult(_name(row), seed, "ok", score, math.nan, 0, 1.0, 1.0)
            for row in self.stored["rows"]
            for seed, score in enumerate(row["scores"])
        ]
        found = {one.method: one for one in compare(runs, "sam", margin=MARGIN)}
        return [Row(row, found[_name(row)]) for row in self.stored["rows"]]

    @property
    def whole(self) -> bool:
        """Whether every contestant has been tested."""
        return len(self.stored["rows"]) == int(self.stored["contestants"])

    @property
    def data(self) -> str:
        """Name of the data set."""
        return SETS[self.stored["recipe"]["data"]["name"]]

    @property
    def labels(self) -> str:
        """What is wrong with the training labels."""
        data = self.stored["recipe"]["data"]
        if data["noise"].startswith("cifar-n:"):
            return f"human labels ({data['noise'].removeprefix('cifar-n:')})"
        return f"{100 * data['label_noise']:g} % wrong" if data["label_noise"] else "clean labels"

    @property
    def norm(self) -> str:
        """Whether the network has BatchNorm."""
        norm = self.stored["recipe"]["model"]["options"].get("norm", "batch")
        return "with BatchNorm" if norm == "batch" else "without norms"

    @property
    def title(self) -> str:
        """Data, labels and network."""
        if self.page:
            return TITLES[self.name]
        kind = next((f", {kind}" for kind in ("ablation", "equality") if self.name.endswith(kind)), "")
        return f"{self.data}, {self.labels}, {self.norm}{kind}"


def _name(row: Mapping[str, Any]) -> str:
    longer = "" if row["epochs"] == 1 else f", {row['epochs']:g} x epochs"
    return f"{row['method']}{longer}" + ("" if row["like"] is None else f", tuned as {row['like']}")


def evidence() -> list[Table]:
    """Return the settings in which every contestant has been tested, rate and radius tuned."""
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return [table for name, stored in kept.items() if (table := Table(name, stored)).whole]


def frontier() -> list[Table]:
    """Return the settings of the frontier, in which the radius alone was tuned, or SGD's rate, in the same form."""
    kept = json.loads(FRONTIER.read_text())
    return [Table(name, _in_this_form(kept[name]), "frontier.md") for name in TITLES if name in kept]


def _in_this_form(stored: Mapping[str, Any]) -> dict[str, Any]:
    rows = [{**row, "like": None} for row in stored["rows"]]
    return {**stored, "rows": rows, "contestants": len(rows), "seeds": len(rows[0]["scores"])}


def tables() -> dict[str, str]:
    """Return what stands on the page of the results and on the README, by name."""
    found, earlier = evidence(), frontier()
    return {
        "results-answer": answer([*found, *earlier]),
        "results-summary": _summary([*found, *earlier]),
        "results-settings": "\n\n".join(_setting(table) for table in found) or "None has ended yet.",
        "results-against": _against([*found, *earlier]),
        "results-registered": _registered(),
        "results-ranking": _ranking(),
        "verdict": answer([*found, *earlier]),
    }


def answer(found: Sequence[Table]) -> str:
    """Return the answer in two sentences, counted from the results."""
    pairs = [(table, row) for table in found for row in table.rows if row.bound]
    better = [(table, row) for table, row in pairs if row.better]
    worse = sum(row.worse for _, row in pairs)
    sets = list(dict.fromkeys(table.data for table in found))
    seeds = sorted({table.stored["seeds"] for table in found})
    within = f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f"{seeds[0]}"
    first = (
        f"**Does BiSAM beat SAM?** After equal tuning, on {within} fresh paired seeds in "
        f"{_count(len(found), 'setting')} ({_list(sets)}), a lower bound at SAM's cost was better than SAM in "
        f"{len(better)} of {len(pairs)} comparisons and worse in {worse}, after Holm's correction within each setting."
    )
    return f"{first} {_named(better)}"


def _named(better: Sequence[tuple[Table, Row]]) -> str:
    """Name a bound that wins on two data sets, or say that there is none."""
    won: dict[str, set[str]] = {}
    for table, row in better:
        won.setdefault(row.stored["method"], set()).add(table.data)
    two = [name for name, sets in won.items() if len(sets) > 1]
    if two:
        return f"Better on two data sets: {_list([f'`{name}`' for name in two])}."
    return "No bound was better on two data sets, so none is recommended over SAM for accuracy."


def _summary(found: Sequence[Table]) -> str:
    head = ["setting", "n", "SGD at equal cost minus SAM", "bounds above SAM", "below", "equal within 0.3 points"]
    lines = [f"| {' | '.join(head)} |", f"|---|---:|---:|{'---|' * 3}"]
    for table in found:
        bounds = [row for row in table.rows if row.bound]
        longer = next((row for row in table.rows if _name(row.stored) == "sgd, 2 x epochs"), None)
        cells = [
            f"[{table.title}]({table.page or f'#{_anchor(table.title)}'})",
            str(table.stored["seeds"]),
            "" if longer is None else _difference(longer.to_sam),
            *(_names(bounds, kind) for kind in ("better", "worse", "equivalent")),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _names(rows: Sequence[Row], kind: str) -> str:
    return ", ".join(row.name for row in rows if getattr(row, kind)) or "none"


def _anchor(title: str) -> str:
    """Return the anchor of a heading, as the site makes it."""
    kept = "".join(letter for letter in title.lower() if letter.isalnum() or letter in " -_")
    return "-".join(kept.split())


def _setting(table: Table) -> str:
    head = ["method", "rate", "rho", "trials", "test accuracy %", "minus SAM", "p (Holm)", "p (within 0.3)", ""]
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 2)}---|"]
    lines += [f"| {' | '.join(_cells(row))} |" for row in table.rows]
    return "\n".join([f"### {table.title}", "", _caption(table), "", *lines, "", *_command(table)])


def _cells(row: Row) -> list[str]:
    stored, found = row.stored, row.to_sam
    rate, rho = (f"{stored[key]:g}{' (edge)' if key in stored['at_edge'] else ''}" for key in ("rate", "rho"))
    failed = f", {stored['failed']} failed" if stored["failed"] else ""
    equal = found.equivalence
    return [
        row.name,
        rate,
        "" if stored["method"] == "sgd" else rho,
        str(len(stored["tried"])) if stored["like"] is None else "",
        f"{found.mean:.2f} ± {found.std:.2f}{failed}",
        _difference(found),
        _p(found.p_adjusted),
        "" if equal is None else _p(equal.p_adjusted),
        found.conclusion,
    ]


def _difference(found: Comparison) -> str:
    if not found.differences or math.isnan(found.low):
        return "" if not any(found.differences) else f"{found.difference:+.2f}"
    return f"{found.difference:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"


def _p(p: float) -> str:
    return "" if math.isnan(p) else "< 0.0001" if p < 1e-4 else f"{p:.4f}"


def _caption(table: Table) -> str:
    recipe, stored = table.stored["recipe"], table.stored
    data, model, train = recipe["data"], recipe["model"], recipe["train"]
    size = f" at {data['image_size']} x {data['image_size']} pixels" if data["image_size"] else ""
    images = "all training images" if data["train_size"] is None else f"{data['train_size']} training images"
    tuned = sum(len(row["tried"]) for row in stored["rows"])
    return (
        f"{stored['date']}: {images}{size}, {model['name']}, {train['epochs']} epochs, batch {train['batch_size']}. "
        f"Tuning: {tuned} trials in all, {stored['tuning_seeds']} seeds each, {stored['finals']['points']} points of "
        f"each contestant on {stored['finals']['seeds']}. Test: n = {stored['seeds']} fresh seeds. "
        f"{stored['hardware']['processor']}, torch {stored['hardware']['torch']}."
    )


def _command(table: Table) -> Iterator[str]:
    where = "" if table.data == "Digits" else " --data-dir data"
    yield f"    python benchmarks/evidence.py {table.name}{where}"


def _against(found: Sequence[Table]) -> str:
    """Return, as a list, what speaks against a bound, and against SAM."""
    lines = []
    for table in found:
        for row in table.rows:
            if row.bound and row.worse:
                lines.append(f"- {table.title}: {row.name} is below SAM, {_difference(row.to_sam)} points.")
            elif row.name in _CHEAPER and not row.worse:
                what, how = _CHEAPER[row.name], "above" if row.better else "not shown to be below"
                lines.append(f"- {table.title}: {what} is {how} SAM, {_difference(row.to_sam)} points.")
    return "\n".join(lines) or "Nothing yet."


def _registered() -> str:
    """Return the hypotheses that were stated beforehand, and their outcomes."""
    if not REGISTERED.exists():
        return "It has not been run yet."
    stored = json.loads(REGISTERED.read_text())
    scores = {(one["variant"], row["method"]): row for one in stored["outcomes"] for row in one["rows"]}
    head = ["stated", "outcome", "bisam-log", "sam", "difference", "p (Holm)", "n"]
    lines = [f"| {' | '.join(head)} |", f"|---|---|{'---:|' * 5}"]
    for one in stored["hypotheses"]:
        interval = f"{one['difference']:+.2f} [{one['low']:+.2f}, {one['high']:+.2f}]"
        rows = [scores[one["variant"], method] for method in ("bisam-log", "sam")]
        means = " | ".join(f"{row['mean']:.2f} ± {row['std']:.2f}" for row in rows)
        lines.append(f"| {one['says']} | **{one['decision']}** | {means} | {interval} | {_p(one['p'])} | {one['n']} |")
    return "\n".join(lines)


def _ranking() -> str:
    """Return whether accuracy follows the rise of held-out error, and the methods by it."""
    if not RANKING.exists():
        return "It has not been run yet."
    settings = json.loads(RANKING.read_text())
    head = ["setting", "outcome", "Spearman, held-out error", "Spearman, the batch's error", "seeds"]
    lines = [f"| {' | '.join(head)} |", "|---|---|---:|---:|---:|"]
    for name, told in settings.items():
        both = [_correlation(told[f"rise of {whose} error"]) for whose in ("held-out", "the batch's")]
        lines.append(f"| {name} | **{told['outcome']}** | {' | '.join(both)} | {told['seeds']} |")
    return "\n".join([*lines, *(line for name, told in settings.items() for line in _by_rise(name, told))])


def _by_rise(setting: str, told: Mapping[str, Any]) -> Iterator[str]:
    """Return a setting's methods, by the rise of held-out error."""
    yield from ("", f"{setting}, rho {told['rho']:g}, {told['processor']}, torch {told['torch']}, {told['date']}:", "")
    yield "| method | rise of held-out error, points | of the batch's | test accuracy % |"
    yield "|---|---:|---:|---:|"
    methods = told["methods"]
    for name in sorted(methods, key=lambda name: -methods[name]["rise_error_held_out"]):
        held_out, batch = (methods[name][f"rise_error_{where}"] for where in ("held_out", "batch"))
        scores = methods[name]["accuracy"]
        yield f"| {name} | {held_out:+.2f} | {batch:+.2f} | {mean(scores):.2f} ± {stdev(scores):.2f} |"


def _correlation(found: Mapping[str, float]) -> str:
    return f"{found['spearman']:+.2f} [{found['low']:+.2f}, {found['high']:+.2f}]"


def _count(n: int, word: str) -> str:
    return f"{n} {word}{'' if n == 1 else 's'}"


def _list(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1] if words else "none"
