"""Batches of examples."""

import torch

from bisam_lab.data.examples import batches, count_batches


def test_a_single_example_left_over_joins_the_last_batch():
    assert [len(part) for part in batches(torch.arange(9), 4)] == [4, 5]
    assert [len(part) for part in batches(torch.arange(10), 4)] == [4, 4, 2]
    assert [len(part) for part in batches(torch.arange(1), 4)] == [1]
    for examples in range(1, 40):
        for size in range(2, 12):
            assert count_batches(examples, size) == len(batches(torch.arange(examples), size))
