"""Sequence classifiers of transformers, for texts in one tensor."""

import contextlib
import inspect
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..recipe import RecipeError
from ..recipe.imported import explained
from ..recipe.known import nearest
from .outside import extra
from .weights import UntrainedWarning

__all__ = ["TextClassifier", "build_text_classifier"]


class TextClassifier(nn.Module):
    """A sequence classifier that takes token ids, attention mask and token types as one tensor.

    Args:
        model: of transformers, with ``logits`` in its output.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.typed = "token_type_ids" in inspect.signature(model.forward).parameters

    def forward(self, x: Tensor) -> Tensor:
        """Map ids, mask and types (B, 3, S), int64, to logits (B, classes)."""
        types = {"token_type_ids": x[:, 2]} if self.typed else {}
        logits: Tensor = self.model(input_ids=x[:, 0], attention_mask=x[:, 1], **types).logits
        return logits


def build_text_classifier(
    name: str,
    options: dict[str, Any],
    pretrained: bool,
    shape: tuple[int, ...],
    classes: int,
    vocabulary: int | None = None,
) -> nn.Module:
    """Build ``hf:NAME``: of a folder, of the hub, or, where NAME is a type of model such as bert, from ``options``.

    The options are fields of the model's configuration, such as {hidden_size: 32, num_hidden_layers: 2}. A bare type
    gets as many embeddings as the ``vocabulary`` of the texts has tokens.

    Raises:
        RecipeError: transformers is missing, the data are no texts, no such model or option, or the model is refused.
    """
    if len(shape) != 2:
        raise RecipeError(
            f"model.name={name!r} reads texts, and the data are images of shape {shape}: choose data.name=glue:TASK "
            "or text:PATH, or another model"
        )
    transformers = extra("transformers", name, "pip install 'bisam[transformers]'")
    source = name.removeprefix("hf:")
    source = str(Path(source).expanduser()) if source.startswith("~") else source
    auto = transformers.AutoModelForSequenceClassification
    remedy = "NAME is that of a model on the hub, of a folder, or a type such as bert; see model.options"
    with explained(f"model.name={name!r}: transformers", remedy):
        config = _config(transformers, name, source, {**options, "num_labels": classes}, pretrained, vocabulary)
        if not pretrained:
            return TextClassifier(auto.from_config(config, dtype=torch.get_default_dtype()))
        with _quiet(transformers):
            model, loaded = auto.from_pretrained(
                source,
                config=config,
                dtype=torch.get_default_dtype(),
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    _report(name, loaded, classes)
    return TextClassifier(model).train()


@contextlib.contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Keep transformers' own report of what it loads, and its bar, off the terminal: :func:`_report` says it."""
    logging = transformers.utils.logging
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def _config(
    transformers: Any, name: str, source: str, fields: dict[str, Any], pretrained: bool, vocabulary: int | None
) -> Any:
    """Return the configuration with ``fields`` in it; none of them may be unknown to it."""
    types = transformers.CONFIG_MAPPING
    if not pretrained and source in types and not Path(source).is_dir():
        default = types[source]()
        fields = ({} if vocabulary is None else {"vocab_size": vocabulary}) | fields
        unknown = [field for field in fields if not hasattr(default, field)]
        config = None if unknown else transformers.AutoConfig.for_model(source, **fields)
    else:
        config, unknown = transformers.AutoConfig.from_pretrained(source, return_unused_kwargs=True, **fields)
        default = config
    if unknown:
        known = [field for field in dir(default) if not field.startswith("_")]
        raise RecipeError(
            f"model.options: {', '.join(sorted(unknown))} is no field of {type(default).__name__}"
            f"{nearest(min(unknown), known)} (model.name={name!r})"
        )
    return config


def _report(name: str, loaded: dict[str, Any], classes: int) -> None:
    """Say which weights start at their initialisation: a head may, for another number of classes; no other shape."""
    other = [(key, tuple(theirs), tuple(ours)) for key, theirs, ours in loaded["mismatched_keys"]]
    wrong = [
        f"{key} {theirs} for {ours}" for key, theirs, ours in other if ours[:1] != (classes,) or theirs[1:] != ours[1:]
    ]
    if wrong:
        raise RecipeError(
            f"model.name={name!r}: the published weights have other shapes than model.options asks for: "
            f"{', '.join(wrong[:3])}"
        )
    fresh = sorted({*loaded["missing_keys"], *(key for key, *_ in other)})
    if fresh:
        told = f"model.name={name!r}: not pretrained are {', '.join(fresh)}"
        warnings.warn(told, UntrainedWarning, stacklevel=2)
