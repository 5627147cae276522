"""The battery catches bugs in the core: two of them here, all of them in ``benchmarks/mutants.py``."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("mutants", ROOT / "benchmarks" / "mutants.py")
mutants = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(mutants)


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda mutant: mutant.what)
def test_the_line_to_be_broken_is_there_and_the_page_has_the_bug(mutant):
    assert mutant.line > 0
    (row,) = [
        line for line in (ROOT / "docs/reference/testing.md").read_text().splitlines() if f"| {mutant.what} |" in line
    ]
    assert row.startswith(f"| `{mutant.file}`")
    assert "`check_" in row


def test_a_line_that_is_gone_is_told():
    gone = mutants.MUTANTS[0]._replace(old="no such text")
    with pytest.raises(ValueError, match=r"'no such text' stands 0 times in src/bisam/_vectors/bucket\.py"):
        gone.line  # noqa: B018 - reads the file


@pytest.mark.parametrize(
    ("what", "method", "check"),
    [
        ("a group's radius counts once, not squared", "sam", "check_group_radii"),
        ("an early exit commits the memory", "friendlysam", "check_interrupted_loops"),
    ],
)
def test_the_battery_catches_it(what, method, check):
    (mutant,) = [mutant for mutant in mutants.MUTANTS if mutant.what == what]
    assert mutants.judge(mutant, [method])[check] == [method]


def test_without_a_mutant_the_copy_passes():
    assert mutants.judge(None, ["sam"]) == {}
