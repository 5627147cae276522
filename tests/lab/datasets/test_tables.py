"""Texts of one's own, in TSV and parquet files."""

import pytest

from bisam_lab.data import load_splits
from bisam_lab.datasets.tables import read_tables
from bisam_lab.recipe import DataRecipe, RecipeError

pytest.importorskip("transformers")
pq = pytest.importorskip("pyarrow.parquet")
pa = pytest.importorskip("pyarrow")


def test_labels_are_ordered_by_number_or_by_letter(tmp_path):
    for labels, order in ((["10", "9", "2"], ("2", "9", "10")), (["no", "yes", "a"], ("a", "no", "yes"))):
        for split in ("train", "test"):
            (tmp_path / f"{split}.tsv").write_text("\n".join(["label\ttext", *(f"{k}\tt" for k in labels)]))
        found = read_tables(tmp_path)
        assert found.classes == order
        assert [order[sample.label] for sample in found.train] == labels


def test_own_parquet(tmp_path):
    for split in ("train", "test"):
        pq.write_table(pa.table({"text": ["a", "b", "c"], "label": [0, 1, 0]}), tmp_path / f"{split}.parquet")
    assert [sample.label for sample in read_tables(tmp_path).test] == [0, 1, 0]


@pytest.mark.parametrize(
    ("train", "test", "words"),
    [
        (None, None, r"no .*train\.tsv and no train\.parquet"),
        ("text\tlabel\na\t0\nb\t1", None, r"no .*test\.tsv"),
        ("text\ta\nb\t0", "text\tlabel", "train has no column label"),
        ("txt\tlabel\na\t0\nb\t1", "txt\tlabel\na\t0", "no column text; it has txt, label"),
        ("text\tlabel\na\t0\nb\t0", "text\tlabel\na\t0", "two labels or more, and train has 0"),
        ("text\tlabel\na\t0\nb\t1", "text\tlabel\na\t2", "test, example 1: label '2' is none of 0, 1"),
        ("text\tlabel\na\t0\nb", "text\tlabel\na\t0", "line 3: 1 columns where its header has 2"),
    ],
)
def test_what_is_wrong_with_own_texts_is_one_sentence(tmp_path, train, test, words):
    for split, content in (("train", train), ("test", test)):
        if content is not None:
            (tmp_path / f"{split}.tsv").write_text(content)
    with pytest.raises(RecipeError, match=words):
        load_splits(DataRecipe(name=f"text:{tmp_path}"), None, 0)
