"""Throw recipes and files that nobody meant at the laboratory: each is taken, or refused in short lines, and at once.

    python benchmarks/fuzz.py                   # 3,000 overrides, and 300 of each kind of file
    python benchmarks/fuzz.py --overrides 30000 --files 3000 --seed 7

It prints every input that ended in another error than a refusal, in a line that is too long, or after too long a time,
and leaves with code 1 if there was one.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from bisam_lab.recipe import RecipeError, load, variant
from bisam_lab.recipe.schema import Recipe
from bisam_lab.report.reading import recipe_of
from bisam_lab.run.checkpoint import CheckpointError, read, write
from bisam_lab.run.result import Epoch, Run, RunResult
from bisam_lab.study.files import UnreadableError, read_budget, read_result, read_results
from bisam_lab.study.layout import check_schema

__all__ = ["CASES", "files", "overrides", "troubles"]

#: Characters of a line, and seconds of an input.
LONGEST, SLOWEST = 200, 5.0
#: An input: its name, and what reads it.
Case = tuple[str, Callable[[], object]]
_REFUSALS = (RecipeError, UnreadableError, CheckpointError, FileNotFoundError)

_VALUES = [
    "", "null", "~", "true", "no", "0", "-0", "-1", "1", "2", "0.5", "1e-3", "1e400", "-1e400", ".nan", ".inf", "-.inf",
    "0x10", "0o17", "0b1", "1_000", "1:30", "2001-01-01", "2001-99-99", "2001-01-01 25:00:00", "9" * 30, "9" * 5000,
    "[]", "{}", "[1]", "{a: 1}", "{1: 2}", "{[1]: 2}", "[[[]]]", "[" * 3000, "{" * 3000, "[" * 30 + "]" * 30, "- " * 50,
    "!!bool x", "!!int x", "!!float x", "!!null x", "!!binary x", "!!set [a]", "!!omap [a]", "!!pairs [a]", "!x y",
    "!!timestamp x", "!!python/name:os.system", "!!str 1", "&a [*a]", "*a", "&a 1", "<<", "{<<: 1}", "? x", "@", "%",
    '"\\0"', '"\\ud800"', '"\\n"', "\x00", "\ud800", "\x1b[31m", "\u202e", "\uff11", "é" * 99, "x" * 9999, " ", "\t",
    "..", "../../up", "/tmp/up", "a/b", "a\\b", "~", "-", "sgd", "sam", "digits", "cpu", "cosine", "auto", "os:system",
    "sam@rho=0.1", "sam@rho=0.1@rho=0.2", "[sam@rho=0.1,sam@rho=0.10]", "[sgd,sgd]", "[sam+asam]", "sam@", "resnet-9",
    "wrn-28-0", "resnet-99999999998", "folder:", "folder:/", "text:x", "glue:", "timm:x", "hf:x", "file.py:x", "x.py:y",
]  # fmt: skip
_KEYS = [
    "",
    ".",
    "x",
    "train",
    "lr",
    "methods",
    "data.name",
    "smoke",
    "variants.a",
    "é",
    "\ud800",
    "a" * 300,
    "0",
    "__class__",
]


def _fields() -> list[str]:
    parts = {name: field.annotation for name, field in Recipe.model_fields.items()}
    inner = [f"{name}.{key}" for name, part in parts.items() for key in getattr(part, "model_fields", {})]
    deeper = ["model.options.width", "model.options.x.y", "sharpness.radii.sam", "sharpness.options.looksam.k"]
    return [*parts, *inner, *deeper, "variants.a", "train.optimizer_options.betas"]


def overrides(count: int, rng: random.Random) -> Iterator[Case]:
    """Yield overrides of the demo's recipe."""
    fields = _fields()
    for _ in range(count):
        key = rng.choice(fields if rng.random() < 0.9 else _KEYS)
        if rng.random() < 0.1:
            key += "." + rng.choice([*_KEYS, *fields])
        value = rng.choice(_VALUES) if rng.random() < 0.8 else f"[{rng.choice(_VALUES)}, {rng.choice(_VALUES)}]"
        if rng.random() < 0.1 and value:
            at = rng.randrange(len(value))
            value = value[:at] + rng.choice("[]{}:,'\"&*!|>%@`\\\x00\ud800 \n") + value[at:]
        text = f"{key}={value}" if rng.random() < 0.98 else value
        yield text, lambda text=text: load("digits", [text]).to_yaml()  # type: ignore[misc]


def files(count: int, rng: random.Random, folder: Path) -> Iterator[Case]:
    """Yield files with a value replaced, or with bytes changed: recipes, results, budgets, layouts, checkpoints."""
    for number in range(count):
        for kind, case in CASES.items():
            place = folder / f"{kind}-{number}"
            place.mkdir()
            yield f"{kind} {number}", case(place, rng)


def _recipe(folder: Path, rng: random.Random) -> Callable[[], object]:
    path = folder / "recipe.yaml"
    path.write_bytes(_spoilt(load("digits").to_yaml().encode(), rng))

    def look() -> None:
        try:
            variant(load(path), "")
        finally:
            recipe_of(folder)

    return look


def _result(folder: Path, rng: random.Random) -> Callable[[], object]:
    (folder / "recipe.yaml").write_text(load("digits").to_yaml())
    history = [Epoch(number, 1.0, 0.5) for number in (1, 2, 3)]
    result = RunResult("sgd", 0, "ok", 0.5, 0.5, 1, 1.0, 1.0, history=history)
    place = folder / "runs" / "sgd" / "seed-0"
    place.mkdir(parents=True)
    _write_json(place / "result.json", result.to_dict(), rng)

    def look() -> None:
        read_results(folder)
        read_result(place, Run("", 0, "sgd"))

    return look


def _budget(folder: Path, rng: random.Random) -> Callable[[], object]:
    budget = {"unit": "passes", "shares": {"": {"epochs": 2, "total": 4.0, "costs": {"sgd": 1.0, "sam": 2.0}}}}
    _write_json(folder / "budget.json", budget, rng)
    return lambda: read_budget(folder)


def _layout(folder: Path, rng: random.Random) -> Callable[[], object]:
    _write_json(folder / "study.json", {"schema": 2}, rng)
    return lambda: check_schema(folder)


def _checkpoint(folder: Path, rng: random.Random) -> Callable[[], object]:
    path = folder / "last.pt"
    write(path, {"model": {"w": torch.zeros(3)}, "history": [{"epoch": 1}], "seed": 0})
    path.write_bytes(_spoilt(path.read_bytes(), rng))
    return lambda: read(path)


#: What writes an input of each kind and returns its reader.
CASES = {"recipe": _recipe, "result": _result, "budget": _budget, "layout": _layout, "checkpoint": _checkpoint}


def _write_json(path: Path, values: Any, rng: random.Random) -> None:
    for _ in range(rng.randrange(1, 3)):
        _replace(values, rng)
    content = json.dumps(values).encode()
    path.write_bytes(_spoilt(content, rng) if rng.random() < 0.5 else content)


def _replace(values: Any, rng: random.Random) -> None:
    """Replace one value, anywhere inside."""
    strange = [None, True, -1, 0, 10**9, 10**30, 1e308, float("nan"), "", "x", "\ud800", "../..", [], {}, [1], {"a": 1}]
    while True:
        key = rng.choice(list(values)) if isinstance(values, dict) else rng.randrange(len(values))
        if not (isinstance(values[key], dict | list) and values[key]) or rng.random() < 0.3:
            values[key] = rng.choice(strange)
            return
        values = values[key]


def _spoilt(content: bytes, rng: random.Random) -> bytes:
    """Return the bytes with some of them cut off, repeated, or changed."""
    at, end = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    strange = [
        b"",
        b"\x00",
        b"\xff",
        b"\n",
        b"[" * 3000,
        b"9" * 5000,
        b"{",
        b'"',
        b": ",
        b"&a [*a]",
        b"!!bool x",
        b"2001-99-99",
    ]
    return rng.choice([content[:at], content[:at] + rng.choice(strange) + content[end:], content[:end] + content[at:]])


def troubles(cases: Iterator[Case]) -> Iterator[str]:
    """Yield a line for each input that ended as none may."""
    for name, look in cases:
        began, said = time.perf_counter(), ""
        try:
            look()
        except _REFUSALS as error:
            said = str(error)
        except Exception as error:  # noqa: BLE001 this is what is looked for
            yield f"{name!a:.80}: {type(error).__name__}: {error!a:.100}"
        longest = max(map(len, said.splitlines()), default=0)
        if longest > LONGEST and "checkpoint" not in name:
            yield f"{name!a:.80}: a line of {longest} characters: {said!a:.200}"
        if any("\ud800" <= character <= "\udfff" for character in said):
            yield f"{name!a:.80}: its message cannot be printed"
        if (seconds := time.perf_counter() - began) > SLOWEST:
            yield f"{name!a:.80}: took {seconds:.1f} s"


def main() -> None:
    """Throw them, and print what went wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for word, count in (("--overrides", 3000), ("--files", 300), ("--seed", 0)):
        parser.add_argument(word, type=int, default=count)
    given = parser.parse_args()
    rng, found = random.Random(given.seed), 0
    with tempfile.TemporaryDirectory() as folder:
        for cases in (overrides(given.overrides, rng), files(given.files, rng, Path(folder))):
            for line in troubles(cases):
                found += 1
                print(line)
    print(f"{given.overrides} overrides, {given.files} files of each of {len(CASES)} kinds: {found} went wrong")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
