"""The range of radii for a recipe, from a part of one epoch: a plain warm-up, then :func:`bisam.rho_range`."""

import itertools
import math
from dataclasses import dataclass
from pathlib import Path

from bisam import RhoRange, rho_range

from ..data.examples import count_batches
from ..recipe import Recipe, RecipeError
from ..run.fabric import build_fabric
from ..run.optimizer import build_optimizer
from ..run.place import refuse_several
from ..run.setup import load_examples_and_model

__all__ = ["Advice", "advise"]

#: Radii that are tried on every batch, at least.
RADII = 5


@dataclass(frozen=True)
class Advice:
    """The range for a method and a seed, and its cost.

    Attributes:
        method: its name.
        seed: of initial weights, split, noise and data order.
        warmup: plain steps before the sweep.
        epoch: forward-backward passes of an epoch of plain training, more than ``passes``.
        chance: cross-entropy of a uniform guess, log K.
        range: the curve and the range.
    """

    method: str
    seed: int
    warmup: int
    epoch: int
    chance: float
    range: RhoRange

    @property
    def passes(self) -> int:
        """Forward-backward passes of the whole test."""
        return self.warmup + self.range.passes


def advise(recipe: Recipe, method: str, seed: int = 0, *, data_dir: Path | None = None) -> Advice:
    """Train with the base optimizer for at most a quarter of the first epoch, then sweep radii on the next batches.

    Raises:
        RecipeError: data are missing, an epoch is too short, or :func:`bisam.rho_range` refuses the optimizer.
    """
    refuse_several(recipe.engine, "bisam rho-range", "set engine.devices=1 and engine.nodes=1")
    fabric = build_fabric(recipe.engine)
    splits, model = load_examples_and_model(recipe, data_dir, seed)
    epoch = count_batches(len(splits.train), recipe.train.batch_size)
    steps = recipe.train.epochs * epoch
    plain, opt = (build_optimizer(name, recipe, model, steps, splits.classes) for name in ("plain", method))
    net, stepper = fabric.setup(model, plain)
    data = splits.train.to(fabric.device)
    warmup, n = _shares(epoch, 1 if opt.estimator.ascent is opt.estimator.descent else 2)
    batches = data.shuffled(recipe.train.batch_size, seed, epoch=1)

    net.train()
    plain.train()
    for batch in itertools.islice(batches, warmup):
        for loss in plain.passes():
            fabric.backward(loss(net(batch.x), batch.y))
        stepper.step()
        stepper.zero_grad()
    dtype = next(model.parameters()).dtype
    pairs = ((batch.x.to(dtype) if batch.x.is_floating_point() else batch.x, batch.y) for batch in batches)
    try:
        with fabric.autocast():
            found = rho_range(opt, model, pairs, n=n, max_passes=epoch - 1 - warmup)
    except ValueError as error:
        raise RecipeError(f"{method} after {warmup} steps: {error}") from None
    return Advice(method, seed, warmup, epoch, math.log(splits.classes), found)


def _shares(epoch: int, at_w: int) -> tuple[int, int]:
    """Return the warm-up's steps and the number of batches to sweep, with fewer than ``epoch`` passes in all."""
    each = at_w + RADII
    n = max(2, min(4, (epoch - 1 - epoch // 4) // each))
    warmup = min(epoch // 4, epoch - 1 - n * each)
    if warmup < 1:
        raise RecipeError(
            f"an epoch of {epoch} batches is too short to find a range in less: {2 * each + 2} batches do, with a "
            "smaller train.batch_size or more of data.train_size"
        )
    return warmup, n
