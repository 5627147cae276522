"""The networks, by name."""

from torch import nn

from ..recipe import ModelRecipe, RecipeError
from ..recipe.known import AS_CODE, is_our_model
from .densenet import DenseNet
from .imported import build_imported
from .lora import add_lora
from .outside import build_timm
from .resnet import ResNet
from .text import TextClassifier, build_text_classifier
from .trial import try_out
from .vgg import VGG
from .weights import load_weights
from .wide_resnet import WideResNet

__all__ = ["VGG", "DenseNet", "ResNet", "TextClassifier", "WideResNet", "build_model"]


def build_model(recipe: ModelRecipe, shape: tuple[int, ...], classes: int, vocabulary: int | None = None) -> nn.Module:
    """Build the recipe's network for inputs of ``shape`` (without the batch), with ``classes`` logits.

    Its initial weights depend on torch's seed alone. Networks that are not ours are tried out on an empty input.

    Args:
        recipe: its name, options, the weights to start from, and the adapters.
        shape: (channels, height, width) of images, or (3, S) of texts: ids, attention mask and token types.
        classes: how many.
        vocabulary: how many tokens there are, of texts.

    Raises:
        RecipeError: no such network, options that its builder refuses, data or weights that do not fit it.
    """
    if is_our_model(recipe.name):
        model = _build_ours(recipe, shape, classes)
    else:
        model = _build_outside(recipe, shape, classes, vocabulary)
        try_out(model, recipe.name, shape, classes)
    if recipe.checkpoint is not None:
        load_weights(model, recipe.checkpoint, classes)
    if recipe.lora.r:
        add_lora(model, recipe.lora, recipe.name, classes)
    return model


def _build_ours(recipe: ModelRecipe, shape: tuple[int, ...], classes: int) -> nn.Module:
    if len(shape) != 3:
        raise _no_images(recipe, shape)
    family, *numbers = recipe.name.split("-")
    options = {**AS_CODE.get(recipe.name, {}), **recipe.options}
    try:
        if family == "resnet":
            return ResNet(int(numbers[0]), shape[0], classes, **options)
        if family == "wrn":
            return WideResNet(int(numbers[0]), int(numbers[1]), shape[0], classes, **options)
        return (DenseNet if family == "densenet" else VGG)(shape[0], classes, **options)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"model.name={recipe.name!r}: {error}") from None


def _build_outside(recipe: ModelRecipe, shape: tuple[int, ...], classes: int, vocabulary: int | None) -> nn.Module:
    given = sorted({"num_classes", "num_labels"} & set(recipe.options))
    if given:
        raise RecipeError(f"model.options.{given[0]}: the data say how many classes there are; leave it out")
    if recipe.name.startswith("hf:"):
        return build_text_classifier(recipe.name, recipe.options, recipe.pretrained, shape, classes, vocabulary)
    if recipe.name.startswith("timm:"):
        if len(shape) != 3:
            raise _no_images(recipe, shape)
        return build_timm(recipe.name, recipe.options, recipe.pretrained, shape, classes)
    return build_imported(recipe.name, recipe.options, shape, classes)


def _no_images(recipe: ModelRecipe, shape: tuple[int, ...]) -> RecipeError:
    return RecipeError(
        f"model.name={recipe.name!r} reads images, and the data's inputs have shape {shape}: choose hf:NAME, or a "
        "network of your own"
    )
