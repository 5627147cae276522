"""The two modes of BatchNorm in which a network is audited, and its state before and after."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias, get_args

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["STATISTICS", "Statistics", "statistics", "untouched", "uses_batch_statistics"]

Statistics: TypeAlias = Literal["batch", "running"]
STATISTICS: tuple[Statistics, ...] = get_args(Statistics)


def uses_batch_statistics(model: nn.Module) -> bool:
    """Whether the two modes can differ: whether a BatchNorm layer keeps running statistics."""
    return any(isinstance(module, _BatchNorm) and module.track_running_stats for module in model.modules())


@contextmanager
def statistics(model: nn.Module, kind: Statistics) -> Iterator[None]:
    """Put the network in evaluation mode; with ``batch``, its BatchNorm layers normalise by the batch, as in training.

    Dropout is off in both, so that a perturbation alone changes the outputs. Buffers and modes are put back at the end.
    """
    modes = {module: module.training for module in model.modules()}
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    model.eval()
    if kind == "batch":
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.train()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Leave weights, gradients and torch's random state as they were, to the bit, also after an exception."""
    params = list(model.parameters())
    devices = {param.device for param in params if param.device.type == "cuda"}
    weights = [param.detach().clone() for param in params]
    gradients = [param.grad for param in params]
    with torch.random.fork_rng(devices=sorted(devices, key=str)):
        try:
            yield
        finally:
            with torch.no_grad():
                for param, weight, gradient in zip(params, weights, gradients, strict=True):
                    param.grad = gradient
                    if not torch.equal(param.detach(), weight):
                        param.copy_(weight)
