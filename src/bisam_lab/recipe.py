"""A recipe: everything that defines a study, typed and validated, read from YAML."""

import difflib
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

__all__ = [
    "DataRecipe",
    "ModelRecipe",
    "Recipe",
    "RecipeError",
    "SharpnessRecipe",
    "TrainRecipe",
    "load",
    "names",
    "words",
]

DataName = Literal["digits", "fashion-mnist", "cifar10", "cifar100"]
Radius = Annotated[float, Field(ge=0)]


class RecipeError(ValueError):
    """A recipe that cannot be run, said in one sentence a field."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataRecipe(_Part):
    """Which images, how many, and what is done to them."""

    name: DataName = "digits"
    train_size: int | None = Field(None, ge=10, description="training images, drawn by the seed; null is all")
    validation_size: int = Field(200, ge=10, description="images held out of the training set, drawn by the seed")
    image_size: int | None = Field(None, ge=4, description="shrink to this many pixels a side; null leaves them")
    label_noise: float = Field(0.0, ge=0, lt=1, description="share of training labels moved to another class")
    augment: Literal["none", "crop-flip"] = "none"


class ModelRecipe(_Part):
    """The residual net of He et al. for small images: 6n + 2 layers, BatchNorm throughout."""

    name: Literal["resnet"] = "resnet"
    depth: int = Field(8, ge=8, description="6n + 2")
    width: int = Field(16, ge=1, description="channels of the first stage")

    @model_validator(mode="after")
    def _whole_blocks(self) -> "ModelRecipe":
        if (self.depth - 2) % 6:
            nearest = max(8, 6 * round((self.depth - 2) / 6) + 2)
            raise ValueError(f"depth={self.depth} must be 6n + 2; the nearest is {nearest}")
        return self


class TrainRecipe(_Part):
    """The base optimizer and its schedule: SGD with momentum along a cosine."""

    epochs: int = Field(20, ge=1)
    batch_size: int = Field(128, ge=2)
    lr: float = Field(0.1, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(5e-4, ge=0)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    select: Literal["best", "last"] = Field("best", description="epoch to test: best on validation, or the last")


class SharpnessRecipe(_Part):
    """Radii, the lower bound's constants (null takes the bound's own), and the numbers of single methods."""

    rho: float = Field(0.05, ge=0, description="SAM's; the others take it in proportion to their published radii")
    radii: dict[str, Radius] = Field({}, description="radius of single methods instead, such as {asam: 1.0}")
    options: dict[str, dict[str, Any]] = Field({}, description="their other numbers, such as {looksam: {k: 10}}")
    mu: float | None = Field(None, gt=0)
    alpha: float = Field(0.1, gt=0)


class EngineRecipe(_Part):
    """Where and how precisely to compute; passed to Lightning Fabric."""

    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["32-true", "64-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true"] = "32-true"
    strategy: str = "auto"


class Recipe(_Part):
    """A study: methods x seeds on one data set."""

    name: str = "digits"
    data: DataRecipe = DataRecipe()
    model: ModelRecipe = ModelRecipe()
    train: TrainRecipe = TrainRecipe()
    sharpness: SharpnessRecipe = SharpnessRecipe()
    engine: EngineRecipe = EngineRecipe()
    methods: tuple[str, ...] = Field(("sgd", "sam", "bisam-tanh", "bisam-log"), min_length=1)
    seeds: int = Field(5, ge=1, description="runs a method")

    @model_validator(mode="after")
    def _known_methods(self) -> "Recipe":
        from .method import Method  # here, for torch takes seconds to import and --help should not

        if len(set(self.methods)) < len(self.methods):
            raise ValueError(f"methods={list(self.methods)} names a method twice")
        given = {
            "methods": self.methods,
            "sharpness.radii": self.sharpness.radii,
            "sharpness.options": self.sharpness.options,
        }
        for where, names in given.items():
            for name in names:
                try:
                    Method(name, self.sharpness.options)
                except (TypeError, ValueError) as error:
                    raise ValueError(f"{where}: {error}") from None
        return self

    def to_yaml(self) -> str:
        """Return the recipe as it would stand in a file."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)


def names() -> list[str]:
    """Return the names of the recipes that ship with the library."""
    folder = resources.files("bisam_lab") / "recipes"
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))


def load(recipe: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe by its name or path and apply ``dotted.key=value`` overrides, values in YAML.

    Raises:
        RecipeError: no such recipe, broken YAML, an unknown key, an impossible value.
    """
    fields = _read(recipe)
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise RecipeError(f"override {override!r} must look like train.lr=0.05")
        _set(fields, key.split("."), _yaml(value, override))
    try:
        return Recipe.model_validate(fields)
    except ValidationError as error:
        raise RecipeError("\n".join(_explain(e, fields) for e in error.errors())) from None


def words(recipe: str, overrides: Sequence[str] | None) -> tuple[str, list[str]]:
    """Return the recipe and the overrides of a command line, whose recipe may be left out: then it is ``digits``."""
    given = list(overrides or [])
    if "=" in recipe and not Path(recipe).exists():
        return "digits", [recipe, *given]
    return recipe, given


def _read(recipe: str | Path) -> dict[str, Any]:
    if str(recipe) in names():
        text = (resources.files("bisam_lab") / "recipes" / f"{recipe}.yaml").read_text()
    elif Path(recipe).is_file():
        text = Path(recipe).read_text()
    else:
        raise RecipeError(
            f"recipe {str(recipe)!r} is neither a file nor one of {', '.join(names())}{_nearest(str(recipe), names())}"
        )
    fields = _yaml(text, str(recipe))
    if not isinstance(fields, dict):
        raise RecipeError(f"recipe {str(recipe)!r} must be a mapping of fields")
    return fields


def _yaml(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{where!r} is not valid YAML: {error}") from None


def _set(fields: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for key in path[:-1]:
        inner = fields.setdefault(key, {})
        if not isinstance(inner, dict):
            raise RecipeError(f"{'.'.join(path)} does not exist: {key} has no fields of its own")
        fields = inner
    fields[path[-1]] = value


def _explain(error: Any, fields: dict[str, Any]) -> str:
    """Say what is wrong with one field, and name the nearest thing that would be right."""
    where = [str(part) for part in error["loc"]]
    dotted = ".".join(where) or "recipe"
    if error["type"] == "extra_forbidden":
        part = _part_at(where[:-1])
        near = _nearest(where[-1], part.model_fields) or _elsewhere(where[-1])
        return f"{dotted}: unknown key{near or '; it may have: ' + ', '.join(part.model_fields)}"
    if error["type"] == "literal_error":
        allowed = [word.strip(" '") for word in error["ctx"]["expected"].replace(" or ", ", ").split(",")]
        return (
            f"{dotted}={error['input']!r}: must be one of {', '.join(allowed)}{_nearest(str(error['input']), allowed)}"
        )
    message = error["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:] if message.startswith("Input") else message
    return f"{dotted}={error['input']!r}: {message}" if error["type"] != "value_error" else f"{dotted}: {message}"


def _part_at(path: Iterable[str]) -> type[BaseModel]:
    part: type[BaseModel] = Recipe
    for key in path:
        inner = part.model_fields[key].annotation
        part = inner if isinstance(inner, type) and issubclass(inner, BaseModel) else get_args(inner)[0]
    return part


def _elsewhere(key: str) -> str:
    """Find a key that the user has put into the wrong section, or misspelt there."""
    sections = {name: f.annotation for name, f in Recipe.model_fields.items()}
    keys = {
        inner: f"{name}.{inner}"
        for name, part in sections.items()
        if isinstance(part, type) and issubclass(part, BaseModel)
        for inner in part.model_fields
    }
    keys |= {name: name for name in sections}
    found = difflib.get_close_matches(key, keys, n=1)
    return f": did you mean {keys[found[0]]}?" if found else ""


def _nearest(word: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(word, list(known), n=1)
    return f": did you mean {found[0]}?" if found else ""
