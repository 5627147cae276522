"""A causal language model's loss through its head in chunks, while the model itself runs as it is.

For the time of a forward pass the head hands its input on, and the model's ``loss_function`` is one that takes it for
what it is: the features. It computes the same loss chunk by chunk. Whatever the model does to its logits in between
(soft-capping, a scale, a cut) would act on the features instead; the loss sees that it was not given the very tensor
that came out of the head, and refuses.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, Trainer
from transformers.loss.loss_utils import ForCausalLMLoss

from .._step.objective import Objective
from ..losses.head import ChunkedHeadLoss
from ..losses.language import CausalLMLoss
from ..losses.modules import LowerBoundLoss

__all__ = ["ChunkedHead"]

_IGNORED = -100  # throughout transformers
_PLAIN = "leave out chunked_head=True"


class ChunkedHead:
    """The head of a trainer's causal language model, whose loss is computed in chunks.

    Args:
        trainer: whose ``compute_loss`` is the Trainer's own.

    Raises:
        ValueError: a model whose head or loss is not known, a loss that is not the model's own.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._check_loss()
        self._check_model()

    @contextlib.contextmanager
    def in_place(self, objective: Objective | None = None) -> Iterator[list[Tensor]]:
        """Let the model compute its loss in chunks.

        Args:
            objective: of an ascent pass; then the model's own loss has no gradient, and the objective's is yielded.

        Yields:
            A list, empty at first, of the objective's value.

        Raises:
            ValueError: the model did something else with the head's output than to take its loss.
        """
        model = self._check_model()
        head: Any = model.get_output_embeddings()
        found: list[Tensor] = []
        given: list[Tensor] = []
        calls: list[int] = []

        def hand_on(features: Tensor) -> Tensor:
            given.append(features)
            return features

        def loss(logits: Tensor, labels: Tensor, vocab_size: int, *args: Any, **kwargs: Any) -> Tensor:
            calls.append(vocab_size)
            if not any(logits is features for features in given):
                raise ValueError(
                    f"chunked_head=True cannot train {type(model).__name__}: between its head and its loss it changes "
                    f"the logits (soft-capping, a scale or another dtype), and chunks would skip that: {_PLAIN}"
                )
            features, target = _shifted(logits, labels, kwargs.pop("shift_labels", None))
            if objective is None:
                return _own_loss(head, features, target, *args, **kwargs)
            found.append(_climbed(objective, head, features, target))
            with torch.no_grad():
                return _own_loss(head, features.detach(), target, *args, **kwargs)

        before = model.__dict__.get("_loss_function", None)
        model.loss_function = loss
        head.forward = hand_on
        try:
            yield found
        finally:
            del head.forward
            if before is None:
                del model._loss_function
            else:
                model.loss_function = before
        if len(calls) != 1:
            raise ValueError(
                f"chunked_head=True cannot train {type(model).__name__}: in one forward pass it called its "
                f"loss_function {len(calls)} times, so its loss is another one than that of its head's logits (is "
                f"there a tensor of labels in the batch?): {_PLAIN}"
            )

    def _check_loss(self) -> None:
        trainer: Any = self._trainer
        own = type(trainer).compute_loss is not Trainer.compute_loss
        for wrong, what in (
            (trainer.label_smoother is not None, "label_smoothing_factor"),
            (trainer.compute_loss_func is not None, "compute_loss_func"),
            (own, f"{type(trainer).__name__}.compute_loss()"),
            (trainer.args.torch_compile, "torch_compile"),
            (trainer.args.n_gpu > 1, "DataParallel over several GPUs in one process"),
        ):
            if wrong:
                raise ValueError(
                    f"chunked_head=True computes the model's own loss from what goes into its head, which {what} does "
                    f"not allow for: {_PLAIN}, or do without {what}"
                )

    def _check_model(self) -> Any:
        """Return the model without wrappers.

        Raises:
            ValueError: its head or its loss is not the one that is known.
        """
        model: Any = self._trainer.accelerator.unwrap_model(self._trainer.model)
        model = model.get_base_model() if hasattr(model, "get_base_model") else model  # PEFT
        name = type(model).__name__
        if not isinstance(model, PreTrainedModel) or model.loss_function is not ForCausalLMLoss:
            raise ValueError(
                f"chunked_head=True is for causal language models of transformers with their own loss, and {name} has "
                f"another one: {_PLAIN}"
            )
        head: Any = model.get_output_embeddings()  # type: ignore[no-untyped-call]
        if type(head) is not nn.Linear or head._forward_hooks or head._forward_pre_hooks or "forward" in vars(head):
            raise ValueError(
                f"chunked_head=True found no plain nn.Linear as the head of {name}, but {head!r} (an adapter, a "
                f"quantised layer or hooks change what it computes): {_PLAIN}"
            )
        return model


def _shifted(features: Tensor, labels: Tensor, moved: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return features (N, D) and the labels (N,) of the next tokens, ``moved`` already where a collator did it."""
    if moved is None:
        moved = nn.functional.pad(labels, (0, 1), value=_IGNORED)[..., 1:]
    return features.reshape(-1, features.shape[-1]), moved.reshape(-1).to(features.device)


def _own_loss(
    head: nn.Linear,
    features: Tensor,
    target: Tensor,
    num_items_in_batch: Tensor | int | None = None,
    ignore_index: int = _IGNORED,
    **_: Any,
) -> Tensor:
    """What transformers' ``ForCausalLMLoss`` returns."""
    reduction = "mean" if num_items_in_batch is None else "sum"
    loss = nn.CrossEntropyLoss(ignore_index=ignore_index, reduction=reduction)
    value: Tensor = ChunkedHeadLoss(head, loss)(features, target)
    if num_items_in_batch is None:
        return value
    number = num_items_in_batch.to(value.device) if isinstance(num_items_in_batch, Tensor) else num_items_in_batch
    return value / number


def _climbed(objective: Objective, head: nn.Linear, features: Tensor, target: Tensor) -> Tensor:
    """The objective's value through the head."""
    loss: Any = objective.loss
    inner = loss.loss if isinstance(loss, CausalLMLoss) else loss
    if not isinstance(inner, LowerBoundLoss) or inner.reduction == "none":
        raise ValueError(
            f"chunked_head=True climbs bisam.LowerBoundLoss(), and ascent={loss!r} takes the logits: {_PLAIN}"
        )
    objective.loss = ChunkedHeadLoss(head, inner)
    return objective(features, target)
