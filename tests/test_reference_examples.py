"""The API reference: each entry has an example, and each example runs."""

import doctest
import importlib
import inspect

import pytest
import torch
from torch import nn

import bisam
from bisam import SAM

MODULES = [
    "",
    "bounds",
    "compat",
    "functional",
    "loops",
    "testing",
    "ascent",
    "cadence",
    "choice",
    "combine",
    "direction",
]
MODULES += [
    "direction",
    "geometry",
    "losses.functional_sam",
    "radius",
    "integrations.lightning",
    "integrations.transformers",
]
#: What the step calls, and users do not; and whose example stands on its page.
WITHOUT = {"combine_", "combine_plain_", "step_after_", "SharpnessAware"}


def entries():
    """Every class and function of the reference once, by its full name."""
    found = {}
    for name in MODULES:
        module = importlib.import_module(f"bisam.{name}".rstrip("."))
        for member in module.__all__:
            item = getattr(module, member)
            if (inspect.isclass(item) or inspect.isfunction(item)) and member not in WITHOUT:
                found.setdefault(item, f"{module.__name__}.{member}")
    return {name: item for item, name in found.items()}


ENTRIES = entries()


def reader(item):
    """What an example may use beside the names of its own module: the reader's model, base, data, and an optimizer."""
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    x, y = torch.randn(2, 4), torch.tensor([0, 2])
    names = vars(importlib.import_module(item.__module__)) | {"torch": torch, "nn": nn, "bisam": bisam}
    opt = SAM(torch.optim.SGD(model.parameters(), lr=0.1), model=model)
    return names | {"model": model, "base": base, "x": x, "y": y, "loader": [(x, y), (x, y)], "opt": opt}


@pytest.mark.parametrize("name", ENTRIES)
def test_an_entry_has_an_example_and_it_runs(name):
    item = ENTRIES[name]
    tests = doctest.DocTestFinder().find(item, name, globs=reader(item))
    assert any(test.name == name and test.examples for test in tests), f"{name} has no example"
    said = []
    for test in tests:
        doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test, out=said.append)
    assert said == [], "".join(said)
    assert "Example:" in item.__doc__, "the site shows it first"
