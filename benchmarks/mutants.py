"""What the battery notices: lines of the core are broken, one at a time, and the checks that catch it are named.

    python benchmarks/mutants.py [--only 3,7] [--jobs 4] [--write docs/reference/testing.md]

Each mutant is a copy of the package with one text replaced. A process of its own runs every check of
``bisam.testing.BATTERY`` on six methods with that copy. A check that raises has caught the mutant. Exits with 1 if a
mutant survives, and refuses to start where the text to be replaced is not in its file exactly once.
"""

import argparse
import datetime
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

import bisam
from bisam.testing import BATTERY, Make

PACKAGE = Path(bisam.__file__).parent
METHODS = ("sam", "asam", "bisam", "gsam", "friendlysam", "looksam")
#: Seconds after which a mutant counts as caught: a check that hangs is no pass.
PATIENCE = 600


class Mutant(NamedTuple):
    """One bug.

    Attributes:
        what: the bug, in words.
        file: in the package.
        old: the text that is replaced, which stands in the file once.
        new: what replaces it.
    """

    what: str
    file: str
    old: str
    new: str

    @property
    def line(self) -> int:
        """The line on which the old text begins.

        Raises:
            ValueError: the text does not stand in the file exactly once.
        """
        text = (PACKAGE / self.file).read_text()
        if text.count(self.old) != 1:
            raise ValueError(
                f"mutant {self.what!r}: {self.old!r} stands {text.count(self.old)} times in src/bisam/{self.file} "
                "instead of once: the core has changed, write the mutant anew in benchmarks/mutants.py"
            )
        return text[: text.index(self.old)].count("\n") + 1


MUTANTS = (
    Mutant(
        "a group's radius counts once, not squared",
        "_vectors/bucket.py",
        "bucket.keep_in(total / self._relative(bucket))",
        "bucket.keep_in(total)",
    ),
    Mutant(
        "on a device a group's radius counts once",
        "_vectors/bucket.py",
        "unit = common / self._relative(bucket)",
        "unit = common",
    ),
    Mutant(
        "no common unit: squares of small gradients vanish",
        "_vectors/bucket.py",
        "if not is_moderate(total):",
        "if False:",
    ),
    Mutant(
        "on a device there is no common unit",
        "_vectors/bucket.py",
        "common = torch.where(size > 0, size, 1)",
        "common = torch.ones_like(size)",
    ),
    Mutant(
        "the host moves the weights along a gradient that is not finite",
        "_step/climb.py",
        "perturbed = 0 < norm < math.inf and math.isfinite(float(size))",
        "perturbed = norm != 0",
    ),
    Mutant(
        "a combination sees the gradient at w as the climb has left it",
        "_vectors/bucket.py",
        "if self.lent:",
        "if False:",
    ),
    Mutant(
        "eps is multiplied by 0 where nothing is to move, which keeps NaN",
        "_step/climb.py",
        "foreach.mul_(foreach.as_integers(bucket.tensors), perturbed)",
        "foreach.mul_(bucket.tensors, perturbed)",
    ),
    Mutant(
        "eps itself is not judged, and 0/0 counts as a perturbation",
        "_step/climb.py",
        " & torch.isfinite(norm) & (norm > 0)",
        "",
    ),
    Mutant(
        "weights come back by subtraction",
        "_step/climb.py",
        "foreach.Snapshot([weight for bucket in buckets for weight in bucket.weights])",
        "type('', (), {'restore': lambda self: [foreach.add_(b.weights, b.tensors) for b in buckets]})()",
    ),
    Mutant("autocast keeps its copies of w", "_step/climb.py", "    torch.clear_autocast_cache()", "    pass"),
    Mutant("the loss's scale stays in", "_step/estimator.py", "unscale=self.needs_scale", "unscale=False"),
    Mutant("accumulated gradients join the climb", "_step/estimator.py", "saved.carried.set_aside()", "pass"),
    Mutant("buffers stay as the last pass left them", "_step/saved.py", "self.forward.restore", "bool"),
    Mutant(
        "an early exit leaves the weights at w + eps",
        "_step/saved.py",
        "if self.weights is not None:",
        "if self.weights is not None and self.finished:",
    ),
    Mutant("an early exit leaves its gradients", "_step/saved.py", "if not self.finished:", "if False:"),
    Mutant(
        "autocast keeps its copies of w + eps", "_step/saved.py", "stack.callback(torch.clear_autocast_cache)", "pass"
    ),
    Mutant("accumulated gradients are lost", "_step/saved.py", "is not None).add_(copy)", "is not None).copy_(copy)"),
    Mutant("an early exit commits the memory", "_step/context.py", "self.memory.discard()", "self.memory.commit()"),
    Mutant("eps is added to the gradient", "_step/context.py", "carried.give_back()", "carried.aside = False"),
    Mutant("the norm is that of the first group", "_vectors/part.py", "if len(norms) == 1:", "if norms:"),
    Mutant(
        "each group has a ball of its own",
        "_vectors/bucket.py",
        "divisor = float(length)",
        "divisor = float(self.norm())",
    ),
    Mutant(
        "a norm is kept although its vector has changed",
        "_vectors/part.py",
        "known.versions == list(map(version_of, self._entries))",
        "True",
    ),
    Mutant("steps are not counted", "_vectors/memory.py", "group[STEPS] += 1", "pass"),
    Mutant("memory is lost on resume", "_vectors/memory.py", ".get(PREFIX + name)", ".get(name)"),
    Mutant(
        "a gradient that is not finite is remembered",
        "_vectors/memory.py",
        "good = vector.is_finite() if finite is None else finite",
        "good = vector.is_finite() | True",
    ),
    Mutant(
        "-0.0 comes back as 0.0",
        "_vectors/foreach.py",
        "_in_place(torch._foreach_copy_, live, split(row, live))",
        "_in_place(torch._foreach_copy_, live, [copy + 0.0 for copy in split(row, live)])",
    ),
    Mutant(
        "T is computed in place, in the weights",
        "_vectors/foreach.py",
        "sizes = list(torch._foreach_abs(tensors))",
        "torch._foreach_abs_(sizes := tensors)",
    ),
    Mutant(
        "eta grows with the radius", "geometry/ellipsoids.py", "(weights, self.eta)", "(weights, self.eta * bucket.rho)"
    ),
)


def battery(methods: Sequence[str]) -> dict[str, list[str]]:
    """Run the battery of the package that is imported; return for each check that fails the methods that fail it."""
    failed: dict[str, list[str]] = {}
    for name in methods:
        for check in BATTERY:
            try:
                check(_maker(name))
            except Exception:  # noqa: BLE001 - a mutant may raise anything
                failed.setdefault(check.__name__, []).append(name)
    return failed


def _maker(name: str) -> Make:
    def make(model: nn.Module) -> bisam.SharpnessAware:
        base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
        return bisam.METHODS[name](base, model=model)

    return make


def judge(mutant: Mutant | None, methods: Sequence[str] = METHODS) -> dict[str, list[str]]:
    """Run the battery in a process of its own, on a copy of the package with the mutant in it.

    Args:
        mutant: what to break; None for nothing.
        methods: names in :data:`bisam.METHODS`.

    Returns:
        The checks that fail, each with the methods that fail it.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "bisam")
        shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
        if mutant is not None:
            file = copy / mutant.file
            file.write_text(file.read_text().replace(mutant.old, mutant.new))
        try:
            done = subprocess.run(
                [sys.executable, "-W", "ignore", __file__, "--judge", ",".join(methods)],
                env={**os.environ, "PYTHONPATH": folder, "OMP_NUM_THREADS": "1"},
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return {f"no end after {PATIENCE} s": list(methods)}
    package, _, failed = done.stdout.rstrip().rpartition("\n")
    if done.returncode or package != str(copy):
        raise RuntimeError(f"the copy in {copy} was not judged: {done.stdout}{done.stderr}")
    found: dict[str, list[str]] = json.loads(failed)
    return found


def row(mutant: Mutant, failed: dict[str, list[str]]) -> str:
    """Return the mutant's row of the table. Where not all methods fail a check, they are named."""
    caught = [
        f"`{check}`" if len(methods) == len(METHODS) else f"`{check}` ({', '.join(methods)})"
        for check, methods in failed.items()
    ]
    return f"| `{mutant.file}`, {mutant.line} | {mutant.what} | {', '.join(caught) or '**nothing**'} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="numbers of mutants, from 1, with commas between")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time")
    parser.add_argument("--write", type=Path, help="page whose table is replaced, between its marks")
    parser.add_argument("--judge", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.judge:
        print(PACKAGE, json.dumps(battery(args.judge.split(","))), sep="\n")
        return
    chosen = MUTANTS if args.only is None else [MUTANTS[int(number) - 1] for number in args.only.split(",")]
    for mutant in MUTANTS:
        mutant.line  # noqa: B018 - raises where the text is gone
    if failed := judge(None):
        raise SystemExit(f"the battery fails without any mutant: {failed}")
    rows = []
    with ThreadPoolExecutor(args.jobs) as pool:
        for mutant, failed in zip(chosen, pool.map(judge, chosen), strict=True):
            rows.append(row(mutant, failed))
            print(rows[-1], flush=True)
    caught = sum("**nothing**" not in line for line in rows)
    today = datetime.date.today()
    head = f"{caught} of {len(rows)} mutants are caught ({today}, torch {torch.__version__}, {', '.join(METHODS)})."
    print(f"\n{head}")
    if args.write:
        table = "\n".join(["| file and line | bug | checks that catch it |", "| --- | --- | --- |", *rows])
        before, mark, rest = args.write.read_text().partition("<!-- mutants -->\n")
        _, end, after = rest.partition("<!-- end -->")
        args.write.write_text(f"{before}{mark}\n{head}\n\n{table}\n\n{end}{after}")
    raise SystemExit(caught < len(rows))


if __name__ == "__main__":
    main()
