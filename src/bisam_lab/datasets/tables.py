"""Tables of texts with a column of labels, in one file or in a file for training and one for testing."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import RecipeError
from .apart import a_fifth
from .columns import named
from .contents import Sample, Texts
from .table_files import FORMATS, Columns, read_file

__all__ = ["as_samples", "read_tables", "table_files"]


def read_tables(path: Path) -> Texts:
    """Read a file, or ``train`` with ``test`` or ``val`` in a folder: ``.csv``, ``.tsv`` or ``.parquet``.

    The columns are ``text`` (or ``text1`` and ``text2``) and ``label``; see :func:`.columns.named` for other names.
    Where both ``test`` and ``val`` exist, ``test`` is read. Without either, a fifth of each class is the test set: the
    choice depends on the labels and their order alone.

    Raises:
        RecipeError: no such files or columns, a label that train does not have, or fewer than two classes.
    """
    files = table_files(path)
    train = read_file(files[0])
    names, label = named(train, files[0])
    labels = _labels(train[label], files[0])
    classes = sorted(set(labels), key=lambda label: (not label.isdecimal(), _number(label), label))
    if len(classes) < 2:
        raise RecipeError(f"{path}: a classification needs two labels or more, and train has {', '.join(classes)}")
    pool = as_samples(train | {label: labels}, names, classes, str(files[0]), label)
    if len(files) == 1:
        apart = a_fifth([sample.label for sample in pool], classes, "texts")
        parts = [[s for s, test in zip(pool, apart, strict=True) if test is wanted] for wanted in (False, True)]
        return Texts(parts[0], parts[1], tuple(classes))
    test = read_file(files[1])
    if label in test:
        test = test | {label: _labels(test[label], files[1])}
    return Texts(pool, as_samples(test, names, classes, str(files[1]), label), tuple(classes))


def table_files(path: Path) -> list[Path]:
    """Return the file for training and, if there is one, that for testing.

    Raises:
        RecipeError: there are none.
    """
    if path.is_file():
        if path.suffix.lower() not in FORMATS:
            raise RecipeError(f"{path} is none of {', '.join(FORMATS)}: save the table as one of these")
        return [path]
    train = _part(path, "train")
    if train is None:
        raise RecipeError(
            f"no {path / 'train.csv'}, .tsv or .parquet: text:PATH reads a file, or train and test from a folder"
        )
    test = _part(path, "test") or _part(path, "val")
    return [train] if test is None else [train, test]


def _part(folder: Path, name: str) -> Path | None:
    return next((file for suffix in FORMATS if (file := folder / f"{name}{suffix}").is_file()), None)


def _labels(values: Sequence[Any], where: Path) -> list[str]:
    for number, value in enumerate(values, start=1):
        if value is None or not str(value).strip():
            raise RecipeError(f"{where}, example {number} has no label: give it one, or remove it")
    return [str(value) for value in values]


def _number(label: str) -> int:
    return int(label) if label.isdecimal() else 0


def as_samples(
    columns: Columns, names: Sequence[str], classes: Sequence[str], where: str, label: str = "label"
) -> list[Sample]:
    """Turn a table of columns into samples.

    Args:
        columns: by name. The labels are names of classes or their numbers.
        names: columns of the texts.
        classes: names of the classes, by label.
        where: name of the table, for the error message.
        label: column of the labels.

    Raises:
        RecipeError: a missing column, a text that is no string, or a label that is no class.
    """
    missing = [name for name in (*names, label) if name not in columns]
    if missing:
        raise RecipeError(f"{where} has no column {missing[0]}; it has {', '.join(columns)}")
    known = {name: label for label, name in enumerate(classes)} | {k: k for k in range(len(classes))}
    samples = []
    for number, (*texts, found) in enumerate(zip(*(columns[n] for n in (*names, label)), strict=True), start=1):
        if found not in known or any(not isinstance(text, str) for text in texts):
            raise RecipeError(f"{where}, example {number}: label {found!r} is none of {', '.join(classes)}, or no text")
        samples.append(Sample(tuple(texts), known[found]))
    return samples
