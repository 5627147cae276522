"""GLUE's own files."""

import pytest

from bisam_lab.data import load_splits
from bisam_lab.datasets.sets.glue import TASKS, read_glue
from bisam_lab.recipe import DataRecipe, RecipeError

pytest.importorskip("transformers")
pq = pytest.importorskip("pyarrow.parquet")
pa = pytest.importorskip("pyarrow")


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


def test_texts_are_no_images(sst2):
    with pytest.raises(RecipeError, match=r"data\.augment is for images"):
        load_splits(DataRecipe(name="glue:sst2", augment="flip"), sst2, 0)
    (sst2 / "glue" / "SST-2" / "dev.tsv").unlink()
    with pytest.raises(RecipeError, match=r"neither dev\.tsv nor dev\.parquet"):
        load_splits(DataRecipe(name="glue:sst2"), sst2, 0)
