"""Tables of texts: TSV and parquet files with a column of labels."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import RecipeError
from ..untrusted import read_text
from .contents import Sample, Texts

__all__ = ["as_samples", "read_lines", "read_parquet", "read_tables"]

#: Bytes of a table that is read whole.
_LARGEST = 4_000_000_000


def read_tables(folder: Path) -> Texts:
    """Read ``train`` and ``test``, each a ``.tsv`` file with a header or a ``.parquet`` file.

    The columns are ``text`` (or ``text1`` and ``text2``) and ``label``.

    Raises:
        RecipeError: no such files or columns, a label that train does not have, or fewer than two classes.
    """
    train, test = (_columns(folder, split) for split in ("train", "test"))
    names = ("text1", "text2") if "text1" in train else ("text",)
    if "label" not in train:
        raise RecipeError(f"{folder / 'train'} has no column label; it has {', '.join(train)}")
    labels = [str(label) for label in train["label"]]
    classes = sorted(set(labels), key=lambda label: (not label.isdigit(), int(label) if label.isdigit() else 0, label))
    if len(classes) < 2:
        raise RecipeError(f"{folder}: a classification needs two labels or more, and train has {', '.join(classes)}")
    columns = train | {"label": labels}, test | {"label": [str(label) for label in test.get("label", [])]}
    parts = [as_samples(c, names, classes, str(folder / s)) for c, s in zip(columns, ("train", "test"), strict=True)]
    return Texts(parts[0], parts[1], tuple(classes))


def _columns(folder: Path, split: str) -> dict[str, Any]:
    if (folder / f"{split}.parquet").is_file():
        return read_parquet(folder / f"{split}.parquet")
    path = folder / f"{split}.tsv"
    if not path.is_file():
        raise RecipeError(f"no {path} and no {split}.parquet: text:PATH reads train and test from PATH")
    (_, header), *rows = read_lines(path, skip=0)
    for number, cells in rows:
        if len(cells) != len(header):
            raise RecipeError(f"{path}, line {number}: {len(cells)} columns where its header has {len(header)}")
    return {name: [cells[i] for _, cells in rows] for i, name in enumerate(header)}


def as_samples(columns: dict[str, Any], names: Sequence[str], classes: Sequence[str], where: str) -> list[Sample]:
    """Turn a table of columns into samples.

    Args:
        columns: by name. The labels are names of classes or their numbers.
        names: columns of the texts.
        classes: names of the classes, by label.
        where: name of the table, for the error message.

    Raises:
        RecipeError: a missing column, a text that is no string, or a label that is no class.
    """
    missing = [name for name in (*names, "label") if name not in columns]
    if missing:
        raise RecipeError(f"{where} has no column {missing[0]}; it has {', '.join(columns)}")
    known = {name: label for label, name in enumerate(classes)} | {k: k for k in range(len(classes))}
    samples = []
    for number, (*texts, label) in enumerate(zip(*(columns[n] for n in (*names, "label")), strict=True), start=1):
        if label not in known or any(not isinstance(text, str) for text in texts):
            raise RecipeError(f"{where}, example {number}: label {label!r} is none of {', '.join(classes)}, or no text")
        samples.append(Sample(tuple(texts), known[label]))
    return samples


def read_lines(path: Path, skip: int) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of each line, from 1, and its cells; leave out the first ``skip`` lines."""
    lines = read_text(path, _LARGEST).rstrip("\n").split("\n")
    for number, line in enumerate(lines[skip:], start=1 + skip):
        yield number, line.rstrip("\r").split("\t")


def read_parquet(path: Path) -> dict[str, Any]:
    """Return the columns of a parquet file, by name.

    Raises:
        RecipeError: the file cannot be read, or pyarrow is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError:
        raise RecipeError(f"{path} needs pyarrow: pip install 'bisam[transformers]'") from None
    try:
        columns: dict[str, Any] = pyarrow.parquet.read_table(path).to_pydict()
    except (OSError, pyarrow.ArrowException) as error:
        raise RecipeError(f"{path} cannot be read: {error}") from None
    return columns
