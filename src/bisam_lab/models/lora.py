"""Low-rank adapters in a network, by peft."""

from typing import Any

from torch import nn

from ..recipe import LoraRecipe, RecipeError
from ..recipe.imported import explained
from .outside import extra
from .text import TextClassifier

__all__ = ["add_lora"]

#: The heads of transformers' sequence classifiers.
_HEADS = ("classifier", "score")


def add_lora(model: nn.Module, lora: LoraRecipe, name: str, classes: int) -> None:
    """Put adapters beside the target layers of a network, and freeze all weights but theirs and the head's.

    The adapters' product is zero at first, so the network's outputs are as before.

    Args:
        model: changed in place.
        lora: rank, scale, dropout and targets.
        name: of the network, for messages.
        classes: logits of the head.

    Raises:
        RecipeError: peft is missing, knows no targets for this network, or finds none of those named.
    """
    peft = extra("peft", name, "pip install 'bisam[transformers]'")
    head = {id(p) for p in _head(model, classes, name).parameters()}
    with explained(
        f"model.lora of model.name={name!r}: peft", "model.lora.targets names layers, such as [query, value]"
    ):
        config = peft.LoraConfig(
            r=lora.r,
            lora_alpha=2 * lora.r if lora.alpha is None else lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=list(lora.targets or _usual_targets(peft, model, name)),
        )
        peft.inject_adapter_in_model(config, model)
    for key, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in key or id(parameter) in head)


def _usual_targets(peft: Any, model: nn.Module, name: str) -> list[str]:
    """Return the layers that peft adapts in a model of transformers.

    Raises:
        RecipeError: it knows none for this type, or the network is not of transformers.
    """
    known: dict[str, list[str]] = peft.utils.constants.TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
    kind = getattr(getattr(getattr(model, "model", None), "config", None), "model_type", None)
    if kind not in known:
        raise RecipeError(
            f"model.lora.targets of model.name={name!r}: peft knows no usual layers of this network: name ends of "
            f"their names, such as {_some_layers(model)}"
        )
    return known[kind]


def _some_layers(model: nn.Module) -> str:
    names = [key.rpartition(".")[2] for key, module in model.named_modules() if isinstance(module, nn.Linear)]
    return f"[{', '.join(dict.fromkeys(names[:-1] or names))}]"


def _head(model: nn.Module, classes: int, name: str) -> nn.Module:
    """Return the head: that of transformers, or the last linear layer with an output a class.

    Raises:
        RecipeError: there is none.
    """
    inner = model.model if isinstance(model, TextClassifier) else model
    for key in _HEADS:
        if isinstance(inner, nn.Module) and isinstance(found := getattr(inner, key, None), nn.Module):
            return found
    heads = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == classes]
    if not heads:
        raise RecipeError(f"model.lora of model.name={name!r}: no linear layer of {classes} outputs is its head")
    return heads[-1]
