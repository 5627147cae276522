"""Read a study's recipe, whichever version of bisam wrote it."""

from pathlib import Path
from typing import Any

from ..errors import LONGEST_LINE, one_line
from ..plain_yaml import parse_yaml
from ..recipe import RecipeError
from ..untrusted import FileError, check_plain, read_text

__all__ = ["recipe_of"]


def recipe_of(folder: Path) -> dict[str, Any]:
    """Return the fields of a study's recipe, without validation.

    Raises:
        RecipeError: the folder does not exist, is empty or is not a study's, or the recipe is damaged.
    """
    if not folder.is_dir():
        raise RecipeError(f"{folder} is no folder: name the folder of a study, the one that was --out of bisam compare")
    path = folder / "recipe.yaml"
    if not path.is_file():
        studies = [str(inner.parent) for inner in sorted(folder.glob("*/recipe.yaml"))]
        hint = f"did you mean {', '.join(studies)}?" if studies else "it is not the folder of a study"
        raise RecipeError(f"{folder} {'is empty' if not any(folder.iterdir()) else 'has no recipe.yaml'}: {hint}")
    try:
        fields = parse_yaml(read_text(path), path.name)
        check_plain(fields)
    except FileError:
        raise
    except RecipeError as error:
        raise RecipeError(one_line(f"{path} cannot be read: {error}", LONGEST_LINE)) from None
    if not isinstance(fields, dict) or not isinstance(fields.get("methods"), list) or not fields["methods"]:
        raise RecipeError(f"{path} is no recipe of a study: it must be a mapping with a list of methods")
    return fields
