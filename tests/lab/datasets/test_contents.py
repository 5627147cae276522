"""What a reader returns."""

import pytest
import torch

from bisam_lab.datasets import Images
from bisam_lab.datasets.contents import sizes


def part(count=6, **kinds):
    return torch.zeros(count, 3, 4, 4, dtype=kinds.get("x", torch.uint8)), torch.arange(count).to(
        kinds.get("y", torch.int64)
    )


def test_images_know_their_sizes():
    assert sizes(Images(train=part(6), test=part(4, x=torch.float32))) == (6, 4, 6)


@pytest.mark.parametrize(
    ("train", "test", "words"),
    [
        (part(x=torch.int64), part(), r"train=.* in uint8 or floating point, not \(6, 3, 4, 4\) in torch.int64"),
        (part(), part(y=torch.int32), r"test=.* in int64, .* in torch.int32"),
        (part(), (part()[0], part(5)[1]), r"test=.* must be \(6,\)"),
        (part(0), part(), r"train=.* one or more"),
        ((part()[0], part()[1] - 1), part(), r"train=.* from 0"),
        (part(3), part(4), "label 3 is not in train, which has 3 classes"),
    ],
)
def test_images_of_another_form_are_refused(train, test, words):
    with pytest.raises(ValueError, match=words):
        Images(train, test)
