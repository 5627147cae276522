"""Pretrained weights by the name under which `bisam data fetch` gets them, or by their package: where they lie."""

from pathlib import Path

from ..datasets import DataSet
from ..datasets.registry import WEIGHTS, of_package
from ..recipe import ModelRecipe, RecipeError

__all__ = ["located"]


def located(model: ModelRecipe, data_dir: Path | None) -> ModelRecipe:
    """Return the recipe of a network with paths in place of names of published weights.

    A path of that name in the working directory comes first.

    Raises:
        RecipeError: the weights are not in ``data_dir``, or are of the other kind: a file for ``checkpoint``, a folder
            for ``hf:``.
    """
    update = {}
    if model.checkpoint is not None and (found := _entry(model.checkpoint)) is not None:
        update["checkpoint"] = str(_path(found, f"model.checkpoint={model.checkpoint}", "model.checkpoint=", data_dir))
    if model.tokenizer is not None and (found := _entry(model.tokenizer)) is not None:
        update["name"] = f"hf:{_path(found, f'model.name={model.name}', 'model.name=hf:', data_dir)}"
    return model.model_copy(update=update)


def _entry(name: str) -> DataSet | None:
    return None if Path(name).expanduser().exists() else WEIGHTS.get(of_package(name))


def _path(entry: DataSet, what: str, form: str, data_dir: Path | None) -> Path:
    if form not in entry.recipe:
        raise RecipeError(f"{what} is no place for these weights: say {entry.recipe}")
    if data_dir is None:
        raise RecipeError(f"{what} is read from disk: give the folder that holds {entry.inside[0]} with --data-dir")
    path = entry.present(data_dir)
    if path is None:
        raise RecipeError(f"{what}: `bisam data fetch {entry.name} --data-dir {data_dir}` gets it")
    return path
