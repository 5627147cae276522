"""What ``step()`` asks of the gradient that it is about to apply, and what a run is told of its cadence."""

import warnings

from ..cadence import Cadence, Tail
from .context import RunRecord, StepContext
from .saved import is_not_zero

__all__ = ["check_gradient", "warn_if_never_opened", "warn_if_too_long", "warn_of_foreign_gradients"]

#: What to say of a loop that was left, by whether a whole gradient was lost.
_LEFT = {
    False: (
        "the last loop over passes() was left in pass {index}, before its last backward(), so there is no gradient: "
        "let the loop run to its end, without break, and call zero_grad() where it was left on purpose"
    ),
    True: (
        "the last loop over passes() was left in pass {index}, its last one, before the iterator was asked once more, "
        "so that pass's gradient was dropped: let `for objective in opt.passes()` run to its end. break, islice() and "
        "zip() end it too early (zip(opt1.passes(), opt2.passes(), strict=True) does not), and so does next() by "
        "hand in a function of its own. Call zero_grad() where it was left on purpose"
    ),
}


def check_gradient(context: StepContext) -> None:
    """Refuse a step without a sharpness-aware gradient; where there is one, nothing is looked at.

    Raises:
        RuntimeError: a loop was left early; gradients that no loop has made.
    """
    left, context.left = context.left, None
    if left is not None and (left.lost or not context.counts):  # a micro-batch may have been given up
        raise RuntimeError(_LEFT[left.lost].format(index=left.index))
    if context.counts:
        return
    groups = [group for group in context.groups if group["rho"] > 0]
    rates = any(group.get("lr", 1.0) != 0 for group in groups)
    if rates and any(is_not_zero(param.grad) for group in groups for param in group["params"]):
        raise RuntimeError(
            "step() found gradients, and no loop over passes() has run since the last step, so it would be a plain "
            f"step of {type(context.base).__name__}. Write `for objective in opt.passes(): objective(model(x), y)"
            ".backward()` before opt.step(). In Hugging Face's Trainer use SharpnessAwareTrainer, in Lightning "
            "SharpnessAwareMixin, both of bisam.integrations. A plain step on purpose is opt.base.step()"
        )


def warn_of_foreign_gradients(context: StepContext) -> None:
    """Look once whether a ``backward()`` before ``step(closure)`` is going to count twice."""
    if "foreign" not in context.warned and context.saved is not None and context.saved.carried.any:
        warnings.warn(
            "step(closure) found gradients that no loop over passes() has made, and adds its own to them: leave out "
            "the backward() before step(closure), which computes every gradient itself, or call zero_grad() in the "
            "closure",
            stacklevel=5,
        )
    context.warned.add("foreign")


def warn_if_never_opened(record: RunRecord, cadence: str) -> None:
    """Say that a run has ended and was plain to the end; called when the optimizer is gone."""
    if record.steps and not record.opened:
        warnings.warn(
            f"cadence={cadence} perturbed none of the {record.steps} steps that this optimizer took, so it was the "
            "plain base optimizer: count the calls of opt.step(), not epochs, and compare them with the training's "
            "length",
            stacklevel=2,
        )


def warn_if_too_long(context: StepContext, cadence: Cadence) -> None:
    """Say that a training goes on after the end that its tail was planned for."""
    if isinstance(cadence, Tail) and context.memory.step == cadence.total_steps + 1:
        warnings.warn(
            f"cadence={cadence!r} is in step {cadence.total_steps + 1}, after the end of the training: pass "
            "total_steps=, the number of opt.step() calls of the whole training",
            stacklevel=3,
        )
