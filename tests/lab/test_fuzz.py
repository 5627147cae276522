"""A slice of ``benchmarks/fuzz.py``: no input ends in a traceback, in a long line, or after a long time."""

import importlib.util
import random
from pathlib import Path

import pytest

from bisam_lab.recipe import RecipeError

SPEC = importlib.util.spec_from_file_location("fuzz", Path(__file__).parents[2] / "benchmarks" / "fuzz.py")
fuzz = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(fuzz)


@pytest.fixture
def patient(monkeypatch):
    monkeypatch.setattr(fuzz, "SLOWEST", 10.0)  # another test may want the processor


def test_overrides(patient):
    assert list(fuzz.troubles(fuzz.overrides(100, random.Random(1)))) == []


def test_files(patient, tmp_path):
    assert list(fuzz.troubles(fuzz.files(20, random.Random(1), tmp_path))) == []


def test_it_sees_what_it_looks_for(monkeypatch):
    def refuse(text):
        raise RecipeError(text)

    def break_down():
        raise KeyError("x")

    monkeypatch.setattr(fuzz, "SLOWEST", -1.0)
    looks = (break_down, lambda: refuse("x" * 201), lambda: refuse("\ud800"), lambda: None)
    found = " ".join(fuzz.troubles((str(number), look) for number, look in enumerate(looks)))
    for words in ("KeyError", "a line of 201 characters", "cannot be printed", "took"):
        assert words in found
