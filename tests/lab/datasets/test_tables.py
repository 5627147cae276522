"""Texts of one's own, in TSV and parquet files."""

import pytest

from bisam_lab.data import load_splits
from bisam_lab.datasets import Sample
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
        (None, None, r"no .*train\.csv, \.tsv or \.parquet"),
        ("text\tlabel\na\t0\nb\t1", None, r"class 0 has 1 texts.*three or more"),
        ("text\ta\nb\t0", "text\tlabel", r"train.tsv has no column label: it has text, a"),
        ("txt\tlabel\na\t0\nb\t1", "txt\tlabel\na\t0", r"no column text: it has txt, label\. Rename it"),
        ("text\tlabel\na\t0\nb\t0", "text\tlabel\na\t0", "two labels or more, and train has 0"),
        ("text\tlabel\na\t0\nb\t1", "text\tlabel\na\t2", r"test.tsv, example 1: label '2' is none of 0, 1"),
        ("text\tlabel\na\t0\nb", "text\tlabel\na\t0", "line 3: 1 columns where its header has 2"),
    ],
)
def test_what_is_wrong_with_own_texts_is_one_sentence(tmp_path, train, test, words):
    for split, content in (("train", train), ("test", test)):
        if content is not None:
            (tmp_path / f"{split}.tsv").write_text(content)
    with pytest.raises(RecipeError, match=words):
        load_splits(DataRecipe(name=f"text:{tmp_path}"), None, 0)


def test_a_csv_is_split_as_pictures_are(tmp_path):
    """A fifth of each class, the same each time, is the test set, and validation holds each class in proportion."""
    rows = [f'"{word}, ""quoted""\nand {k}",{label}' for k in range(20) for word, label in (("a", "no"), ("b", "yes"))]
    path = tmp_path / "mine.csv"
    path.write_text("\n".join(["text,label", *rows]) + "\n")
    found = read_tables(path)
    assert (len(found.train), len(found.test), found.classes) == (32, 8, ("no", "yes"))
    assert [[s.label for s in part].count(0) for part in (found.train, found.test)] == [16, 4]
    assert Sample((f'a, "quoted"\nand {0}',), 0) in [*found.train, *found.test]
    assert read_tables(path) == found
    assert not {s.texts for s in found.train} & {s.texts for s in found.test}
    splits = load_splits(DataRecipe(name=f"text:{path}", validation_size=4), None, 3)
    assert splits.validation.labels.tolist().count(0) == 2


@pytest.mark.parametrize(
    ("header", "row", "texts"),
    [
        ("Review;Sentiment", "so fine;{}", "so fine"),  # a German Excel's, with the names of a set of films
        ("id\ttext\tlabel\ttarget", "7\tso fine\t{}\t1.5", "so fine"),  # `text` and `label` come first
        ("\ufefftext,label", "so fine,{}", "so fine"),
    ],
)
def test_columns_and_separators_that_leave_no_doubt(tmp_path, header, row, texts):
    path = tmp_path / "mine.csv"
    path.write_text("\n".join([header, *(row.format(label) for label in ("good", "bad") * 5), ""]), encoding="utf-8")
    found = read_tables(path)
    assert {s.texts for s in found.train} == {(texts,)}
    assert found.classes == ("bad", "good")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty: its first line must name the columns"),
        (b"text,label\na,0,1\n", "line 2: 3 columns where its header has 2"),
        (b'text,label\n"a,0\n', "is no CSV file"),
        (b"text,label\n\xe4,0\n", "byte 0xe4 at position 11\\): save it as UTF-8"),
        (b"text,text\na,0\n", "two columns have one name"),
        (b"review,comment,label\na,b,0\n", "which of review and comment is it"),
        (b"text,label\na,\nb,1\n", "example 1 has no label"),
    ],
)
def test_what_is_wrong_with_a_csv_is_one_sentence(tmp_path, content, words):
    (tmp_path / "mine.csv").write_bytes(content)
    with pytest.raises(RecipeError, match=words):
        read_tables(tmp_path / "mine.csv")
    (tmp_path / "mine.doc").touch()
    with pytest.raises(RecipeError, match=r"mine\.doc is none of \.parquet, \.tsv, \.csv"):
        read_tables(tmp_path / "mine.doc")
