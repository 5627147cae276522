"""Networks of timm, by name."""

import importlib
from typing import Any

from torch import nn

from ..recipe import RecipeError
from ..recipe.imported import explained
from ..recipe.known import nearest

__all__ = ["build_timm", "extra"]


def extra(module: str, name: str, install: str) -> Any:
    """Import a library that only some models need.

    Raises:
        RecipeError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise RecipeError(f"model.name={name!r} needs {module} ({error}): {install}") from None


def build_timm(name: str, options: dict[str, Any], pretrained: bool, shape: tuple[int, ...], classes: int) -> nn.Module:
    """Build ``timm:NAME`` by ``timm.create_model``, for the data's number of channels and classes.

    A network made for images of one size, such as a ViT, is told the data's. Pretrained weights have seen images
    normalised with mean and deviation of their own; here they see the data set's, as all networks do, and adapt.

    Raises:
        RecipeError: timm is missing, or has no such model, or refuses it.
    """
    timm = extra("timm", name, "pip install timm")
    known = name.removeprefix("timm:")
    elsewhere = known.startswith(("hf-hub:", "hf_hub:", "local-dir:"))
    if not elsewhere and not timm.is_model(known):
        raise RecipeError(f"model.name={name!r}: timm has no {known}{nearest(known, timm.list_models())}")
    arguments = {"pretrained": pretrained, "num_classes": classes, "in_chans": shape[0], **options}
    with explained(f"model.name={name!r}: timm", "see model.options, and whether the weights can be fetched"):
        published = None if elsewhere else timm.get_pretrained_cfg(known)
        if published is None or not published.fixed_input_size or published.input_size[1:] == shape[1:]:
            model: nn.Module = timm.create_model(known, **arguments)
            return model
        try:
            model = timm.create_model(known, **{"img_size": shape[1:], **arguments})
        except TypeError as error:
            if "img_size" not in str(error):
                raise
            model = timm.create_model(known, **arguments)  # made for one size, without an argument for it
    return model
