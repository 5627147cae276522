"""Pictures streamed from their files: the same pictures as in memory."""

import pytest
import torch

from bisam_lab.data import load_splits
from bisam_lab.data.stream import Streamed
from bisam_lab.datasets.pictures import decode
from tests.lab.painting import recipe


def both(painted, **fields):
    return [load_splits(recipe(painted, loading=loading, **fields), None, 0) for loading in ("memory", "stream")]


def equal(a, b):
    a, b = list(a), list(b)
    assert len(a) == len(b) > 0
    for one, other in zip(a, b, strict=True):
        assert torch.equal(one.x, other.x)
        assert torch.equal(one.y, other.y)


@pytest.mark.parametrize("augment", ["none", "crop-flip-cutout"])
def test_a_stream_is_what_memory_is(painted, augment):
    memory, streamed = both(painted, augment=augment, workers=0, label_noise=0.3)
    assert isinstance(streamed.train, Streamed)
    equal(memory.train.shuffled(8, 5, 2), streamed.train.shuffled(8, 5, 2))
    equal(list(memory.train.shuffled(8, 5, 2))[3:], memory.train.shuffled(8, 5, 2, start=3))
    equal(memory.validation.in_order(4), streamed.validation.in_order(4))
    equal(memory.test.in_order(), streamed.test.in_order())
    assert memory.shape == streamed.shape


@pytest.mark.parametrize("augment", ["none", "resized-crop-flip"])
def test_workers_change_nothing_and_start_drops_batches(painted, augment):
    alone, two = (load_splits(recipe(painted, loading="stream", augment=augment, workers=w), None, 0) for w in (0, 2))
    batches = list(alone.train.shuffled(8, 5, 2))
    torch.manual_seed(3)
    equal(batches, two.train.shuffled(8, 5, 2))
    after = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(after, torch.rand(1))  # dropout in between is the same, streamed or not
    equal(batches[2:], alone.train.shuffled(8, 5, 2, start=2))
    assert list(alone.train.shuffled(8, 5, 2, start=len(batches))) == []
    assert not torch.equal(batches[0].x, next(alone.train.shuffled(8, 5, 3)).x)


def test_start_decodes_nothing_that_lies_before(painted, monkeypatch):
    from bisam_lab.data import stream

    splits, seen = load_splits(recipe(painted, loading="stream", workers=0), None, 0), []
    monkeypatch.setattr(stream, "decode", lambda *args: seen.append(args) or decode(*args))
    list(splits.train.shuffled(8, 5, 2, start=4))
    assert len(seen) == len(splits.train) - 4 * 8


@pytest.mark.parametrize("augment", ["none", "crop-flip-cutout", "resized-crop-flip"])
def test_a_part_of_each_batch_is_that_of_the_whole_and_all_that_is_decoded(painted, monkeypatch, augment):
    from bisam_lab.data import stream

    whole = load_splits(recipe(painted, loading="stream", augment=augment, workers=0), None, 0).train
    part = whole.only(lambda size: slice(size // 2, size))
    expected, seen = list(whole.shuffled(8, 5, 2)), []
    monkeypatch.setattr(stream, "decode", lambda *args: seen.append(args) or decode(*args))
    for one, other in zip(expected, part.shuffled(8, 5, 2), strict=True):
        assert torch.equal(one.y, other.y)
        assert torch.equal(one.x[len(one) // 2 :], other.x[len(one) // 2 :])
    assert len(seen) == sum(len(one) - len(one) // 2 for one in expected) < len(whole)
    rest = zip(whole.in_order(6), part.in_order(6), strict=True)
    assert all(torch.equal(one.x[len(one) // 2 :], other.x[len(one) // 2 :]) for one, other in rest)
