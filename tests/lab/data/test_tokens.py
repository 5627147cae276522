"""Texts to tokens."""

import pytest
import torch

from bisam_lab.data import load_splits, whole
from bisam_lab.data.tokens import build_tokenizer
from bisam_lab.datasets import Sample
from bisam_lab.datasets.sets.glue import read_glue
from bisam_lab.recipe import DataRecipe, RecipeError

pytest.importorskip("transformers")
pq = pytest.importorskip("pyarrow.parquet")
pa = pytest.importorskip("pyarrow")


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
