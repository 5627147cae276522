"""The Hugging Face Trainer's conventions: which engines are refused, where logits and labels are, what is shifted."""

from collections.abc import Callable, Mapping
from typing import Any

from accelerate.utils import DistributedType
from torch import Tensor, nn
from torch.optim import Optimizer
from transformers import PreTrainedModel, Trainer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils.import_utils import is_sagemaker_mp_enabled

from .._step.objective import Objective
from ..losses.language import CausalLMLoss, flatten_tokens, logits_of, next_token
from ..losses.modules import BinaryLowerBoundLoss, LowerBoundLoss
from ..optimizer import SharpnessAware

__all__ = [
    "check_descent",
    "check_engine",
    "check_sharpness",
    "logits_and_labels",
    "plain_optimizer",
    "unwrapped",
    "wants_descent",
]

_IGNORED = -100  # throughout transformers
_OVERRIDE = "override logits_and_labels(outputs, inputs) in your trainer, which returns what the ascent objective takes"
_CAUSAL = frozenset(
    name
    for names in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
    for name in ((names,) if isinstance(names, str) else names)
)
_UNSHIFTED = frozenset({"flaubert", "xlm", "xlnet"})  # listed as causal, but their labels are not shifted
_REFUSED = {
    DistributedType.DEEPSPEED: "DeepSpeed's engine owns the gradients and the weights",
    DistributedType.FSDP: "the Trainer's FSDP puts other parameters into the optimizer after it was built",
    DistributedType.MEGATRON_LM: "Megatron-LM runs its own forward and backward passes",
    DistributedType.XLA: "XLA records the passes instead of running them",
}


def unwrapped(optimizer: Any) -> SharpnessAware | None:
    """Return the sharpness-aware optimizer inside of accelerate's wrapper, which hides its ``passes()``."""
    while not isinstance(optimizer, SharpnessAware) and isinstance(getattr(optimizer, "optimizer", None), Optimizer):
        optimizer = optimizer.optimizer
    return optimizer if isinstance(optimizer, SharpnessAware) else None


def wants_descent(objective: Objective, optimizer: SharpnessAware) -> bool:
    """Whether this pass is of the loss to descend: the last one, all of SAM's, and the first one of three."""
    choices = optimizer.estimator
    return not objective.is_ascent or not choices.ascent_differs or objective.loss is choices.descent


def check_engine(trainer: Trainer) -> None:
    """Refuse the engines that two ``backward()`` calls a step would break, in silence or not.

    Raises:
        ValueError: naming the engine and what to use instead.
    """
    kind = trainer.accelerator.distributed_type
    parallel = getattr(trainer.accelerator, "parallelism_config", None)
    if kind in _REFUSED:
        raise ValueError(
            f"sharpness-aware training cannot run on {kind.value}: {_REFUSED[kind]}. Launch with plain data "
            "parallelism (DDP, `accelerate launch --multi_gpu`), or write the loop yourself around opt.passes(), where "
            "Accelerate's FSDP2 works (fsdp_version: 2)"
        )
    if is_sagemaker_mp_enabled() or getattr(trainer, "is_distributed_loading_by_transformers", False):
        raise ValueError("sharpness-aware training cannot run on a model that is sharded: use data parallelism (DDP)")
    for name in ("tp", "cp", "sp"):
        if getattr(parallel, f"{name}_enabled", False):
            raise ValueError(f"parallelism_config has {name}_size > 1, which is not supported: use data parallelism")
    optim = str(getattr(trainer.args.optim, "value", trainer.args.optim))
    if "lomo" in optim or optim.endswith("layerwise"):
        raise ValueError(
            f"optim={optim!r} updates the weights inside backward(), before there is a gradient to climb: choose an "
            "optimizer that updates them in step(), such as 'adamw_torch' or 'galore_adamw'"
        )


def check_sharpness(sharpness: Any) -> None:
    """Refuse what does not wrap an optimizer.

    Raises:
        TypeError: naming it and what to pass.
    """
    if isinstance(sharpness, SharpnessAware):
        name = type(sharpness).__name__
        raise TypeError(
            f"sharpness= is a {name} that is built already: pass it as optimizers=(opt, None), or pass a function that "
            f"wraps the Trainer's optimizer, sharpness=functools.partial({name}, rho=0.1)"
        )
    if sharpness is not None and not callable(sharpness):
        raise TypeError(
            f"sharpness={sharpness!r} must be a function that wraps the Trainer's optimizer: "
            "sharpness=functools.partial(bisam.BiSAM, rho=0.1)"
        )


def plain_optimizer(base: Any) -> Optimizer:
    """Return the optimizer to wrap.

    Raises:
        ValueError: it updates the weights by hooks in ``backward()``.
        TypeError: accelerate has wrapped it already.
    """
    if type(base).__name__ == "LayerWiseDummyOptimizer":
        raise ValueError(
            "a layer-wise optimizer updates the weights inside backward(), before there is a gradient to climb: "
            "choose one that updates them in step()"
        )
    if isinstance(getattr(base, "optimizer", None), Optimizer):
        raise TypeError(f"{type(base).__name__} wraps the optimizer already: hand over the plain one")
    if not isinstance(base, Optimizer):
        raise TypeError(f"the Trainer's optimizer is a {type(base).__name__}, which is no torch.optim.Optimizer")
    return base


def check_descent(optimizer: SharpnessAware) -> None:
    """Refuse a descent objective that would never be called.

    Raises:
        ValueError: it is another one than the default.
    """
    loss = optimizer.estimator.descent
    inner: Any = loss.loss if isinstance(loss, CausalLMLoss) else loss
    default = type(inner) is nn.CrossEntropyLoss and inner.weight is None and inner.reduction == "mean"
    if not default or inner.label_smoothing or inner.ignore_index != _IGNORED:
        raise ValueError(
            f"descent={loss!r} would never be called: the Trainer descends its own compute_loss(). Leave out descent=, "
            "and set label_smoothing_factor in the TrainingArguments, compute_loss_func=, or override compute_loss()"
        )


def logits_and_labels(trainer: Trainer, outputs: Any, inputs: Mapping[str, Any], ascent: Callable[..., Tensor]) -> Any:
    """Return logits and labels for the ascent objective: shifted for causal models, and flat where they are sequences.

    Raises:
        ValueError: the labels cannot be told, or are not classes that belong to the logits.
    """
    itself = isinstance(ascent, CausalLMLoss)  # shifts
    moved = not itself and inputs.get("shift_labels") is not None  # by a collator without padding
    names = ["shift_labels"] if moved else trainer.label_names
    logits, labels = logits_of(_attributes(outputs)), _labels(names, inputs)
    if itself:
        return logits, labels
    if isinstance(ascent, BinaryLowerBoundLoss):
        return logits, labels.reshape(logits.shape) if labels.numel() == logits.numel() else labels
    if labels.is_floating_point() or (logits.dim() <= 3 and logits.shape[-1] == 1):
        if isinstance(ascent, LowerBoundLoss):
            raise ValueError(
                f"labels of {labels.dtype} for logits {tuple(logits.shape)} are no classes, and this lower bound of "
                "the 0-1 loss is one for classes. For several labels a sample, or labels 0 and 1 of one logit, pass "
                "ascent=bisam.BinaryLowerBoundLoss(); for regression use SAM or ASAM, pass ascent= a loss of your "
                f"own, or {_OVERRIDE}"
            )
        return logits, labels
    if logits.dim() == 2 and labels.numel() == logits.shape[0]:
        return logits, labels.reshape(-1)
    if logits.dim() == 3 and labels.shape == logits.shape[:2]:
        if moved or not _shifts(trainer):
            return flatten_tokens(logits, labels)
        return next_token(logits, labels, _IGNORED)
    if logits.dim() > 3 and labels.shape == (logits.shape[0], *logits.shape[2:]):
        return logits, labels
    raise ValueError(
        f"logits {tuple(logits.shape)} and labels {tuple(labels.shape)} do not belong together as those of one "
        f"sample, or one token, each: {_OVERRIDE}"
    )


def _attributes(outputs: Any) -> Any:
    """Return a plain dict's logits, and everything else as it is."""
    return outputs["logits"] if type(outputs) is dict and "logits" in outputs else outputs


def _labels(names: list[str], inputs: Mapping[str, Any]) -> Tensor:
    found = [name for name in names or ["labels"] if inputs.get(name) is not None]
    if len(found) != 1 or not isinstance(inputs[found[0]], Tensor):
        raise ValueError(
            f"the ascent objective needs one tensor of labels, and of the label names {names!r} the batch has "
            f"{found!r} (it has {sorted(inputs)!r}): set label_names in the TrainingArguments, or {_OVERRIDE}"
        )
    labels: Tensor = inputs[found[0]]
    return labels


def _shifts(trainer: Trainer) -> bool:
    """Whether the model compares its logits with the labels one position later.

    Raises:
        ValueError: nothing is known of the model.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    model = model.get_base_model() if hasattr(model, "get_base_model") else model  # PEFT
    config = getattr(model, "config", None)
    if getattr(config, "is_encoder_decoder", False) or getattr(config, "model_type", None) in _UNSHIFTED:
        return False
    if getattr(trainer, "_loss_shifts_labels", False) or not _CAUSAL.isdisjoint(
        c.__name__ for c in type(model).__mro__
    ):
        return True
    if not isinstance(model, PreTrainedModel) or getattr(model, "loss_type", None) is None:
        raise ValueError(
            f"whether {type(model).__name__} predicts the label at a position or the next one is not known: wrap the "
            f"ascent objective, ascent=bisam.CausalLMLoss(LowerBoundLoss()), or {_OVERRIDE}"
        )
    return False
