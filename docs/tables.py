"""Writes the tables of the pages: what each method is, read from the code, and what it is tested with, from the tests.

    python docs/tables.py            # write them: make tables
    python docs/tables.py --check    # change nothing; exit 1 where a page is stale

A table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``, in a docstring between ``.. table: NAME`` and
``.. end``. A test counts in the matrix if it, or its module, is marked ``matrix(COLUMN)`` and its id names a method.
"""

import argparse
import contextlib
import inspect
import io
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from bisam import METHODS, SAM, LowerBoundLoss, SharpnessAware
from bisam.cadence import Always, Decides, Every
from bisam.testing import BATTERY

__all__ = ["COMMAND", "Facts", "fill", "main", "of_the_code", "of_the_tests", "stale"]

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "docs/methods.md", "src/bisam/__init__.py")
COMMAND = "make tables (or python docs/tables.py)"
AXES = ("ascent", "direction", "geometry", "cadence", "combine")
COMBINATIONS = "combinations"
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


@dataclass(frozen=True)
class Facts:
    """What the code says of a method.

    Attributes:
        name: of its class.
        idea: what it does, in words.
        source: authors, venue and year.
        arxiv: number of the paper.
        choices: the class of each choice that SAM does not make, by axis.
        numbers: its own arguments with their defaults.
        rho: default radius.
        passes: forward-backward pairs a step.
        third: the same with ``third_pass=True``, if it needs one under another ascent objective, else None.
    """

    name: str
    idea: str
    source: str
    arxiv: str
    choices: Mapping[str, str]
    numbers: Sequence[str]
    rho: float
    passes: str
    third: str | None

    @classmethod
    def of(cls, method: type[SharpnessAware]) -> "Facts":
        """Read them.

        Raises:
            ValueError: the docstring does not begin ``Name (Authors, Venue Year, arXiv NUMBER): idea.``
        """
        found = re.fullmatch(r"[^(]+\((.+?), arXiv (\d{4}\.\d{5})\): (.+)", _first_line(method))
        if found is None:
            raise ValueError(f"{method.__name__}'s docstring must begin 'Name (Authors, Venue Year, arXiv N): idea.'")
        opt, plain = method(_base()), SAM(_base())
        chosen = {axis: type(getattr(opt.estimator, axis)) for axis in AXES}
        return cls(
            name=method.__name__,
            idea=found[3],
            source=found[1],
            arxiv=found[2],
            choices={a: kind.__name__ for a, kind in chosen.items() if kind is not type(getattr(plain.estimator, a))},
            numbers=_own_arguments(method),
            rho=opt.param_groups[0]["rho"],
            passes=_passes(opt, 2),
            third=_passes(opt, 3) if _needs_third_pass(method) else None,
        )

    @property
    def cost(self) -> str:
        """Passes a step, in brackets those with a third pass."""
        return self.passes if self.third is None else f"{self.passes} ({self.third})"

    @property
    def link(self) -> str:
        """To the paper."""
        return f"[{self.arxiv}](https://arxiv.org/abs/{self.arxiv})"

    def chooses(self, quote: str, leave_out: str = "") -> str:
        """Its choices in words, each class in quotes."""
        chosen = [f"{axis} {quote}{name}{quote}" for axis, name in self.choices.items() if axis != leave_out]
        return ", ".join(chosen) or "none"


def _base() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)


def _own_arguments(method: type[SharpnessAware]) -> list[str]:
    shared = {"self", "choices", *inspect.signature(SharpnessAware.__init__).parameters}
    arguments = inspect.signature(method.__init__).parameters.items()
    return [f"{name}={argument.default!r}" for name, argument in arguments if name not in shared]


def _passes(opt: SharpnessAware, most: int) -> str:
    """What the cadence makes of ``most`` passes on a step that perturbs and one on a step that does not."""
    cadence = opt.estimator.cadence
    if isinstance(cadence, Always):
        return str(most)
    if isinstance(cadence, Every):
        return f"1 + {most - 1}/k"
    if isinstance(cadence, Decides):
        return f"1 to {most}"
    raise ValueError(f"{type(opt).__name__} has cadence={cadence!r}, whose cost docs/tables.py does not know: add it")


def _needs_third_pass(method: type[SharpnessAware]) -> bool:
    try:
        method(_base(), ascent=LowerBoundLoss())
    except ValueError as error:
        if "third_pass=True" not in str(error):
            raise
        return True
    return False


def of_the_code() -> dict[str, str]:
    """Return the tables that the code alone tells, by name."""
    every = [Facts.of(method) for method in METHODS.values()]
    brief = [[f"`{f.name}`", f.chooses("`"), f.cost, f.link] for f in every]
    whole = [
        [
            f"`{f.name}`",
            f"{f.idea} ({f.source}, {f.link})",
            f.chooses("`"),
            ", ".join(f"`{number}`" for number in f.numbers),
            f"{f.rho:g}",
            f.cost,
        ]
        for f in every
    ]
    plain = [
        [
            f.name,
            f"``{f.choices['ascent']}``" if "ascent" in f.choices else "descent objective",
            f.chooses("``", leave_out="ascent"),
            f.cost,
        ]
        for f in every
    ]
    checks = [[f"`{check.__name__}`", _first_line(check)] for check in BATTERY]
    return {
        "methods": _markdown(["method", "chooses", "passes a step", "arXiv"], brief),
        "methods-in-full": _markdown(["method", "idea", "chooses", "its own numbers", "rho", "passes a step"], whole),
        "methods-in-rst": _rst(["method", "what it climbs", "its other choices", "passes a step"], plain),
        "battery": _markdown(["check", "what must hold"], checks),
    }


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
    rows = {**{name: f"`{method.__name__}`" for name, method in METHODS.items()}, COMBINATIONS: COMBINATIONS}
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
        return f"{found[1]}\n\n{tables[found[2]]}\n\n{found[3]}" if found[2] in tables else found[0]

    return re.sub(r"((?:<!--|\.\.) table: ([\w-]+)(?: -->)?)\n.*?((?:<!--|\.\.) end)", replaced, text, flags=re.DOTALL)


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
    pages = stale({**of_the_code(), **of_the_tests(collected())})
    for page, text in pages.items():
        print(f"{page.relative_to(ROOT)} {f'is stale: run {COMMAND}' if check else 'is written anew'}")
        if not check:
            page.write_text(text)
    return int(check and bool(pages))


if __name__ == "__main__":
    sys.exit(main())
