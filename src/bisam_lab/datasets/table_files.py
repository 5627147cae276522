"""Files of a table: CSV, TSV and parquet, each read as columns by name."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from textwrap import shorten
from typing import Any

from ..errors import RecipeError
from ..untrusted import read_text

__all__ = ["FORMATS", "Columns", "read_file", "read_lines", "read_parquet"]

#: Columns of a table, by name.
Columns = dict[str, list[Any]]
#: Endings of the files, in the order in which they are looked for.
FORMATS = (".parquet", ".tsv", ".csv")
#: Bytes of a table that is read whole.
_LARGEST = 4_000_000_000
_LONGEST_CELL = 2**24  # characters; the csv module's own limit is 2**17, which long texts exceed


def read_file(path: Path) -> Columns:
    """Return the columns of a table, by name.

    Raises:
        RecipeError: the file cannot be read, or a row has another number of cells than the header.
    """
    if path.suffix.lower() == ".parquet":
        return read_parquet(path)
    try:
        rows = list(read_lines(path, skip=0) if path.suffix.lower() == ".tsv" else _read_csv(path))
    except csv.Error as error:
        raise RecipeError(f"{path} is no CSV file ({error}): separate its cells by commas, quote texts") from None
    if not rows:
        raise RecipeError(f"{path} is empty: its first line must name the columns, such as text,label")
    (_, header), *rows = rows
    if len(set(header)) < len(header):
        raise RecipeError(f"{path}: two columns have one name in the header {', '.join(header)}")
    for number, cells in rows:
        if len(cells) != len(header):
            raise RecipeError(f"{path}, line {number}: {len(cells)} columns where its header has {len(header)}")
    return {name: [cells[i] for _, cells in rows] for i, name in enumerate(header)}


def _read_csv(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the line where each row ends, and its cells; empty lines are left out.

    The separator is the one of comma, semicolon and tab that the header has most often.
    """
    before = csv.field_size_limit(_LONGEST_CELL)
    try:
        file = io.StringIO(read_text(path, _LARGEST), newline="")
        header = file.readline()
        file.seek(0)
        rows = csv.reader(file, delimiter=max(",;\t", key=header.count), strict=True)
        for cells in rows:
            if cells:
                yield rows.line_num, cells
    finally:
        csv.field_size_limit(before)


def read_lines(path: Path, skip: int) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of each line, from 1, and its cells; leave out the first ``skip`` lines."""
    lines = read_text(path, _LARGEST).rstrip("\n").split("\n")
    for number, line in enumerate(lines[skip:], start=1 + skip):
        yield number, line.rstrip("\r").split("\t")


def read_parquet(path: Path) -> Columns:
    """Return the columns of a parquet file, by name.

    Raises:
        RecipeError: the file cannot be read, or pyarrow is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError:
        raise RecipeError(f"{path} needs pyarrow: pip install 'bisam[transformers]'") from None
    try:
        columns: Columns = pyarrow.parquet.read_table(path).to_pydict()
    except (OSError, pyarrow.ArrowException) as error:
        raise RecipeError(f"{path} cannot be read: {shorten(str(error), 100)}") from None
    return columns
