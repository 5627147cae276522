"""Runs what the documents print, and the example programs, as a reader would."""

import re
import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def run_page(page, namespace=None, *, blocks=1):
    """Run all Python blocks of a page in order, in one namespace, and return it; ``blocks``: how many there must be."""
    found = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert len(found) >= blocks
    namespace = {"__name__": "page"} if namespace is None else namespace
    for block in found:
        exec(compile(block, page, "exec"), namespace)
    return namespace


def run_example(name, monkeypatch, *arguments):
    """Run ``examples/NAME.py`` with these arguments."""
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
    runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")
