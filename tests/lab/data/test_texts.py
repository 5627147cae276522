"""Texts: GLUE's own files, one's own, and their tokens."""

import pytest
import torch

from bisam_lab.data import load_splits, whole
from bisam_lab.data.tokens import build_tokenizer
from bisam_lab.datasets import Sample
from bisam_lab.datasets.sets.glue import TASKS, read_glue
from bisam_lab.datasets.tables import read_tables
from bisam_lab.recipe import DataRecipe, RecipeError

pytest.importorskip("transformers")
pq = pytest.importorskip("pyarrow.parquet")
pa = pytest.importorskip("pyarrow")

LINES = [f"{('a fine' if k % 2 else 'a dull')} film number {k}\t{k % 2}" for k in range(40)]


@pytest.fixture
def sst2(tmp_path):
    folder = tmp_path / "glue" / "SST-2"
    folder.mkdir(parents=True)
    (folder / "train.tsv").write_text("\n".join(["sentence\tlabel", *LINES]) + "\n")
    (folder / "dev.tsv").write_text("\n".join(["sentence\tlabel", "a fine dull thing\t1", "dull\t0"]) + "\n")
    return tmp_path


def test_a_task_becomes_ids_mask_and_segments(sst2):
    splits = load_splits(DataRecipe(name="glue:sst2", validation_size=8, label_noise=0.25), sst2, 0)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [32, 8, 2]
    assert (splits.classes, splits.shape[0]) == (2, 3)
    x = whole(splits.test).x
    assert x.dtype == torch.int64
    ids, mask, segments = x.unbind(1)
    assert mask.sum(1).tolist()[1] == 3  # [CLS] dull [SEP]
    assert torch.equal(mask.bool(), ids != 0)
    assert segments.sum() == 0
    assert ids.max() < splits.vocabulary
    clean = load_splits(DataRecipe(name="glue:sst2", validation_size=8), sst2, 0)
    assert torch.equal(whole(clean.train).x, whole(splits.train).x)
    assert (clean.train.labels != splits.train.labels).sum() == 8


def test_long_texts_are_cut_and_pairs_have_segments(tmp_path):
    for split in ("train", "test"):
        rows = [f"one two three {k}\tfour five\t{'yes' if k % 2 else 'no'}" for k in range(12)]
        (tmp_path / f"{split}.tsv").write_text("\n".join(["text1\ttext2\tlabel", *rows]))
    splits = load_splits(DataRecipe(name=f"text:{tmp_path}", max_length=7), None, 0)
    assert splits.shape == (3, 7)
    _, mask, segments = whole(splits.train).x.unbind(1)
    assert (mask == 1).all()
    assert (segments.sum(1) > 0).all()
    assert whole(splits.test).y.tolist() == [0, 1] * 6


def test_labels_are_ordered_by_number_or_by_letter(tmp_path):
    for labels, order in ((["10", "9", "2"], ("2", "9", "10")), (["no", "yes", "a"], ("a", "no", "yes"))):
        for split in ("train", "test"):
            (tmp_path / f"{split}.tsv").write_text("\n".join(["label\ttext", *(f"{k}\tt" for k in labels)]))
        found = read_tables(tmp_path)
        assert found.classes == order
        assert [order[sample.label] for sample in found.train] == labels


def test_parquet_is_what_tsv_is(sst2, tmp_path):
    by_line = read_glue("sst2", sst2)
    folder = tmp_path / "other" / "glue" / "sst2"
    folder.mkdir(parents=True)
    for split, part in (("train", by_line.train), ("dev", by_line.test)):
        columns = {"sentence": [s.texts[0] for s in part], "label": [s.label for s in part]}
        pq.write_table(pa.table(columns), folder / f"{split}.parquet")
    assert read_glue("sst2", tmp_path / "other") == by_line
    (folder / "dev.parquet").write_bytes(b"none")
    with pytest.raises(RecipeError, match=r"dev\.parquet cannot be read"):
        read_glue("sst2", tmp_path / "other")


def test_own_parquet(tmp_path):
    for split in ("train", "test"):
        pq.write_table(pa.table({"text": ["a", "b", "c"], "label": [0, 1, 0]}), tmp_path / f"{split}.parquet")
    assert [sample.label for sample in read_tables(tmp_path).test] == [0, 1, 0]


@pytest.mark.parametrize(
    ("task", "train", "dev", "texts", "label"),
    [
        ("mnli", [*"abcdefgh", "P", "H", "x", "neutral"], [*"abcdefgh", "P", "H", *"vwxyz", "neutral"], ("P", "H"), 1),
        ("qqp", ["0", "1", "2", "P", "H", "1"], ["0", "1", "2", "P", "H", "1"], ("P", "H"), 1),
        ("qnli", ["0", "P", "H", "entailment"], ["0", "P", "H", "entailment"], ("P", "H"), 0),
        ("wnli", ["0", "P", "H", "1"], ["0", "P", "H", "1"], ("P", "H"), 1),
    ],
)
def test_tasks_that_are_not_in_the_packed_data(tmp_path, task, train, dev, texts, label):
    folder = tmp_path / "glue" / TASKS[task].folder
    folder.mkdir(parents=True)
    for split, cells in (("train", train), (TASKS[task].dev, dev)):
        torn = ["0\t1"] if task == "qqp" else []
        (folder / f"{split}.tsv").write_text("\n".join(["header", "\t".join(cells), *torn]) + "\n")
    found = read_glue(task, tmp_path)
    assert found.train == found.test == [(texts, label)]


@pytest.mark.parametrize(
    ("task", "train", "test", "wrong"),
    [("cola", 8551, 1043, 0.30), ("mrpc", 3667, 408, 0.33), ("rte", 2490, 277, 0.50), ("sst2", 67_349, 872, 0.44)],
)
def test_the_packed_files(task, train, test, wrong, real_data):
    found = read_glue(task, real_data("glue"))
    assert (len(found.train), len(found.test), len(found.classes)) == (train, test, 2)
    assert abs(sum(sample.label == 0 for sample in found.train) / train - wrong) < 0.01


def test_the_packed_mrpc_in_tokens(real_data):
    splits = load_splits(DataRecipe(name="glue:mrpc", max_length=64), real_data("glue"), 0)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [3301, 366, 408]
    assert 4000 < splits.vocabulary <= 8192
    ids, mask, _ = splits.test.examples.x.unbind(1)
    assert (ids[mask.bool()] == 1).float().mean() < 0.02  # [UNK]


def test_a_vocabulary_is_the_same_each_time():
    """The trainer's own hash tables come out in another order each time, even in one process."""
    words = [chr(97 + (k * j) % 26) * 2 + chr(97 + k % 7) for k in range(500) for j in range(9)]
    texts = [Sample((" ".join(words[k : k + 9]),), 0) for k in range(0, len(words), 9)]
    first, *others = (build_tokenizer("bert", texts).get_vocab() for _ in range(4))
    assert len(first) > 200
    assert all(other == first for other in others)


def test_a_published_tokenizer(sst2, tmp_path):
    build_tokenizer("bert", read_glue("sst2", sst2).train).save_pretrained(tmp_path / "bert-of-mine")
    recipe = DataRecipe(name="glue:sst2")
    own = load_splits(recipe, sst2, 0, tokenizer="bert")
    published = load_splits(recipe, sst2, 0, tokenizer=str(tmp_path / "bert-of-mine"))
    assert torch.equal(whole(own.train).x, whole(published.train).x)
    with pytest.raises(RecipeError, match=r"no tokenizer for hf:.*nowhere"):
        load_splits(recipe, sst2, 0, tokenizer=str(tmp_path / "nowhere"))


def test_hugging_face_datasets(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    table = {"premise": ["a", "b"], "hypothesis": ["c", "d"], "label": [2, 0]}
    parts = {split: datasets.Dataset.from_dict(table) for split in ("train", "validation_matched")}
    monkeypatch.setattr(datasets, "load_dataset", lambda *asked: {("nyu-mll/glue", "mnli"): parts}[asked])
    found = read_glue("mnli", tmp_path)
    assert found.train == found.test == [(("a", "c"), 2), (("b", "d"), 0)]

    def offline(*asked):
        raise ConnectionError("no way")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(RecipeError, match=r"no .*MNLI, and Hugging Face datasets cannot get .*no way"):
        read_glue("mnli", tmp_path)


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


def test_texts_are_no_images(sst2):
    with pytest.raises(RecipeError, match=r"data\.augment is for images"):
        load_splits(DataRecipe(name="glue:sst2", augment="flip"), sst2, 0)
    (sst2 / "glue" / "SST-2" / "dev.tsv").unlink()
    with pytest.raises(RecipeError, match=r"neither dev\.tsv nor dev\.parquet"):
        load_splits(DataRecipe(name="glue:sst2"), sst2, 0)
