"""What comes from outside is read up to a size, and what cannot be read is refused in one line that names it.

Recipes, results and archives may be damaged, or made to do harm: a named pipe that never answers, a few lines of YAML
that stand for a billion values, a number of a million digits.
"""

import json
import math
import stat
import zipfile
from pathlib import Path
from typing import Any

from .errors import RecipeError, shown

__all__ = [
    "FileError",
    "check_plain",
    "check_stored",
    "check_text",
    "parse_json",
    "read_text",
    "special_file",
]

#: Characters of a text file that is read whole, such as a recipe or a result. A result of 100,000 epochs has half.
LARGEST_FILE = 40_000_000
#: Levels of values inside values.
DEEPEST = 20
#: Characters of one text in a recipe, and of a name that becomes a file's.
LONGEST_TEXT, LONGEST_NAME = 5_000, 100
_FORBIDDEN = {chr(code): f"\\x{code:02x}" for code in (*range(32), 127) if chr(code) not in "\t\n"}


class FileError(RecipeError):
    """A file that is not read.

    Attributes:
        reason: what is wrong with it, without its path.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{shown(path, 120)} {reason}")
        self.reason = reason


def special_file(path: Path) -> str | None:
    """Return what a path is that must not be opened, such as a named pipe; None: a file, a folder, or nothing."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return None
    kinds = {
        stat.S_ISFIFO: "a named pipe",
        stat.S_ISSOCK: "a socket",
        stat.S_ISCHR: "a device",
        stat.S_ISBLK: "a device",
    }
    return next((kind for test, kind in kinds.items() if test(mode)), None)


def read_text(path: Path, most: int = LARGEST_FILE) -> str:
    """Return the text of a file in UTF-8.

    Args:
        path: of the file.
        most: bytes that it may have.

    Raises:
        FileError: it is no ordinary file, larger, or not in UTF-8.
        OSError: it cannot be opened.
    """
    if (kind := special_file(path)) is not None:
        raise FileError(path, f"is {kind}: name an ordinary file")
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise FileError(path, f"has more than {most:,} bytes, the most that is read: name another file")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        byte, at = content[error.start], error.start
        raise FileError(path, f"is not text in UTF-8 (byte {byte:#04x} at position {at:,}): save it as UTF-8") from None


def parse_json(text: str) -> Any:
    """Return the plain values that a JSON text stands for.

    Raises:
        ValueError: it is no JSON, too deep, or has a number of too many digits.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("its values lie too deep") from None


def check_text(where: str, text: str, *, name: bool = False) -> None:
    """Refuse characters that no file name, page or table can hold, and texts that are too long.

    Args:
        where: names the text in the message.
        text: any string.
        name: whether it becomes the name of a file, so that it must be short and on one line.

    Raises:
        RecipeError: it has a lone surrogate or a control character, or is too long.
    """
    most = LONGEST_NAME if name else LONGEST_TEXT
    if len(text) > most:
        raise RecipeError(f"{where} has {len(text):,} characters, of at most {most:,}: make it shorter")
    bad = next((c for c in text if c in _FORBIDDEN or "\ud800" <= c <= "\udfff" or (name and c in "\t\n")), None)
    if bad is not None:
        raise RecipeError(f"{where}={shown(text)} holds the character {bad!a}, which no name may have: leave it out")


def check_plain(fields: Any, where: str = "") -> None:
    """Refuse what no recipe can hold, and what would be too large to work with.

    Args:
        fields: plain values, such as a parser returns.
        where: the dotted name of ``fields``; empty for a whole recipe.

    Raises:
        RecipeError: a text with characters that no name may have, a number beyond 64 bits or that is not finite, a
            date or another value that is not plain, or values that lie too deep.
    """
    dotted = where or "recipe"
    if where.count(".") > DEEPEST:
        raise RecipeError(f"{shown(where)}: its values lie more than {DEEPEST} deep: leave out the innermost")
    if isinstance(fields, dict):
        for key, value in fields.items():
            if not isinstance(key, str | int) or isinstance(key, bool):
                raise RecipeError(f"{dotted}: the key {shown(key)} is no word: put it in quotes")
            check_text(f"a key of {dotted}", key, name=True) if isinstance(key, str) else _check_number(dotted, key)
            check_plain(value, f"{where}.{key}" if where else str(key))
    elif isinstance(fields, list | tuple):
        for number, value in enumerate(fields):
            check_plain(value, f"{dotted}.{number}")
    elif isinstance(fields, str):
        check_text(dotted, fields)
    elif isinstance(fields, int | float):
        _check_number(dotted, fields)
    elif fields is not None:
        value = fields.isoformat() if hasattr(fields, "isoformat") else fields
        raise RecipeError(f"{dotted}={shown(value)} is a {type(fields).__name__}: put it in quotes to make it a text")


def _check_number(where: str, number: float) -> None:
    if isinstance(number, int) and abs(number) >= 2**63:
        bits = number.bit_length()
        digits = f"{len(str(abs(number)))}" if bits < 10_000 else f"about {round(bits * math.log10(2)):,}"
        raise RecipeError(f"{where}: a number of {digits} digits; whole numbers have at most 18")
    if not math.isfinite(number):
        raise RecipeError(f"{where}={number} must be a finite number")


def check_stored(archive: zipfile.ZipFile, path: Path) -> None:
    """Refuse a zip archive whose contents are larger than itself: torch packs tensors without compressing them.

    Raises:
        RecipeError: it would grow as it is read.
    """
    size = sum(member.file_size for member in archive.infolist())
    if size > path.stat().st_size:
        raise RecipeError(f"{shown(path)} would unpack to {size:,} bytes: torch.save compresses nothing")
