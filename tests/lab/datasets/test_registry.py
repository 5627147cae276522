"""The entries of the data sets."""

from dataclasses import replace
from pathlib import Path

import pytest

from bisam_lab.datasets import DataSet, registry, sets
from bisam_lab.datasets.registry import HUMAN_NOISE, HUMAN_SETS, PREFIXES, SETS, check_name
from bisam_lab.errors import RecipeError


@pytest.mark.parametrize("entry", SETS.values(), ids=SETS)
def test_an_entry_says_what_whose_and_where(entry):
    assert entry.what
    assert entry.licence
    assert entry.home
    assert entry.read is None or all(count > 0 for count in entry.counts)
    assert entry.partners is None or len(entry.partners) == entry.counts[2]
    if entry.name != "digits":
        assert entry.inside
        assert bool(entry.archives()) != bool(entry.fetch)


def test_a_new_file_is_a_new_data_set(tmp_path, monkeypatch):
    """One file, and nothing else: the names, the command and the readers find it."""
    (tmp_path / "blobs.py").write_text(
        "from bisam_lab.datasets import DataSet\n"
        "ENTRIES = (DataSet('blobs', read=None, what='blobs', licence='MIT', home='here', inside=('blobs.pt',)),)\n"
    )
    monkeypatch.setattr(sets, "__path__", [*sets.__path__, str(tmp_path)])
    assert [entry.name for entry in registry._shipped() if entry.name not in SETS] == ["blobs"]


def test_the_labels_of_people():
    assert HUMAN_SETS == ("cifar10", "cifar100")
    assert tuple(f"cifar-n:{k}" for k in ("clean", "aggre", "rand1", "rand2", "rand3", "worse", "noisy")) == HUMAN_NOISE
    for name in HUMAN_SETS:
        assert SETS[name].human.path in [archive.path for archive in SETS["cifar-n"].archives()]


@pytest.mark.parametrize("name", [*SETS, "folder:pictures", "text:/some/where"])
def test_names(name):
    check_name(name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cifra10", r"did you mean cifar10\?"),
        ("glue:sst3", r"glue:sst3 is none of glue:cola, .*did you mean sst2\?"),
        ("flder:x", r"did you mean folder:x\?"),
        ("folder:", "folder:PATH"),
    ],
)
def test_other_names_are_refused(name, words):
    with pytest.raises(RecipeError, match=words):
        check_name(name)
    assert PREFIXES == ("glue", "folder", "text")


def test_a_set_that_is_not_there(tmp_path):
    entry = DataSet("blobs", read=lambda data_dir: data_dir, inside=("a", "b"))
    with pytest.raises(RecipeError, match=r"data\.name=blobs is read from disk: .*--data-dir \(it must hold a or b\)"):
        entry.load(None)
    with pytest.raises(RecipeError, match=r"holds no a or b: `bisam data fetch blobs"):
        entry.load(tmp_path)
    (tmp_path / "b").touch()
    assert entry.load(tmp_path) == tmp_path
    assert replace(entry, inside=()).load(None) == Path()
    with pytest.raises(RecipeError, match="no examples"):
        replace(entry, read=None).load(tmp_path)
