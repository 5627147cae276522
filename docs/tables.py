"""Writes the tables of the pages: what methods are, from the code, how they are tested, from the tests, what they cost.

    python docs/tables.py            # write them: make tables
    python docs/tables.py --check    # change nothing; exit 1 where a page is stale

A table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``, in a docstring between ``.. table: NAME`` and
``.. end``, in code between ``# table: NAME`` and ``# end``. A test counts in the matrix if it, or its module, is marked
``matrix(COLUMN)`` and its id names a method.
"""

import argparse
import contextlib
import inspect
import io
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from bisam import METHODS, Method
from bisam.testing import BATTERY
from bisam_lab.bench.result import quartiles
from bisam_lab.registry.measures import MEASURES
from bisam_lab.run.signatures import SIGNATURES

sys.path.insert(0, str(Path(__file__).parent))
import audit_tables as audits
import beyond_tables as beyond
import frontier_tables as frontier
import results_tables as results
import scaling_tables as scaling
import survives_tables as survives

__all__ = ["COMMAND", "choices", "fill", "main", "of_the_code", "of_the_measurements", "of_the_tests", "stale"]

ROOT = Path(__file__).resolve().parent.parent
PAGES = (
    *("README.md", "docs/methods.md", "docs/cost.md", "docs/frontier.md", "docs/which-method.md", "docs/results.md"),
    "docs/scaling.md",
    *("docs/beyond/finetuning.md", "docs/beyond/graphs.md", "docs/beyond/reinforcement.md"),
    *("docs/lab/audit.md", "docs/lab/bench.md", "docs/lab/signatures.md", "docs/lab/survives.md"),
    *("src/bisam/__init__.py", "src/bisam/recommendation.py"),
)
COMMAND = "make tables (or python docs/tables.py)"
COMBINATIONS = "combinations"
#: What `make bench` has measured, section by section.
RESULTS = ROOT / "results" / "targets.json"
SECTIONS = ("objective", "step", "startup", "stacking")
#: The columns of the matrix, and what the tests below each of them ask.
COLUMNS = {
    "textbook": "a hundred steps in float64 equal a version written from the paper in plain tensors, also climbing the "
    "lower bound; combinations: seven steps",
    "battery": "`bisam.testing.BATTERY`, the checks below",
    "closure": "`opt.step(closure)` takes the steps of the loop, to the bit",
    "scaled loss": "ever new scales change nothing, and an overflow in either pass does what `GradScaler` promises",
    "bf16": "one `torch.autocast` region around both passes does not hide the perturbation",
    "compile": "a model under `torch.compile(fullgraph=True)` takes the same steps",
    "DDP": "two processes stay equal to the bit, memory included, climbing either objective",
    "FSDP2": "two processes with sharded weights take the steps of one with whole weights (ESAM and SSAM draw a mask "
    "for each shard: there it is only that the processes agree); sharded checkpoints of five of them resume to the bit",
    "Trainer": "the Hugging Face `Trainer` is the plain loop, to the bit (label smoothing: to rounding)",
    "Lightning": "Lightning's `Trainer` is the plain loop, to the bit",
    "Fabric": "the loop around Fabric is the plain loop, to the bit",
    "Accelerate": "the loop around Accelerate is the plain loop, to the bit",
    "timm": "the loop around timm's optimizers, scaler and clipping is the plain loop",
    "torchvision": "the loop as its script scales, clips and mixes is the plain loop",
    "laboratory": "a run of the command `bisam` has the losses (to 1e-5) and the validation accuracy of a raw loop",
    "compat": "`bisam.compat.SAM`, the older calling convention, for the two methods that it has",
}

_UNREAD = "not read"
#: What papers and their authors' code start from, by method: the paper, the code, and where in the code that stands.
ELSEWHERE = {
    "SAM": ("rho 0.05; CIFAR-100: 0.1 or 0.2", _UNREAD, ""),
    "ASAM": (
        "rho 0.5; CIFAR-100: 1; eta 0.01",
        "class: rho 0.5, eta 0.01; run script: rho 0.5, **eta 0**",
        "`SamsungLabs/ASAM`: `asam.py`, `example_cifar.py`",
    ),
    "BiSAM": (
        "rho 0.05; tanh: alpha 0.1, mu 10; -log: mu 1",
        "-log, rho 0.05, alpha 0.1, **mu 1 for both bounds**",
        "`LIONS-EPFL/BiSAM`: `args.py`",
    ),
    "ESAM": (
        "rho 0.05 to 0.2, beta 0.5 to 0.6, gamma 0.5 (of `SharpestSamples`)",
        "arguments: rho 0.05, **beta 1, gamma 1** (which is SAM); run script: beta 0.6, gamma 0.5, rho 0.05 "
        "(ResNet-18), beta 0.5, rho 0.1 (wide) and 0.2 (pyramid); **draws whole tensors**: here `unit='tensor'`",
        "`dydjw9/Efficient_SAM`: `utils/options.py`, `run.sh`, `utils/Esam.py`",
    ),
    "GSAM": (
        "alpha 0.4 (ViT)",
        "CIFAR-10 example: alpha 0.2, rho 2 from end to end, in ASAM's ball (`adaptive=True`)",
        "`juntang-zhuang/GSAM`: `example/train.py`",
    ),
    "WSAM": (
        "rho 0.05 to 0.2, gamma 0.9",
        "rho 0.05, gamma 0.9, **decoupled**, no clipping; an older version: gamma 0.88, clipped at norm 1",
        "`intelligent-machine-learning/dlrover`: `atorch/atorch/optimizers/wsam.py`",
    ),
    "LookSAM": (
        "k 5 to 10, alpha 0.7",
        "no code of the authors read; two unofficial ones: **rho 0.1**, k 10 and 5, alpha 0.7",
        "`rollovd/LookSAM`, `Leminhbinh0209/LookSAM`: `README.md`",
    ),
    "FriendlySAM": (
        "rho 0.2, sigma 1, lambda 0.9 (here `decay`)",
        "run script: rho 0.2, sigma 1, **lambda 0.6**, and 0.95 in other versions of it; arguments: rho 0.1, sigma 1, "
        "lambda 0.95",
        "`nblt/F-SAM`: `run.sh`, `train.py`",
    ),
    "VaSSO": (
        "rho 0.05, theta 0.9",
        "arguments: rho 0.05, theta 0.9; run script (CIFAR-100, WRN-28-10): rho 0.2, theta 0.9",
        "`BingcongLi/VaSSO`: `configs/defaulf_cfg.py`, `train.sh`",
    ),
    "SAMON": (
        "rho 0.5",
        "**ASAM-ON**, rho 0.5, eta 0: here `inner=ScaledBall(0.0)`; README: rho 10 (CIFAR-100, WRN-28-10)",
        "`mueller-mp/SAM-ON`: `train.py`, `README.md`",
    ),
    "FisherSAM": ("rho 0.1, eta 1", _UNREAD, ""),
    "SSAM": (
        "rho 0.1, sparsity 0.5",
        "arguments: **rho 0.05, sparsity 0.2**, a new mask every 5 epochs, drop rate 0.5, 1024 samples; README "
        "(SSAM-F): rho 0.1, sparsity 0.5, every epoch, 16 samples",
        "`Mi-Peng/Sparse-Sharpness-Aware-Minimization`: `configs/defaulf_cfg.py`, `README.md`",
    ),
    "AESAM": ("not checked", _UNREAD, ""),
    "TailSAM": ("the last 10 to 60 % of the steps", _UNREAD, ""),
    "MomentumSAM": (
        "rho 3",
        "README, CIFAR-100 and ImageNet: rho 3; class: rho 0.3; configuration for ImageNet, ResNet-50: rho 0.3",
        "`MarlonBecker/MSAM`: `README.md`, `optimizer/msam.py`, `configs/ImageNet_ResNet50.ini`",
    ),
    "AsyncSAM": (_UNREAD, _UNREAD, ""),
    "USAM": (_UNREAD, _UNREAD, ""),
    "LESAM": (_UNREAD, _UNREAD, ""),
    "StableSAM": (_UNREAD, _UNREAD, ""),
    "FunctionalSAM": (_UNREAD, _UNREAD, ""),
}


def _chooses(method: Method, quote: str, leave_out: str = "") -> str:
    """Return its choices in words, each class in quotes."""
    chosen = [f"{axis} {quote}{name}{quote}" for axis, name in choices(method).items() if axis != leave_out]
    return ", ".join(chosen) or "none"


def choices(method: Method) -> dict[str, str]:
    """Return the class of each choice that a method makes, by axis."""
    numbers = {"total_steps": 100} if "total_steps" in method.numbers else {}
    made = {axis: type(method.choose(axis, **numbers)).__name__ for axis in method.choices}
    return made if method.couple is None else {**made, "descent": "OutputGradient"}


def _link(method: Method) -> str:
    return f"[{method.arxiv}](https://arxiv.org/abs/{method.arxiv})"


def of_the_code() -> dict[str, str]:
    """Return the tables that the code alone tells, by name."""
    every = list(METHODS.values())
    brief = [[f"`{m.name}`", _chooses(m, "`"), m.passes, _link(m)] for m in every]
    whole = [
        [
            f"`{m.name}`",
            f"{m.idea} ({m.source}, {_link(m)})",
            _chooses(m, "`"),
            ", ".join(f"`{name}={default!r}`" for name, default in m.numbers.items()),
            f"{m.rho:g}",
            m.passes,
        ]
        for m in every
    ]
    plain = [
        [
            m.name,
            f"``{choices(m)['ascent']}``" if "ascent" in choices(m) else "descent objective",
            _chooses(m, "``", leave_out="ascent"),
            m.passes,
        ]
        for m in every
    ]
    checks = [[f"`{check.__name__}`", _first_line(check)] for check in BATTERY]
    elsewhere = [[f"`{m.name}`", _defaults(m), *ELSEWHERE[m.name]] for m in every]
    return {
        "methods": _markdown(["method", "chooses", "passes a step", "arXiv"], brief),
        "methods-in-full": _markdown(["method", "idea", "chooses", "its own numbers", "rho", "passes a step"], whole),
        "methods-in-rst": _rst(["method", "what it climbs", "its other choices", "passes a step"], plain),
        "defaults": _markdown(["method", "here", "paper", "authors' code", "where"], elsewhere),
        "battery": _markdown(["check", "what must hold"], checks),
        "signatures": _signatures(),
        "measures": _measures(),
    }


def _measures() -> str:
    rows = [[f"`{m.name}`", m.what, "; ".join(q.label for q in m.quantities)] for m in MEASURES.values()]
    return _markdown(["measure", "tells", "numbers"], rows)


def _signatures() -> str:
    rows = [[f"[{s.name}](#{s.name})", s.what, s.recognised, s.remedy] for s in SIGNATURES.values()]
    return _markdown(["signature", "the run shows", "recognised", "write"], rows)


def _defaults(method: Method) -> str:
    numbers = {"rho": method.rho, **{name: value for name, value in method.numbers.items() if value is not None}}
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in numbers.items()
    )


def _first_line(documented: object) -> str:
    return " ".join((inspect.getdoc(documented) or "").split("\n\n")[0].split()).replace("``", "`").rstrip(".")


def of_the_tests(items: Iterable[pytest.Item]) -> dict[str, str]:
    """Return the tables that the collected tests tell, by name.

    Raises:
        ValueError: a column that is not among ``COLUMNS``, one that no test fills, or an id that names two methods.
    """
    count: defaultdict[tuple[str, str], int] = defaultdict(int)
    files: defaultdict[str, set[str]] = defaultdict(set)
    for item in items:
        mark = item.get_closest_marker("matrix")
        if mark is None:
            continue
        column, row = _cell(item.nodeid, *mark.args, **mark.kwargs)
        if row is not None:
            count[row, column] += 1
            files[column].add(item.nodeid.partition("::")[0])
    empty = [column for column in COLUMNS if not files[column]]
    if empty:
        raise ValueError(
            f"no test whose id names a method is marked matrix({empty[0]!r}): mark one, or drop the column"
        )
    rows = {**{name: f"`{method.name}`" for name, method in METHODS.items()}, COMBINATIONS: COMBINATIONS}
    matrix = [[words, *(str(count[row, column] or "") for column in COLUMNS)] for row, words in rows.items()]
    legend = [[f"**{c}**", asked, ", ".join(f"`{f}`" for f in sorted(files[c]))] for c, asked in COLUMNS.items()]
    return {
        "matrix": _markdown(["", *COLUMNS], matrix, numbers=True),
        "columns": _markdown(["column", "what is asked", "where"], legend),
    }


def _cell(test: str, column: str, row: str | None = None) -> tuple[str, str | None]:
    """Tell where a test counts: its row is the method that its id names, ``combinations`` for ``bisam+asam``."""
    if column not in COLUMNS:
        raise ValueError(f"{test} is marked matrix({column!r}), which is none of {', '.join(COLUMNS)}")
    if row is not None:
        return column, row
    identity = test.partition("[")[2].rstrip("]").lower()
    named = METHODS.keys() & set(re.split(r"[-+]", identity))
    if named and "+" in identity:
        return column, COMBINATIONS
    if len(named) > 1:
        raise ValueError(f"{test} is marked matrix({column!r}), and its id names {' and '.join(sorted(named))}")
    return column, next(iter(named), None)


def of_the_measurements() -> dict[str, str]:
    """Return a table for each section of the targets, and the one of README.md."""
    sections = json.loads(RESULTS.read_text())["sections"]
    tables = {f"targets-{name}": _section(sections[name]) for name in SECTIONS}
    numbers = [f"    {_as_code(row)}," for row in frontier.measured()]
    drawn = [page.tables() for page in (frontier, results, survives, beyond, audits, scaling)]
    found = {name: table for page in drawn for name, table in page.items()}
    return {**tables, "cost": _steps(sections["step"]), **found, "measured": "\n".join(numbers)}


def _as_code(row: tuple[object, ...]) -> str:
    """Return a row as our formatter writes it."""
    return f"({', '.join(json.dumps(value) for value in row)})"


def _section(section: Mapping[str, Any]) -> str:
    rows = []
    for target in section["targets"]:
        low, middle, high = quartiles(target["ratios"])
        spread = f"[{low:.2f}, {high:.2f}], n = {len(target['ratios'])}" if len(target["ratios"]) > 1 else "counted"
        holds = "holds" if round(middle, 2) <= target["at_most"] else f"**does not hold** {target['why']}".rstrip()
        rows.append([target["name"], target["beside"], f"{target['at_most']:g}", f"{middle:.2f}", spread, holds])
    head = ["what", "beside", "at most", "median", "quartiles, rounds", ""]
    return f"{section['date']}, {section['machine']}.\n\n{_markdown(head, rows)}"


def _steps(section: Mapping[str, Any]) -> str:
    """SAM and BiSAM by workload, beside two plain passes and a step of the base optimizer, and beside the peers."""
    found: dict[str, dict[str, str]] = {}
    for target in section["targets"]:
        workload, _, what = target["name"].partition(": ")
        low, middle, high = quartiles(target["ratios"])
        column = "peer" if what.startswith("sam beside") else what
        if column in ("sam", "bisam"):
            found.setdefault(workload, {})[column] = f"{middle:.2f} [{low:.2f}, {high:.2f}]"
        elif column == "peer":
            found[workload][column] = f"{middle:.2f} ({what.removeprefix('sam beside ')})"
    rows = [[name, row["sam"], row["bisam"], row["peer"]] for name, row in found.items() if "bisam" in row]
    return _markdown(["step of", "SAM", "BiSAM", "SAM beside the fastest other"], rows)


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: bool = False) -> str:
    rule = ["---", *["---:" if numbers else "---"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def _rst(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    rule = ["=" * width for width in widths]
    lines = (rule, head, rule, *rows, rule)
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def fill(text: str, tables: Mapping[str, str]) -> str:
    """Return ``text`` with its tables replaced by those of the same name in ``tables``; others stay."""

    def replaced(found: re.Match[str]) -> str:
        space = "\n" if found[1].startswith("#") else "\n\n"
        return f"{found[1]}{space}{tables[found[2]]}{space}{found[3]}" if found[2] in tables else found[0]

    begin, end = r"(?:<!--|\.\.|#) table: ([\w-]+)(?: -->)?", r" *(?:<!--|\.\.|#) end"
    return re.sub(rf"({begin})\n.*?({end})", replaced, text, flags=re.DOTALL)


def stale(tables: Mapping[str, str]) -> dict[Path, str]:
    """Return what the pages whose tables differ from these would have to be.

    Raises:
        ValueError: a table that stands on no page.
    """
    pages = {ROOT / page: (ROOT / page).read_text() for page in PAGES}
    for name in tables:
        if not any(re.search(rf"table: {name}(?: -->)?\n", text) for text in pages.values()):
            raise ValueError(f"the table {name!r} stands on no page: put its markers on one of {', '.join(PAGES)}")
    return {page: new for page, text in pages.items() if (new := fill(text, tables)) != text}


class _Collected:
    """A plugin of pytest that keeps what was collected."""

    items: Sequence[pytest.Item] = ()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.items = session.items


def collected() -> Sequence[pytest.Item]:
    """Collect the test suite.

    Raises:
        RuntimeError: that failed.
    """
    plugin, said = _Collected(), io.StringIO()
    with contextlib.redirect_stdout(said):
        code = pytest.main(["--collect-only", "-q", "--rootdir", str(ROOT), str(ROOT / "tests")], plugins=[plugin])
    if code != pytest.ExitCode.OK:
        raise RuntimeError(f"the tests could not be collected:\n{said.getvalue()}")
    return plugin.items


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the tables, or with ``--check`` only compare; return the exit status."""
    parser = argparse.ArgumentParser(description="Write the generated tables of the pages.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 where a page is stale")
    check = parser.parse_args(arguments).check
    pages = stale({**of_the_code(), **of_the_measurements(), **of_the_tests(collected())})
    for page, text in pages.items():
        print(f"{page.relative_to(ROOT)} {f'is stale: run {COMMAND}' if check else 'is written anew'}")
        if not check:
            page.write_text(text)
    return int(check and bool(pages))


if __name__ == "__main__":
    sys.exit(main())
