"""What a recipe's values may be: names of folders, sizes that can be trained."""

import re
from collections.abc import Mapping
from typing import Any

from ..errors import shown
from ..untrusted import check_text

__all__ = ["LARGEST", "check_network", "folder_name", "inner_folder"]

#: The largest whole numbers that a recipe may give: larger ones are slips of the pen, and would run for ever.
LARGEST = {
    "epochs": 100_000,
    "seeds": 10_000,
    "batch_size": 1_000_000,
    "examples": 1_000_000_000,
    "image_size": 2048,
    "workers": 256,
    "devices": 1024,
    "nodes": 100_000,
    "tokens": 100_000,
    "depth": 2_000,
    "width": 4_096,
}
#: Options of the networks here that count channels, and those that are shares.
_WIDTHS, _SHARES = ("width", "growth"), ("dropout",)


def folder_name(name: str) -> str:
    """Return ``name`` if it can be that of one folder: a study lies in the folder of its recipe's name.

    Raises:
        ValueError: it cannot.
    """
    check_text("name", name, name=True)
    if name != name.strip() or name in ("", ".", "..") or "/" in name or "\\" in name or name.startswith("-"):
        raise ValueError(f"{shown(name)} must be the name of one folder, such as my-study; --out takes a path")
    return name


def inner_folder(name: str) -> str:
    """Return the name of a variant if it can be that of a folder inside the study's.

    Raises:
        ValueError: it cannot.
    """
    check_text("variants", name, name=True)
    parts = name.split("/")
    if "\\" in name or any(part != part.strip() or part in ("", ".", "..") for part in parts):
        raise ValueError(f"{shown(name)} must name a folder inside the study, such as noisy")
    return name


def check_network(name: str, options: Mapping[str, Any]) -> None:
    """Check depth and width of a network of ours.

    Args:
        name: resnet-N, wrn-N-K, densenet-121 or vgg19-bn; another name has sizes of its own.
        options: of its builder.

    Raises:
        ValueError: a depth or a width that cannot be built.
    """
    found = re.fullmatch(r"(resnet|wrn)-(\d+)(?:-(\d+))?|densenet-121|vgg19-bn", name, re.ASCII)
    if found is None:
        return
    if found[1]:
        _check_depth(name, found[1], int(found[2]))
    if found[3] and not 1 <= int(found[3]) <= 100:
        raise ValueError(f"model.name={name}: the factor on its width must lie between 1 and 100, as in wrn-28-10")
    for key in _WIDTHS:
        width = options.get(key, 1)
        if type(width) not in (int, float) or not 1 <= width <= LARGEST["width"] or width != int(width):
            raise ValueError(
                f"model.options.{key}={shown(width)} must be a whole number from 1 to {LARGEST['width']:,}"
            )
    for key in _SHARES:
        share = options.get(key, 0.0)
        if type(share) not in (int, float) or not 0 <= share < 1:
            raise ValueError(f"model.options.{key}={shown(share)} must be a number from 0 to less than 1")


def _check_depth(name: str, family: str, depth: int) -> None:
    rest = {"resnet": 2, "wrn": 4}[family]
    least = 6 + rest
    if least <= depth <= LARGEST["depth"] and (depth - rest) % 6 == 0:
        return
    near = min(max(least, 6 * round((depth - rest) / 6) + rest), LARGEST["depth"] // 6 * 6 + rest - 6)
    raise ValueError(
        f"model.name={name}: depth={depth} must be 6n + {rest}, at most {LARGEST['depth']:,}; the nearest is {near}"
    )
