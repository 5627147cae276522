"""The generated tables: what the pages say is what the code and the suite say, today."""

import importlib.util
from pathlib import Path

import pytest
import torch

from bisam import METHODS, LowerBoundLoss
from bisam.testing import Net, batches
from tests.conftest import DESELECTED

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


def test_the_matrix_is_what_the_suite_collects(tables, request):
    files = {Path(item.path) for item in request.session.items}
    parts = any("::" in argument for argument in request.config.args)
    if parts or request.config.stash.get(DESELECTED, False) or {*(ROOT / "tests").rglob("test_*.py")} - files:
        pytest.skip(PARTIAL)
    pages = tables.stale(tables.of_the_tests(request.session.items))
    assert not pages, complain(pages, tables)


@pytest.mark.parametrize("foreign", [False, True], ids=["cross-entropy", "lower-bound"])
@pytest.mark.parametrize("name", METHODS)
def test_the_passes_told_are_those_that_are_taken(tables, name, foreign):
    facts, model = tables.Facts.of(METHODS[name]), Net()
    choices = {"ascent": LowerBoundLoss(), "third_pass": facts.third is not None} if foreign else {}
    opt = METHODS[name](torch.optim.SGD(model.parameters(), lr=0.05), model=model, **choices)
    counts = []
    for x, y in batches(10):
        counts.append(0)
        for loss in opt.passes():
            counts[-1] += 1
            loss(model(x), y).backward()
        opt.step()
        opt.zero_grad()
    told = (foreign and facts.third) or facts.passes
    if "to" in told:
        low, high = map(int, told.split(" to "))
        assert set(counts) <= {low, high}
        assert max(counts) == high
    else:
        assert sum(counts) / 10 == pytest.approx(eval(told, {"k": 5}))


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


def test_what_the_script_cannot_place_or_tell_is_an_error(tables):
    with pytest.raises(ValueError, match="'lost' stands on no page"):
        tables.stale({"lost": "| |"})

    class Mine(METHODS["sam"]):
        """Mine, all mine."""

    with pytest.raises(ValueError, match="Mine's docstring must begin"):
        tables.Facts.of(Mine)

    class Late(METHODS["sam"]):
        """Late (Nobody, Nowhere 2020, arXiv 2001.00001): perturbs late."""

        def __init__(self, base, **choices):
            from bisam.cadence import Window

            super().__init__(base, **{"cadence": Window(1), **choices})

    with pytest.raises(ValueError, match="Late has cadence=Window"):
        tables.Facts.of(Late)
