"""The base optimizers, by name: what methods are wrapped around. A new one is an entry in :data:`OPTIMIZERS`.

A recipe may also name any other class by its import path; see :mod:`bisam_lab.run.optimizer`.
"""

from dataclasses import dataclass

__all__ = ["OPTIMIZERS", "PLAIN", "BaseOptimizer"]


@dataclass(frozen=True)
class BaseOptimizer:
    """An optimizer with a short name.

    Attributes:
        name: in a recipe, as ``train.optimizer``; and the name of the method that is this optimizer alone.
        path: of its class, as ``package.module:CLASS``.
        reads: fields of ``train`` that are arguments of the class. Others come from ``train.optimizer_options``.
    """

    name: str
    path: str
    reads: tuple[str, ...]


#: The optimizers with a short name.
OPTIMIZERS = {
    optimizer.name: optimizer
    for optimizer in (
        BaseOptimizer("sgd", "torch.optim:SGD", reads=("lr", "momentum", "weight_decay")),
        BaseOptimizer("adam", "torch.optim:Adam", reads=("lr", "weight_decay")),
        BaseOptimizer("adamw", "torch.optim:AdamW", reads=("lr", "weight_decay")),
    )
}

#: Method names of the base optimizer alone: ``plain`` whatever it is, or its short name.
PLAIN = ("plain", *OPTIMIZERS)
