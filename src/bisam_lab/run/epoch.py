"""The numbers of one epoch, and how they are read and checked."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from ..errors import one_line, shown
from ..untrusted import check_text

__all__ = ["Epoch", "check_numbers", "check_order", "check_wholes", "check_words", "read_epoch"]


@dataclass(frozen=True)
class Epoch:
    """The numbers of one epoch.

    Attributes:
        epoch: its number, from 1.
        train_loss: mean over the steps of the descent objective on each step's batch.
        loss_at: the weights at which it is taken: "w", so that methods compare, or "w + eps" for methods whose one pass
            is there, and in results that were written before this was recorded.
        passes: of a mean step, in forward-backward passes over the whole batch; NaN where it was not recorded.
        validation_score: in the recipe's metric, as a fraction.
        learning_rate: after its last step.
        seconds: of training, without evaluation.
        steps: of the optimizer; 0 where they were not recorded.
        rho: the radius after its last step; 0 for the plain optimizer. NaN where it was not recorded, as all below.
        eps_norm: mean of ||eps|| over the steps that perturbed; 0 where none did.
        gradient_norm: mean over the steps of the norm of the gradient that the optimizer gets, before clipping. Steps
            whose gradient is not finite do not count.
        train_score: in the recipe's metric, as a fraction, of the predictions that the passes at w made while training,
            against the labels of the training, wrong ones included. NaN for methods whose one pass is at w + eps.
        climbed: share of the steps that looked for a perturbation; 0 while a window is shut. A step that takes several
            loops over passes, as mSAM's, counts as so many.
        vanished: of these, the share in which the weights did not move, because the ascent gradient was zero or not
            finite.
        ascent_samples: effective number of samples of the ascent gradient, (sum w)^2 / sum w^2, with w the l1 norm of
            the objective's gradient at a sample's logits: mean over the steps that climbed. NaN without an ascent pass.
        error_rise: error of the batch at w + eps minus that at w, as a fraction: mean over the steps that perturbed.
            NaN where the two passes do not have the same samples, or none is at w.
        perturbed_loss: the descent objective at w + eps: mean over the steps that perturbed.
        chance_loss: log K, the loss of uniform predictions.
        same_class: share of the validation examples whose predicted class is the commonest one.
    """

    epoch: int
    train_loss: float
    validation_score: float
    learning_rate: float = 0.0
    seconds: float = 0.0
    loss_at: str = "w + eps"
    passes: float = math.nan
    steps: int = 0
    rho: float = math.nan
    eps_norm: float = math.nan
    gradient_norm: float = math.nan
    train_score: float = math.nan
    climbed: float = math.nan
    vanished: float = math.nan
    ascent_samples: float = math.nan
    error_rise: float = math.nan
    perturbed_loss: float = math.nan
    chance_loss: float = math.nan
    same_class: float = math.nan


def read_epoch(values: Any) -> Epoch:
    """Read an epoch. null is a loss that was not finite. Values that only a newer version knows are ignored.

    Raises:
        TypeError: a value is missing, or of another type.
    """
    if not isinstance(values, dict):
        raise TypeError("an epoch is no mapping")
    known = {f.name for f in fields(Epoch)}
    kept: dict[str, Any] = {k: math.nan if value is None else value for k, value in values.items() if k in known}
    epoch = Epoch(**kept)
    check_numbers(epoch, *(f.name for f in fields(Epoch) if f.type in (float, "float")))
    check_wholes(epoch, "epoch", "steps")
    check_words(epoch, "loss_at")
    return epoch


def check_order(history: Sequence[Epoch]) -> None:
    """Check that the epochs are numbered 1, 2, 3 and so on.

    Raises:
        ValueError: they are not.
    """
    for number, epoch in enumerate(history, 1):
        if epoch.epoch != number:
            raise ValueError(f"epoch {one_line(repr(epoch.epoch), 30)} where epoch {number} should be")


def check_words(of: object, *names: str) -> None:
    """Refuse what is no text: JSON does not check a field's kind.

    Raises:
        TypeError: naming the field.
    """
    for name in names:
        value = getattr(of, name)
        if not isinstance(value, str):
            raise TypeError(f"{name}={one_line(repr(value), 30)} is no text")
        check_text(name, value)


def check_wholes(of: object, *names: str) -> None:
    """Refuse what is no whole number from 0.

    Raises:
        TypeError: naming the field.
    """
    for name in names:
        value = getattr(of, name)
        if type(value) is not int or not 0 <= value < 2**63:
            raise TypeError(f"{name}={shown(value, 30)} is no whole number from 0")


def check_numbers(of: object, *names: str) -> None:
    """Refuse what is no number.

    Raises:
        TypeError: naming the field.
    """
    for name in names:
        value = getattr(of, name)
        if type(value) not in (int, float):
            raise TypeError(f"{name}={shown(value, 30)} is no number")
