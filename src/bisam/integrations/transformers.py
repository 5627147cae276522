"""Sharpness-aware training in the Hugging Face Trainer.

    trainer = SharpnessAwareTrainer(model=model, args=args, train_dataset=data, sharpness=partial(BiSAM, rho=0.1))

Everything else stays the Trainer's: its optimizer from the ``TrainingArguments``, its loss, its loop.
"""

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import Trainer

from .._step.objective import Objective
from ..optimizer import SharpnessAware
from . import _transformers as conventions
from ._chunked_head import ChunkedHead

__all__ = ["SharpnessAwareTrainer", "SharpnessAwareTrainerMixin"]

if TYPE_CHECKING:
    _Trainer = Trainer
else:
    _Trainer = object


class SharpnessAwareTrainerMixin(_Trainer):
    """Makes any ``Trainer`` class sharpness-aware: ``class Mine(SharpnessAwareTrainerMixin, ItsTrainer)``.

    Each micro-batch runs the passes of ``opt.passes()``, with a perturbation of its own (mSAM). The loss that is
    descended is exactly what ``compute_loss`` returns, whoever overrides it; so is the ascent of SAM and ASAM. Where
    the ascent is another objective (BiSAM), it takes the logits of the same forward pass and the batch's labels,
    :meth:`logits_and_labels`. The loss that is logged is that of the last pass, at w + eps. The one at w compares with
    a plain Trainer's: ``trainer.sharpness_aware.last.loss``.

    Example:
        >>> from bisam import SAM
        >>> from transformers import Trainer
        >>> class Mine(SharpnessAwareTrainerMixin, Trainer):
        ...     def make_sharpness_aware(self, base, model):
        ...         return SAM(base, model=model, rho=0.1)

    Args:
        args: those of the Trainer; ``optimizers=`` may hold a sharpness-aware optimizer.
        sharpness: makes one of a plain optimizer, the Trainer's own or that of ``optimizers=``; called as
            ``sharpness(base, model=model)``. For instance ``functools.partial(BiSAM, rho=0.1)``.
        chunked_head: compute the loss of a causal language model, and BiSAM's lower bound, from what goes into its
            head, chunk by chunk of tokens (:class:`~bisam.ChunkedHeadLoss`), so that the logits of all tokens never
            stand in memory at once. Evaluation has all logits as before.
        kwargs: those of the Trainer.

    Raises:
        TypeError: ``sharpness`` is a name, an optimizer that is built already, or something else that cannot be called.
        ValueError: ``sharpness`` with an optimizer that is sharpness-aware already; an engine, an ``optim`` or a
            ``descent=`` that cannot work here, by name; ``chunked_head`` for a model whose loss is not known to be that
            of its head's plain logits, or with another loss or ascent than those. At the start of training: neither of
            the two ways was taken.
    """

    def __init__(
        self,
        *args: Any,
        sharpness: Callable[..., SharpnessAware] | None = None,
        chunked_head: bool = False,
        **kwargs: Any,
    ) -> None:
        conventions.check_sharpness(sharpness)
        super().__init__(*args, **kwargs)
        self.sharpness = sharpness
        conventions.check_engine(self)
        self.chunked_head = ChunkedHead(self) if chunked_head else None
        given = conventions.unwrapped(self.optimizer)
        if given is not None:
            conventions.check_descent(given)
            if sharpness is not None:
                raise ValueError(
                    f"optimizers= holds a {type(given).__name__} and sharpness={sharpness!r} would wrap it again: "
                    "pass one of the two"
                )

    # -- the optimizer -------------------------------------------------------------------------------------------

    def create_optimizer(self, model: nn.Module | None = None) -> Optimizer:
        """Let the Trainer build its optimizer, and wrap it."""
        made = super().create_optimizer() if model is None else super().create_optimizer(model)
        if conventions.unwrapped(made) is None:
            trained: Any = self.model if model is None else model
            ours = self.make_sharpness_aware(conventions.plain_optimizer(made), trained)
            if not isinstance(ours, SharpnessAware):
                raise TypeError(
                    f"sharpness={self.sharpness!r} returned {type(ours).__name__}: it must return a sharpness-aware "
                    "optimizer, for instance functools.partial(BiSAM, rho=0.1)"
                )
            conventions.check_descent(ours)
            self.optimizer = made = ours
        return made

    def make_sharpness_aware(self, base: Optimizer, model: nn.Module) -> SharpnessAware:
        """Wrap the Trainer's optimizer; override it to choose in code, for instance radii per group.

        Raises:
            ValueError: nothing says how.
        """
        if self.sharpness is None:
            raise ValueError(
                f"{type(self).__name__} has no sharpness-aware optimizer: pass sharpness=functools.partial(BiSAM, "
                "rho=0.05), or optimizers=(BiSAM(...), None), or use the plain Trainer"
            )
        return self.sharpness(base, model=model)

    @property
    def sharpness_aware(self) -> SharpnessAware:
        """The sharpness-aware optimizer, out of accelerate's wrapper: its ``last``, ``param_groups`` and ``passes()``.

        Raises:
            RuntimeError: there is none yet; the Trainer builds it as training starts.
        """
        found = conventions.unwrapped(self.optimizer)
        if found is None:
            raise RuntimeError(
                f"the optimizer is {type(self.optimizer).__name__}, not sharpness-aware: read it during or after "
                "train(), and let create_optimizer() of SharpnessAwareTrainer build it"
            )
        return found

    # -- the step ------------------------------------------------------------------------------------------------

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Run the passes of one micro-batch, each pass a training step of the Trainer's own.

        Returns:
            The loss of the last pass, as the Trainer scales it.
        """
        opt = self.sharpness_aware
        self._follow(opt, model)
        scaler = self.accelerator.scaler
        value: Tensor | None = None
        with _in_training_mode(opt):
            for objective in opt.passes() if scaler is None else opt.passes(grad_scale=scaler):
                if conventions.wants_descent(objective, opt):
                    with self.chunked_head.in_place() if self.chunked_head else contextlib.nullcontext():
                        value = super().training_step(model, copy.copy(inputs), num_items_in_batch)
                    objective.record(value)
                else:
                    self._ascend(objective, model, copy.copy(inputs), num_items_in_batch)
        if value is None:
            raise RuntimeError("opt.passes() yielded no pass of the descent objective, so there is no loss to report")
        return value

    def _ascend(self, objective: Objective, model: nn.Module, inputs: dict[str, Any], num_items: Any) -> None:
        """Go through the same forward pass as the Trainer, then backward from another objective."""
        model.train()
        inputs = self._prepare_inputs(inputs)
        given = copy.copy(inputs)  # compute_loss() may take the labels out
        chunked = self.chunked_head.in_place(objective) if self.chunked_head else contextlib.nullcontext()
        with chunked as found, self.compute_loss_context_manager():
            result = self.compute_loss(model, inputs, return_outputs=True, num_items_in_batch=num_items)
            if not isinstance(result, tuple) or len(result) != 2:
                raise TypeError(
                    f"{type(self).__name__}.compute_loss(..., return_outputs=True) returned {type(result).__name__}: "
                    "it must return (loss, outputs), for the ascent objective needs the logits"
                )
            value = found[0] if found else objective(*self.logits_and_labels(result[1], given))
            objective.loss_at_w = self._as_logged(result[0].detach(), num_items)
        self.accelerator.backward(value / self.current_gradient_accumulation_steps)

    def _as_logged(self, loss: Tensor, num_items: Any) -> Tensor:
        """Scale a loss of :meth:`compute_loss` as the Trainer does before it logs it."""
        scaled = getattr(self, "loss_is_scaled_for_ga", None)
        if scaled is None:
            scaled = (self.model_accepts_loss_kwargs and num_items is not None) or self.compute_loss_func is not None
        return loss.mean() if scaled else loss.mean() / self.current_gradient_accumulation_steps

    def logits_and_labels(self, outputs: Any, inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Return what an ascent objective takes; override it for models whose outputs or labels have other names.

        Labels are looked up by the Trainer's ``label_names`` and ignored where they are -100; sequences are flattened,
        and those of causal language models shifted, except for a :class:`~bisam.CausalLMLoss`, which does
        that itself.

        Args:
            outputs: what the model returned.
            inputs: the batch as it was before ``compute_loss``, on the device.

        Raises:
            TypeError: ``outputs`` has no logits.
            ValueError: labels that cannot be told, are no classes, or do not belong to the logits.
        """
        ascent: Any = self.sharpness_aware.estimator.ascent
        found: tuple[Tensor, Tensor] = conventions.logits_and_labels(self, outputs, inputs, ascent)
        return found

    def _follow(self, opt: SharpnessAware, model: nn.Module) -> None:
        """Tell the optimizer which model is trained: wrapped by now, in DDP for instance."""
        if opt.model is model:
            return
        trained = {param for param in model.parameters() if param.requires_grad}
        if not any(param in trained for group in opt.param_groups for param in group["params"]):
            raise ValueError(
                "the optimizer holds none of the parameters that this model trains: build it on the model that the "
                "Trainer gets, after adapters are added, or let sharpness= build it"
            )
        opt.model = model


class SharpnessAwareTrainer(SharpnessAwareTrainerMixin, Trainer):
    """The ``Trainer`` with sharpness-aware gradients; see :class:`SharpnessAwareTrainerMixin`.

    Example:
        >>> from functools import partial
        >>> from bisam import BiSAM
        >>> def trained(model, args, data):
        ...     trainer = SharpnessAwareTrainer(
        ...         model=model, args=args, train_dataset=data, sharpness=partial(BiSAM, rho=0.1)
        ...     )
        ...     return trainer.train()
    """


@contextlib.contextmanager
def _in_training_mode(opt: SharpnessAware) -> Iterator[None]:
    """Give a schedule-free base its training weights before the passes: the Trainer does so within, which ends them."""
    switch = getattr(opt, "train", None)
    if not callable(switch):
        yield
        return
    switch()
    opt.train = lambda mode=True: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        del opt.train
