"""Pictures decoded into memory."""

from bisam_lab.data import load_splits
from tests.lab.painting import recipe


def test_a_slow_reading_is_told_of(painted, monkeypatch, capsys):
    from bisam_lab.data import decoding

    monkeypatch.setattr(decoding, "_PATIENCE", -1.0)
    load_splits(recipe(painted), None, 0)
    assert f"reading folder:{painted}: 44 of 44 pictures" in capsys.readouterr().err
