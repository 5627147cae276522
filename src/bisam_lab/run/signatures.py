"""Failure signatures: what a run shows when its method does not do what it is there for, and the remedy.

:data:`SIGNATURES` is the list, as data: the tables of studies, the report and the page docs/lab/signatures.md are drawn
from it. Each is recognised from the numbers that every epoch records, while the run trains, and again at its end.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from .epoch import Epoch

__all__ = ["SIGNATURES", "WITHIN_NOISE", "Signature", "found", "signatures"]

History: TypeAlias = Sequence[Epoch]

#: Epochs or steps before which a mean says little: the first ones of a healthy run may look like a failure.
ENOUGH = 3
#: Share of the validation predictions that are one class, from which they count as constant.
CONSTANT = 0.99
#: Share of the climbing steps without a perturbation, above which the ascent gradient vanishes, if they are ENOUGH.
VANISHED = 0.1
#: Effective number of samples, below which the ascent gradient rests on a handful.
HANDFUL = 2.0
#: Rise of the batch's error that a perturbation must reach in some epoch: three more mistakes in a thousand examples.
RISE = 0.003
#: Nats by which a climb must lift the loss to be what puts it above log K: with most labels wrong it is there anyway.
LIFT = 0.1


@dataclass(frozen=True)
class Signature:
    """A way in which a run fails.

    Attributes:
        name: in tables, results and JSON.
        what: the run shows, in words.
        recognised: by which numbers.
        remedy: what to write instead.
        page: that explains it, in the repository.
        holds: whether the epochs so far show it; None where a comparison shows it, and no run.
        at_end: whether only a run that has ended can show it.
    """

    name: str
    what: str
    recognised: str
    remedy: str
    page: str
    holds: Callable[[History], bool] | None
    at_end: bool = False

    @property
    def advice(self) -> str:
        """What it means, what to write, and where to read on, in one line."""
        return f"{self.name}: {self.what}. Write {self.remedy}; see {self.page}"


def _collapsed(history: History) -> bool:
    last = history[-ENOUGH:]
    return len(last) == ENOUGH and not _diverged(history) and all(epoch.same_class >= CONSTANT for epoch in last)


def _diverged(history: History) -> bool:
    return bool(history) and not math.isfinite(history[-1].train_loss)


def _vanishes(history: History) -> bool:
    known = [(epoch.climbed * max(1, epoch.steps), epoch) for epoch in history if math.isfinite(epoch.vanished)]
    climbs, still = sum(climbs for climbs, _ in known), sum(climbs * epoch.vanished for climbs, epoch in known)
    counted = any(epoch.steps for _, epoch in known)
    return climbs > 0 and still > VANISHED * climbs and (not counted or round(still) >= ENOUGH)


def _on_a_handful(history: History) -> bool:
    return _mostly([epoch.ascent_samples < HANDFUL for epoch in history if math.isfinite(epoch.ascent_samples)])


def _raises_no_error(history: History) -> bool:
    rises = _known(epoch.error_rise for epoch in history)
    return len(rises) >= ENOUGH and max(rises) < RISE


def _never_opened(history: History) -> bool:
    shares = _known(epoch.climbed for epoch in history)
    return len(shares) == len(history) > 0 and not any(shares) and any(epoch.rho > 0 for epoch in history)


def _beyond(history: History) -> bool:
    known = [epoch for epoch in history if math.isfinite(epoch.perturbed_loss + epoch.chance_loss)]
    return _mostly([epoch.perturbed_loss > epoch.chance_loss and _lifted(epoch) for epoch in known])


def _lifted(epoch: Epoch) -> bool:
    """Whether the climb lifts the loss. Where no pass is at w, nobody knows."""
    return epoch.loss_at != "w" or not epoch.perturbed_loss - epoch.train_loss < LIFT


def _mostly(shown: Sequence[bool]) -> bool:
    """Whether more than half of the epochs show something, and there are enough of them."""
    return len(shown) >= ENOUGH and 2 * sum(shown) > len(shown)


def _known(numbers: Iterable[float]) -> list[float]:
    return [number for number in numbers if math.isfinite(number)]


_ALL = (
    Signature(
        "collapse",
        "the network predicts one class, or no better than the commonest one",
        "99 % of the validation predictions are one class in each of the last three epochs, or the tested weights are "
        "hardly better than always naming the commonest class",
        "sharpness.rho=RHO with half of the RHO at hand, or a network with normalisation, such as model.name=resnet-8",
        "docs/collapse.md",
        _collapsed,
    ),
    Signature(
        "divergence",
        "the loss is no finite number any more",
        "the mean training loss of an epoch is not finite",
        "train.lr=LR with a tenth of the LR at hand, or train.clip=1",
        "docs/lab/signatures.md",
        _diverged,
    ),
    Signature(
        "vanishing-ascent",
        "steps do not perturb, because the ascent gradient is zero or not finite",
        "in more than 10 % of the steps that climb, three at least, over all epochs, ||eps|| is 0",
        "sharpness.alpha=0.1 or --methods bisam-log: bounds whose gradient reaches further",
        "docs/lab/signatures.md",
        _vanishes,
    ),
    Signature(
        "handful-of-samples",
        "the perturbation climbs for a handful of samples, and not for the batch",
        "in most epochs, three at least, the effective number of samples of the ascent gradient, (sum w)^2 / sum w^2 "
        "with w its l1 norm at a sample's logits, is below 2",
        "sharpness.alpha=0.1 or sharpness.mu=1, or train.batch_size=B with twice the B at hand",
        "docs/lab/signatures.md",
        _on_a_handful,
    ),
    Signature(
        "raises-no-error",
        "the perturbation makes no new mistakes, so the method is its base optimizer at a higher price",
        "in no epoch, of three at least, is the batch's error at w + eps 0.3 points above that at w",
        "sharpness.rho=RHO with the RHO at which `bisam rho-range` ends its range",
        "docs/rho-range.md",
        _raises_no_error,
    ),
    Signature(
        "never-opened",
        "no step perturbed: the window or the cadence never opened",
        "rho is above 0, and no step of the whole run climbed",
        "--methods sam to perturb in every step, or a window inside the training, such as --methods tailsam@tail=0.4 "
        "without train.patience",
        "docs/lab/signatures.md",
        _never_opened,
        at_end=True,
    ),
    Signature(
        "beyond-range",
        "rho is beyond the useful range: at w + eps the network predicts worse than chance",
        "in most epochs, three at least, the descent loss at w + eps is above log K, that of uniform predictions, and "
        "0.1 above that at w",
        "sharpness.rho=RHO with a RHO inside the range of `bisam rho-range`",
        "docs/rho-range.md",
        _beyond,
    ),
    Signature(
        "within-noise",
        "the difference to the baseline lies within the noise of the seeds",
        "in the comparison: the paired test does not tell the method from the baseline",
        "--seeds auto --difference 0.5 for as many seeds as half a point needs",
        "docs/lab/statistics.md",
        None,
    ),
)
#: The signatures, by name.
SIGNATURES = {signature.name: signature for signature in _ALL}
#: The one that a comparison shows, and no run.
WITHIN_NOISE = SIGNATURES["within-noise"]


def found(history: History) -> tuple[Signature, ...]:
    """Return the signatures that the epochs of a run that goes on show so far."""
    return tuple(one for one in _ALL if one.holds is not None and not one.at_end and one.holds(history))


def signatures(history: History, status: str) -> tuple[Signature, ...]:
    """Return the signatures of a run that has ended.

    Args:
        history: its epochs.
        status: of its result; a run may have collapsed although its last epochs predict several classes.
    """
    shown = {one.name for one in _ALL if one.holds is not None and one.holds(history)}
    shown |= {"collapse"} if status == "collapsed" else {"divergence"} if status == "diverged" else set()
    return tuple(one for one in _ALL if one.name in shown)
