"""A checkpoint to audit, which is a file of weights, a run's folder or a network by its name, and its data."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from ..errors import RecipeError, shown
from ..models.weights import UntrainedWarning, load_weights
from ..plain_yaml import parse_yaml
from ..recipe import Recipe, load, understood
from ..recipe.known import is_code
from ..run.checkpoint import CheckpointError, read
from ..run.fabric import build_fabric
from ..run.setup import load_examples_and_model
from ..untrusted import parse_json, read_text

__all__ = ["HeldOut", "Loaded", "Place", "found", "loaded"]

HeldOut = Literal["validation", "test"]


@dataclass(frozen=True)
class Place:
    """A checkpoint and what is known of it before anything is loaded.

    Attributes:
        name: for tables and pages.
        recipe: of its data and its network.
        seed: of the split and the labels' noise.
        weights: file of them; None: those that the network is built with.
        run: folder of the run that saved them; None where nobody knows.
        epoch: after which they were saved; None where nobody knows.
        own: whether bisam trained it, so that its validation examples are those that it has not seen.
    """

    name: str
    recipe: Recipe
    seed: int
    weights: Path | None
    run: str | None
    epoch: int | None
    own: bool


@dataclass(frozen=True)
class Loaded:
    """A network with its batches, on the device.

    Attributes:
        model: the network.
        batches: of training data in their training's order of the first epoch, not augmented.
        held_out: as many of the held-out split, of the same size.
        note: one sentence on the data; may be empty.
    """

    model: nn.Module
    batches: list[tuple[torch.Tensor, torch.Tensor]]
    held_out: list[tuple[torch.Tensor, torch.Tensor]]
    note: str


def found(word: str, recipe: str | None, overrides: Sequence[str], seed: int | None) -> Place:
    """Find a checkpoint and the recipe that belongs to it.

    Args:
        word: a run's folder, a file of weights, or the name of a network: ``timm:NAME``, ``hf:NAME``,
            ``file.py:NAME``, ``package.module:NAME``.
        recipe: of the data and the network; None: the one that the run has left.
        overrides: of its fields.
        seed: of the split; None: the run's, or 0.

    Raises:
        RecipeError: no such checkpoint, or nobody knows its recipe.
    """
    path = Path(word).expanduser()
    if not path.exists() and (word.startswith(("timm:", "hf:")) or is_code(word)):
        fields = [f"model.name={word}", f"model.pretrained={str(not is_code(word)).lower()}", "model.options={}"]
        return Place(word, _recipe(word, recipe, [*fields, *overrides]), seed or 0, None, None, None, own=False)
    if path.is_dir():
        path = _inside(path)
    if not path.is_file():
        raise RecipeError(
            f"CHECKPOINT {shown(word)}: there is no such file or folder; name a run's folder, a file of weights, or a "
            "network: timm:NAME, hf:NAME, my_net.py:Net"
        )
    state = _of_bisam(path)
    if state is not None and recipe is None:
        return _of_run(path, state, overrides, seed)
    return Place(path.stem, _recipe(word, recipe, overrides), seed or 0, path, None, None, own=False)


def _inside(folder: Path) -> Path:
    for name in ("checkpoints/best.pt", "best.pt"):
        if (folder / name).is_file():
            return folder / name
    raise RecipeError(
        f"CHECKPOINT {folder} holds no checkpoints/best.pt: name a run's folder or a file; --grid takes all runs in it"
    )


def _of_bisam(path: Path) -> dict[str, Any] | None:
    """Return the state in a checkpoint that a run of bisam has saved; None: another program's file."""
    try:
        state = read(path)
    except CheckpointError:
        return None
    return state if isinstance(state.get("recipe"), dict) and isinstance(state.get("model"), dict) else None


def _of_run(path: Path, state: dict[str, Any], overrides: Sequence[str], seed: int | None) -> Place:
    folder = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    recipe = _stored(path, state)
    if overrides:
        file = folder / "run.yaml"
        if not file.is_file():
            raise RecipeError(f"{path} has no run.yaml beside it, so {overrides[0]} needs --recipe: name the run's")
        recipe = _load(str(file), overrides)
    method, own_seed = _run(folder)
    seed = own_seed if seed is None else seed
    if seed is None:
        raise RecipeError(f"{folder} has no run.yaml and no result.json that tell the run's seed: give it by --seed")
    history = state.get("history")
    epoch = state.get("epoch", len(history) if isinstance(history, list) else None)
    name = " ".join(f"{recipe.name} {method} seed {seed}, epoch {epoch}".split())
    return Place(name, recipe, seed, path, str(folder), epoch if isinstance(epoch, int) else None, own=True)


def _stored(path: Path, state: dict[str, Any]) -> Recipe:
    """Return the recipe in a run's checkpoint.

    Raises:
        RecipeError: this version does not understand it.
    """
    try:
        return Recipe.model_validate(state["recipe"])
    except ValueError:  # pydantic's
        raise RecipeError(
            f"{path} holds a recipe that is damaged or of another version of bisam: name one by --recipe"
        ) from None


def _run(folder: Path) -> tuple[str, int | None]:
    """Return what a run's folder tells of its method and seed, by the recipe of ``bisam train`` or by the result."""
    told = _mapping(folder / "run.yaml", lambda text: parse_yaml(text, "run.yaml"))
    methods = told.get("methods")
    if isinstance(methods, list) and methods:
        method, seed = str(methods[-1]), told.get("first_seed")
    else:
        told = _mapping(folder / "result.json", parse_json)
        method, seed = f"{told.get('variant', '')} {told.get('method', '')}", told.get("seed")
    return method, seed if isinstance(seed, int) else None


def _mapping(path: Path, parse: Callable[[str], Any]) -> dict[str, Any]:
    """Return the mapping in a file; an empty one where it cannot be read."""
    try:
        found = parse(read_text(path))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _recipe(word: str, recipe: str | None, overrides: Sequence[str]) -> Recipe:
    if recipe is None:
        raise RecipeError(
            f"CHECKPOINT {shown(word)} does not say what it was trained on: name data and network by --recipe, such as "
            "--recipe cifar10 model.name=my_net.py:Net"
        )
    return _load(recipe, overrides)


def _load(recipe: str, overrides: Sequence[str]) -> Recipe:
    words = understood(recipe, overrides)
    for word in words.overrides:
        field = word.partition("=")[0]
        if field.partition(".")[0] not in ("data", "model", "engine") and field != "train.batch_size":
            raise RecipeError(f"{word} changes nothing in an audit: of a recipe it reads data, model and engine alone")
    return load(words.recipe, words.overrides)


def loaded(place: Place, n: int, size: int | None, held_out: HeldOut, data_dir: Path | None) -> Loaded:
    """Load the network and its batches.

    Args:
        place: the checkpoint.
        n: batches.
        size: samples of a batch; None: the recipe's.
        held_out: the split that nobody climbs.
        data_dir: folder of the data sets.

    Raises:
        RecipeError: data are missing, weights do not fit, or the split has fewer examples than a batch.
    """
    update: dict[str, Any] = {"data": place.recipe.data.model_copy(update={"augment": "none", "pad": "mean"})}
    if place.weights is not None:
        update["model"] = place.recipe.model.model_copy(update={"checkpoint": None, "pretrained": False})
    recipe = place.recipe.model_copy(update=update)
    fabric = build_fabric(recipe.engine)
    with _nothing_untrained():
        splits, model = load_examples_and_model(recipe, data_dir, place.seed)
        if place.weights is not None:  # after the adapters are there, which a run saves, too
            load_weights(model, str(place.weights), splits.classes)
    _check_head(recipe.model.name, model, splits.classes, published=place.weights is None)
    size = size or recipe.train.batch_size
    train = splits.train.to(fabric.device).shuffled(size, place.seed, epoch=1)
    other = (splits.validation if held_out == "validation" else splits.test).to(fabric.device)
    model.to(fabric.device)
    return Loaded(
        model,
        list(_whole(train, n, size, "training", len(splits.train))),
        list(_whole(other.shuffled(size, place.seed, epoch=1), n, size, held_out, len(other))),
        splits.note,
    )


@contextmanager
def _nothing_untrained() -> Iterator[None]:
    """Refuse weights that lack a part of the network; other warnings come when the block ends.

    Raises:
        RecipeError: they do.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    for one in caught:
        if issubclass(one.category, UntrainedWarning):
            raise RecipeError(f"{one.message}: an audit of what has learnt nothing says nothing; train it first")
    for one in caught:
        warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


def _check_head(name: str, model: nn.Module, classes: int, *, published: bool) -> None:
    """Refuse published weights whose head is for other classes than the data's: a new one has learnt nothing.

    Raises:
        RecipeError: they are.
    """
    known = getattr(model, "pretrained_cfg", None)
    theirs = known.get("num_classes") if published and isinstance(known, dict) else None
    if theirs is not None and theirs != classes:
        raise RecipeError(
            f"CHECKPOINT {name} has learnt {theirs} classes and the data have {classes}, so its head would be new: "
            "audit weights that were trained on these data"
        )


def _whole(
    batches: Iterator[Any], n: int, size: int, split: str, there: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield the first n batches that are whole."""
    if there < size:
        raise RecipeError(f"the {split} split has {there} examples, fewer than a batch of {size}: --batch-size {there}")
    for number, batch in enumerate(batches):
        if number == n or len(batch) < size:
            return
        yield batch.x, batch.y
