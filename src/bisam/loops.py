"""What stands around or inside the loop: micro-batches (mSAM), the choice of samples, the Fisher mask (SSAM)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from ._step.forward_state import ForwardState
from ._step.objective import Objective
from ._step.saved import CarriedGradients
from ._validation import count, fraction
from ._vectors.foreach import accumulation_dtype
from ._vectors.part import real
from ._vectors.vector import Vector
from .geometry.sparse import SparseSupport, entries_of, mark_largest
from .losses.descents import lower_bound_for
from .losses.modules import BinaryLowerBoundLoss
from .optimizer import SharpnessAware

__all__ = ["SharpestSamples", "SubBatch", "learn_fisher_mask", "micro_batches"]

Sample = TypeVar("Sample")


def micro_batches(m: int, *tensors: Tensor) -> Iterator[tuple[Any, ...]]:
    """Split a batch for mSAM (Behdin et al., arXiv 2302.09693): each part gets a perturbation of its own.

        for xs, ys, part in micro_batches(4, x, y):
            for objective in opt.passes():
                (objective(model(xs), ys) * part).backward()
        opt.step()

    Example:
        >>> from bisam.loops import micro_batches
        >>> for objective in opt.passes():
        ...     for xs, ys, part in micro_batches(2, x, y):
        ...         (part * objective(model(xs), ys)).backward()
        >>> opt.step()

    Args:
        m: number of parts, >= 1; of a batch with fewer samples each is a part.
        tensors: inputs, targets and so on, each with the samples along its first axis.

    Yields:
        The parts of the tensors, and the share of the batch's samples that they hold: weighted by it, losses that are
        means add up to the mean over the batch, also where the parts are not of one size.

    Raises:
        ValueError: ``m < 1``; no tensors, no samples, or tensors of different lengths.
    """
    count("m", m)
    sizes = {len(tensor) for tensor in tensors}
    if len(sizes) != 1 or sizes == {0}:
        raise ValueError(f"tensors have lengths {[len(t) for t in tensors]}: pass tensors over the same samples")
    (total,) = sizes
    for parts in zip(*(tensor.tensor_split(min(m, total)) for tensor in tensors), strict=True):
        yield *parts, len(parts[0]) / total


class SharpestSamples:
    """ESAM's choice of samples (Du et al., ICLR 2022, arXiv 2110.03141): descend on those whose loss eps raised most.

        choose = SharpestSamples(0.5)
        for x, y in loader:
            for objective in opt.passes():
                xs, ys = choose(objective, model, x, y)
                objective(model(xs), ys).backward()
            opt.step()
            opt.zero_grad()

    The passes at w see the whole batch, the last one a share ``gamma`` of it. Choosing costs one forward pass without a
    graph, so a step costs 1 + F + gamma. Steps that do not perturb see the whole batch. The extra forward pass runs at
    w + eps, in the model's own mode: give the optimizer ``model=``, or running statistics see it.

    Example:
        >>> from bisam.loops import SharpestSamples
        >>> choose = SharpestSamples(0.5)
        >>> for objective in opt.passes():
        ...     chosen, targets = choose(objective, model, x, y)
        ...     objective(model(chosen), targets).backward()
        >>> opt.step()

    Args:
        gamma: share of the samples that are kept, in (0, 1]; at least one is.
        per_sample: loss of each sample, (output, target) -> (B,); None is cross-entropy, or the binary one, averaged
            over a sample's labels, where the descent objective is that.

    Raises:
        ValueError: ``gamma`` outside (0, 1]; a descent objective without classes and no ``per_sample``; losses that are
            not one a sample; an objective that was not called.
    """

    def __init__(self, gamma: float = 0.5, per_sample: Callable[..., Tensor] | None = None) -> None:
        self.gamma = fraction("gamma", gamma)
        self.per_sample = per_sample
        self._at_w: Objective | None = None

    def __call__(
        self, objective: Objective, model: Callable[[Tensor], Any], x: Tensor, y: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the samples that this pass is to see."""
        if objective.is_ascent:
            self._at_w = objective
            return x, y
        at_w, self._at_w = self._at_w, None
        if at_w is None or self.gamma == 1:
            return x, y
        if at_w.output is None:
            raise ValueError(
                "the pass at w gave its objective no output tensor, or several: call objective(model(x), y) once in "
                "every pass, and put micro-batches around the passes"
            )
        if self.per_sample is None:
            self.per_sample = _loss_of_each_sample(objective.loss)
        with torch.no_grad():
            rise = self._losses(model(x), y) - self._losses(at_w.output, y)
        chosen = rise.topk(max(1, round(self.gamma * len(x)))).indices
        return x[chosen], y[chosen]

    def _losses(self, output: Any, y: Tensor) -> Tensor:
        losses = self.per_sample(output, y)  # type: ignore[misc]
        if losses.shape != (len(y),):
            raise ValueError(f"per_sample gave losses of shape {tuple(losses.shape)}: one for each of {len(y)} samples")
        return losses


class SubBatch:
    """Climb on a part of the batch, and descend on all of it (Brock et al., ICML 2021, arXiv 2102.06171: a fifth).

        choose = SubBatch(0.25)
        for x, y in loader:
            for objective in opt.passes():
                xs, ys = choose(objective, x, y)
                objective(model(xs), ys).backward()
            opt.step()
            opt.zero_grad()

    The passes at w see the first samples of the batch, the last one sees the whole batch. So a step of SAM costs 1 +
    ``share`` passes. Steps that do not perturb see the whole batch. The gradient of few samples is noisy, and so is the
    direction of eps. Running statistics and ``opt.last.loss`` are those of the pass at w, which saw these samples. A
    method that combines the gradients at w and at w + eps (GSAM, WSAM, LookSAM) combines means over other samples.

    Example:
        >>> from bisam.loops import SubBatch
        >>> choose = SubBatch(0.5)
        >>> for objective in opt.passes():
        ...     chosen, targets = choose(objective, x, y)
        ...     objective(model(chosen), targets).backward()
        >>> opt.step()

    Args:
        share: of the samples that the passes at w see, in (0, 1]; at least one is.

    Raises:
        ValueError: ``share`` outside (0, 1].
    """

    def __init__(self, share: float = 0.25) -> None:
        self.share = fraction("share", share)

    def __call__(self, objective: Objective, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the samples that this pass is to see: of inputs, targets and so on, samples along the first axis."""
        if not objective.is_ascent:
            return tensors
        return tuple(tensor[: max(1, round(self.share * len(tensor)))] for tensor in tensors)


def _loss_of_each_sample(descent: Callable[..., Tensor]) -> Callable[..., Tensor]:
    try:
        binary = isinstance(lower_bound_for(descent=descent), BinaryLowerBoundLoss)
    except ValueError:
        raise ValueError(
            f"descent={descent!r} has no classes, so cross-entropy cannot tell the samples apart: name the loss of "
            "each, SharpestSamples(per_sample=lambda output, y: ((output - y) ** 2).flatten(1).mean(1)), say"
        ) from None
    if binary:
        return lambda z, y: binary_cross_entropy_with_logits(z, y, reduction="none").reshape(len(y), -1).mean(1)
    return nn.CrossEntropyLoss(reduction="none")


def learn_fisher_mask(opt: SharpnessAware, samples: Iterable[Sample], backward: Callable[[Sample], object]) -> None:
    """Set the mask of SSAM-F: the weights whose squared per-sample gradients, summed over ``samples``, are largest.

    Call it before training and again every few epochs; the authors take 1024 samples.

    Example:
        >>> from bisam import SSAM
        >>> from bisam.loops import learn_fisher_mask
        >>> opt = SSAM(base, model=model, rule="fisher")
        >>> def backward(sample):
        ...     nn.functional.cross_entropy(model(sample[0]), sample[1]).backward()
        >>> learn_fisher_mask(opt, [(x[:1], y[:1]), (x[1:], y[1:])], backward)

    Args:
        opt: an optimizer whose geometry is ``SparseSupport(rule="fisher")``.
        samples: training samples, one at a time.
        backward: computes one sample's loss and calls ``backward()``; buffers and gradients are put back afterwards.

    Raises:
        TypeError: another geometry.
        ValueError: no sample, or none with a gradient; a gradient that is not finite.
    """
    geometry = opt.estimator.geometry
    if not isinstance(geometry, SparseSupport) or geometry.rule != "fisher":
        raise TypeError(f"opt has geometry={geometry!r}: learn_fisher_mask needs SparseSupport(rule='fisher')")
    context = opt._context
    params = context.params
    context.model.look()
    carried = CarriedGradients(params, context.model.others(list(params)))
    state = ForwardState.now(context.model)
    information: dict[Tensor, Tensor] = {}
    try:
        for sample in samples:
            carried.set_aside()
            backward(sample)
            with torch.no_grad():
                _add_squares(information, params)
    finally:
        carried.give_back()
        state.restore()
    if not information:
        raise ValueError("samples gave no gradient at all: pass training samples, and call backward() on their loss")
    with torch.no_grad():
        vector = Vector.of(information.items())
        if not bool(vector.max_abs().isfinite()):
            raise ValueError("samples gave a gradient that is not finite: leave such samples out")
        rows = [row.float() for row in vector.rows()]
        wanted = round(entries_of(list(information)) * (1 - geometry.sparsity))
        live = mark_largest(rows, vector, torch.tensor(wanted, device=rows[0].device))
        masks = [(~row).to(old.dtype) for row, old in zip(live, vector.rows(), strict=True)]
        opt.memory.write("resting", vector.of_rows(masks))
        opt.memory.commit()


def _add_squares(information: dict[Tensor, Tensor], params: Sequence[Tensor]) -> None:
    for param in params:
        if param.grad is not None:
            square = real(param.grad).to(accumulation_dtype(real(param.grad).dtype)).square()
            information[param] = information[param] + square if param in information else square
