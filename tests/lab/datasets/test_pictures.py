"""Decoding one picture."""

import numpy as np
import pytest
from PIL import Image

from bisam_lab.datasets.pictures import decode
from tests.lab.painting import paint


def test_decoding_takes_the_middle_square(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (10, 17, 3), dtype=np.uint8)
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    assert np.array_equal(decode(bytes(path), 10), pixels[:, 3:13].transpose(2, 0, 1))
    top_left = decode(bytes(path), 5, (0.5, 5 / 17, 0.0, 0.0))
    assert np.array_equal(top_left, pixels[:5, :5].transpose(2, 0, 1))


def test_a_large_jpeg_is_decoded_coarsely_and_nearly_alike(tmp_path):
    path = paint(tmp_path / "a.jpg", 0, (640, 480))
    with Image.open(path) as image:
        exact = np.asarray(image.convert("RGB").resize((32, 32), Image.Resampling.BILINEAR, box=(80, 0, 560, 480)))
    assert np.abs(decode(bytes(path), 32).astype(int) - exact.transpose(2, 0, 1)).max() <= 4


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "1"])
def test_pictures_in_other_modes_become_rgb(mode, tmp_path):
    Image.new("RGBA", (8, 8), (200, 100, 0, 128)).convert(mode).save(tmp_path / "a.png")
    assert decode(bytes(tmp_path / "a.png"), 8).shape == (3, 8, 8)
