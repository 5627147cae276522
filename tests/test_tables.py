"""The generated tables: what the pages say is what the code and the suite say, today."""

import importlib.util
from pathlib import Path

import pytest
import torch

from bisam import METHODS, LowerBoundLoss
from bisam.testing import Net, batches
from tests.conftest import DESELECTED
from tests.makers import UNDER_EACH_ASCENT, each_ascent

ROOT = Path(__file__).parent.parent
PARTIAL = "the matrix tells of the whole suite, and this session has collected a part of it"


@pytest.fixture(scope="module")
def tables():
    spec = importlib.util.spec_from_file_location("docs_tables", ROOT / "docs" / "tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def complain(pages, tables):
    return f"run {tables.COMMAND}: {', '.join(str(page.relative_to(ROOT)) for page in pages)} is not what it should be"


def test_the_tables_of_methods_are_what_the_code_says(tables):
    pages = tables.stale(tables.of_the_code())
    assert not pages, complain(pages, tables)


def test_the_tables_of_costs_are_what_was_measured(tables):
    pages = tables.stale(tables.of_the_measurements())
    assert not pages, complain(pages, tables)


def test_the_matrix_is_what_the_suite_collects(tables, request):
    files = {Path(item.path) for item in request.session.items}
    parts = any("::" in argument for argument in request.config.args)
    if parts or request.config.stash.get(DESELECTED, False) or {*(ROOT / "tests").rglob("test_*.py")} - files:
        pytest.skip(PARTIAL)
    pages = tables.stale(tables.of_the_tests(request.session.items))
    assert not pages, complain(pages, tables)


@pytest.mark.parametrize("case", [case for case in UNDER_EACH_ASCENT if case != ("bisam", True)], ids=each_ascent)
def test_the_passes_told_are_those_that_are_taken(case):
    """What an entry says in words, what the estimator says in numbers, and what a training counts."""
    name, foreign = case
    method, model = METHODS[name], Net()
    told, _, third = method.passes.removesuffix(")").partition(" (")
    options = {"ascent": LowerBoundLoss(), "third_pass": bool(third)} if foreign else {}
    options |= {"total_steps": 20, "tail": 0.2} if name == "tailsam" else {}
    base = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    opt, counts = method(base, model=model, **options), []
    for x, y in batches(20):
        counts.append(0)
        for objective in opt.passes():
            counts[-1] += 1
            objective(model(x), y).backward()
        opt.step()
        opt.zero_grad()
    cost = opt.estimator.passes_per_step
    told = third if foreign and third else told
    assert (min(counts), max(counts)) == (
        min(cost.plain, cost.sharp) if cost.mean != cost.sharp else cost.sharp,
        cost.sharp,
    )
    if " to " in told:
        assert (cost.mean, told) == (None, f"{min(counts)} to {max(counts)}")
    else:
        assert sum(counts) / 20 == pytest.approx(eval(told, {"k": 5, "tail": 0.2})) == pytest.approx(cost.mean)


def test_a_stale_page_is_noticed_and_mended(tables, monkeypatch, tmp_path, capsys):
    """The script as a whole, over a copy of the pages in which one number is wrong."""
    for page in tables.PAGES:
        (tmp_path / page).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / page).write_text((ROOT / page).read_text())
    readme = tmp_path / "README.md"
    right = readme.read_text()
    readme.write_text(right.replace("| 1 + 1/k (1 + 2/k) |", "| 1 |"))
    assert readme.read_text() != right
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    monkeypatch.setattr(tables, "collected", list)
    monkeypatch.setattr(tables, "of_the_tests", lambda items: {})
    assert tables.main(["--check"]) == 1
    assert capsys.readouterr().out == f"README.md is stale: run {tables.COMMAND}\n"
    assert tables.main([]) == 0
    assert readme.read_text() == right
    assert tables.main(["--check"]) == 0


class Item:
    def __init__(self, nodeid, *args, **kwargs):
        self.nodeid, self.mark = nodeid, pytest.mark.matrix(*args, **kwargs).mark

    def get_closest_marker(self, name):
        return self.mark


def test_a_test_counts_where_its_mark_and_its_id_say(tables, monkeypatch):
    monkeypatch.setattr(tables, "COLUMNS", {"one": "asks this", "two": "asks that"})
    items = [
        Item("a.py::test[sam-2]", "one"),
        Item("a.py::test[SAM-3]", "one"),
        Item("a.py::test[bisam-log+msam-4]", "one"),
        Item("b.py::test[sam-every]", "two", row="combinations"),
        Item("b.py::test[5]", "two"),
        Item("b.py::test", "two"),
    ]
    found = tables.of_the_tests(items)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in found["matrix"].splitlines()]
    assert ["`SAM`", "2", ""] in rows
    assert ["`ASAM`", "", ""] in rows
    assert ["combinations", "1", "1"] in rows
    assert "| **two** | asks that | `b.py` |" in found["columns"]
    for wrong, words in [
        ([Item("a.py::test[sam]", "three")], "none of one, two"),
        ([Item("a.py::test[sam-asam]", "one")], "asam and sam"),
        (items[:3], r"marked matrix\('two'\)"),
    ]:
        with pytest.raises(ValueError, match=words):
            tables.of_the_tests(wrong)


def test_what_the_script_cannot_place_is_an_error(tables):
    with pytest.raises(ValueError, match="'lost' stands on no page"):
        tables.stale({"lost": "| |"})
