"""The versions that CI saw: names and versions alone, within what pyproject.toml allows, used where README says."""

import re
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement

tomllib = pytest.importorskip("tomllib")  # Python 3.11

ROOT = Path(__file__).parent.parent
LINES = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]


def test_it_has_names_and_versions_and_nothing_else():
    for line in LINES:
        assert re.fullmatch(r'[a-z0-9][a-z0-9-]*==[0-9][0-9a-z.]* ; python_version == "3\.\d+"', line), line
    names = [line.partition("==")[0] for line in LINES]
    assert sorted(set(names)) == names
    assert len(names) > 100


def test_the_script_writes_such_a_file():
    done = subprocess.run(
        [sys.executable, str(ROOT / ".ci" / "constraints.py")], capture_output=True, text=True, check=True
    )
    head, *lines = done.stdout.splitlines()
    assert head.startswith("# ")
    names = [line.partition("==")[0] for line in lines]
    assert {"torch", "pydantic", "pytest"} <= set(names)
    assert "bisam" not in names
    assert not re.search(r"://|@|--hash|\+", "".join(lines))


def test_what_ci_saw_is_what_the_extras_allow():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = map(Requirement, chain(project["dependencies"], *project["optional-dependencies"].values()))
    seen = {line.partition("==")[0]: line.partition("==")[2].partition(" ")[0] for line in LINES}
    checked = [r for r in wanted if r.name.replace("_", "-").lower() in seen]
    assert len(checked) > 30
    for requirement in checked:
        assert requirement.specifier.contains(seen[requirement.name.replace("_", "-").lower()]), requirement


def test_the_commands_use_it_and_the_oldest_versions_do_not():
    makefile = (ROOT / "Makefile").read_text()
    rules = {rule.partition(":")[0].strip(): rule for rule in re.split(r"\n(?=\S+:)", makefile)}
    assert "--constraint constraints.txt --editable '.[dev]'" in rules["$(READY)"]
    for name in ("demo", "test"):
        assert rules[name].startswith(f"{name}: $(READY)")
    assert "constraints" not in rules["oldest"]
    assert "pip install -c constraints.txt -e '.[dev]'" in (ROOT / "README.md").read_text()
