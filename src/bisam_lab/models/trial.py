"""Networks that are not ours are tried out on an empty input before a training starts."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..recipe import RecipeError
from ..recipe.imported import explained

__all__ = ["try_out"]


def try_out(model: nn.Module, name: str, shape: tuple[int, ...], classes: int) -> None:
    """Pass two empty inputs of ``shape`` through the network, and leave it, and torch's random numbers, as they were.

    An empty image is all zeros, an empty text (of shape (3, S)) repeats token 0. Layers that take their sizes from the
    first input (``nn.LazyLinear``) get them here, with weights that depend on the seed like all others.

    Raises:
        RecipeError: the pass raises, or returns anything but logits of shape (2, classes).
    """
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    x = torch.zeros(2, *shape, device=device)
    if len(shape) == 2:
        x = x.long()
        x[:, 1] = 1
    training = {module: module.training for module in model.modules()}
    buffers = [
        (module, key, buffer, buffer.clone())
        for module in model.modules()
        for key, buffer in module.named_buffers(recurse=False)
        if not is_lazy(buffer)
    ]
    remedy = f"it must take inputs of shape (B, {', '.join(map(str, shape))}) as the data are"
    try:
        with explained(f"model.name={name!r}: a first pass", remedy), _random_numbers_kept(device), torch.no_grad():
            logits = model.eval()(x)
    finally:
        for module, mode in training.items():
            module.training = mode
        for module, key, buffer, before in buffers:
            setattr(module, key, buffer.copy_(before))
    if not isinstance(logits, Tensor):
        raise RecipeError(
            f"model.name={name!r}: its forward returns a {type(logits).__name__}; it must return the logits alone, "
            f"a tensor of shape (B, {classes})"
        )
    if logits.shape != (2, classes):
        raise RecipeError(
            f"model.name={name!r}: its forward returns shape {tuple(logits.shape)} for 2 inputs; the data have "
            f"{classes} classes, so it must be (2, {classes})"
        )


@contextlib.contextmanager
def _random_numbers_kept(device: torch.device) -> Iterator[None]:
    kept = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=kept):
        yield
