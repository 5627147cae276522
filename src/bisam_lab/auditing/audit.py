"""An audit: what adversaries do to a network at fixed weights, on the batch that they climb and on held-out data."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bisam._validation import positive

from ..run.result import plain
from .adversaries import DEFAULT, Adversary, Objective, check_names
from .adversaries import adversaries as build
from .batches import Batch, check_labels, logits_of, taken
from .histogram import Histogram, histogram
from .journal import Journal
from .measure import Measured, measure
from .modes import Modes, Statistics, mode, modes_of, untouched
from .rows import Row, rows_of
from .sharpness import Sharpness, check_installed
from .sharpness import sharpness as measure_sharpness
from .words import verdicts

__all__ = ["BATCHES", "RHOS", "Audit", "Header", "audit", "check_radii"]

RHOS = (0.05, 0.1, 0.2)
#: Batches that are climbed unless it is told; with fewer the intervals say little.
BATCHES = 20
#: Quantiles of the margin that the header tells.
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
SAM = "sam"
ALPHA = 0.1


@dataclass(frozen=True)
class Header:
    """The network at w, in one mode. Errors in per cent, losses in nats.

    Attributes:
        statistics: mode of BatchNorm.
        error_batch: mean error on the batches.
        loss_batch: mean cross-entropy there.
        error_held_out: mean error on held-out data.
        loss_held_out: mean cross-entropy there.
        margins: quantiles of the margin at 5, 25, 50, 75 and 95 % of the batches' samples.
        scaled_margin: alpha times the median margin, alpha = 0.1: where tanh's slope is 1 - tanh^2 of this.
    """

    statistics: Statistics
    error_batch: float
    loss_batch: float
    error_held_out: float
    loss_held_out: float
    margins: tuple[float, ...]
    scaled_margin: float


@dataclass(frozen=True)
class Audit:
    """What an audit found; ``print`` shows its verdict.

    Attributes:
        name: of the network.
        batches: that were climbed.
        size: samples of a batch.
        headers: one for each mode of BatchNorm.
        verdict: one sentence or two for each adversary but SAM.
        notes: what a reader must know.
        margins: of the batches' samples, and how each objective weights them, by mode.
        points: rise of the error in points by mode, radius, adversary and batch, for figures; SAM's always.
        stopped: whether Ctrl-C ended it.
        sharpness: curvature and the loss around w, where it was asked for.
    """

    name: str
    batches: int
    size: int
    headers: tuple[Header, ...]
    verdict: tuple[str, ...]
    notes: tuple[str, ...]
    margins: dict[str, Histogram]
    points: list[dict[str, Any]]
    stopped: bool = False
    sharpness: Sharpness | None = None
    _rows: tuple[Row, ...] = field(default=(), repr=False)

    def rows(self) -> list[dict[str, Any]]:
        """Return one dict for each mode, adversary and radius, with the fields of :class:`Row`."""
        return [asdict(row) for row in self._rows]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values for JSON; what is not finite becomes null."""
        values = {key: value for key, value in asdict(self).items() if key != "_rows"}
        found: dict[str, Any] = plain({"bisam": version("bisam"), **values, "rows": self.rows()})
        return found

    def __str__(self) -> str:
        return "\n".join([*self.verdict, *self.notes])


def audit(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    adversaries: Sequence[str] | Mapping[str, Objective | None] = DEFAULT,
    rhos: Sequence[float] = RHOS,
    held_out: Iterable[Any] | None = None,
    n: int = BATCHES,
    name: str = "model",
    seed: int = 0,
    sharpness: bool = False,
    progress: Callable[[int, int], None] = lambda done, total: None,
    keep: bool = False,
    journal: Path | None = None,
) -> Audit:
    """Let adversaries climb from a network's present weights, and count the mistakes that each of them causes.

    The first half of BiSAM's claim (Xie et al., arXiv 2407.12993) is that an adversary that climbs a lower bound of the
    0-1 loss makes more mistakes than SAM's, which climbs cross-entropy. This measures it, on each batch that is climbed
    and on held-out data that are not, for equal radii and for equal rise of cross-entropy, with paired intervals.

    Layers with running statistics, such as BatchNorm, normalise by the batch, as they do when SAM trains, and in a
    second measurement by these. Dropout is off. The network is as it was afterwards, to the bit: weights, gradients,
    buffers, modes; and so are the random states of torch, NumPy and Python.

    Example:
        >>> found = bisam_lab.audit(model, train_batches, adversaries=["sam", "bisam-log"], held_out=test_batches)
        >>> print(found)
        >>> [row["rise_error_held_out"] for row in found.rows() if row["adversary"] == "bisam-log"]

    Args:
        model: the network, on any device; called as ``model(input)``. It returns logits (B, K), or has ``.logits``.
        batches: (input, target) pairs with class indices (B,), such as a DataLoader of training data without
            augmentation; or mappings with ``labels``, whose other entries are the network's keyword arguments.
        adversaries: names as in ``bisam compare``, and ``smoothed``, ``random``, ``projected``; or a mapping from names
            to objectives of one's own, called as (logits, target).
        rhos: radii of SAM, increasing, > 0. Other methods take them in proportion to their published radii.
        held_out: batches that nobody climbs; the i-th one is looked at with the i-th batch. None leaves them out.
        n: batches to climb at the most.
        name: of the network, for tables and pages.
        seed: of random directions and supports, which are others on each batch.
        sharpness: whether to measure :class:`~bisam_lab.auditing.Sharpness`, too. It needs ``bisam[sharpness]`` and
            takes some hundred passes.
        progress: is called with the number of measurements done and of all.
        keep: on Ctrl-C, return what is measured of whole batches instead of raising, if that is two batches or more.
        journal: file that keeps what is measured after each batch, until all is: the same audit goes on from there.

    Raises:
        TypeError: what is no network, no batches, no adversaries.
        ValueError: an unknown adversary, or one that an audit cannot look at; radii that are not increasing; no
            batches, or targets that are no class indices; a network without parameters that need gradients, or with a
            loss that is not finite.
    """
    radii, device = _checked(model, rhos, n)
    check_names(adversaries)
    if sharpness:
        check_installed()
    with untouched(model):
        pairs = taken("batches", batches, n, device)
        others = [] if held_out is None else taken("held_out", held_out, n, device)
        modes = modes_of(model, lambda: logits_of(model, pairs[0]))
        noisy = _looked_over(model, modes, {"batches": pairs, "held_out": others})
        chosen = build(adversaries, model)
        sam = next((one for one in chosen if one.name == SAM), None) or build([SAM], model)[0]
        everyone = chosen if sam in chosen else [sam, *chosen]
        own = {name: own for name, own in adversaries.items() if own} if isinstance(adversaries, Mapping) else {}
        asked = [[one.name for one in everyone], own, radii, list(modes), len(pairs), seed]
        diary = Journal(journal, model, [*pairs, *others], asked)
        measured = diary.begun()
        told = _counted(progress, measured.batches, len(pairs), len(modes) * len(everyone))
        steps = measure(model, pairs, others, everyone, sam, radii, modes, seed=seed, measured=measured, done=told)

        def at_the_end() -> Sharpness:
            torch.manual_seed(seed)
            return measure_sharpness(model, pairs, chosen, sam, build(["asam"], model)[0], radii[len(radii) // 2])

        done, sharp, stopped = _whole(steps, measured, diary, keep, at_the_end if sharpness else None)
    found = _summed_up(name, measured.of_first(done), chosen, max(map(len, pairs)))
    notes = [
        *_notes_of_the_end(stopped, done, len(pairs)),
        *_notes(done, len(others), held_out is not None, modes),
        *noisy,
    ]
    return replace(found, sharpness=sharp, stopped=stopped, notes=tuple(notes))


def _whole(
    steps: Iterator[Measured], measured: Measured, journal: Journal, keep: bool, last: Callable[[], Sharpness] | None
) -> tuple[int, Sharpness | None, bool]:
    """Go through all steps, and return how many batches are measured, the sharpness, and whether Ctrl-C ended it.

    With ``keep`` Ctrl-C ends it once two batches are measured; else it is raised. The journal goes at the end alone.
    """
    done = measured.batches
    try:
        for _ in steps:
            done += 1
            journal.keep(measured)
        sharp = None if last is None else last()
    except KeyboardInterrupt:
        if not keep or done < 2:
            raise
        return done, None, True
    journal.remove()
    return done, sharp, False


def _checked(model: nn.Module, rhos: Sequence[float], n: int) -> tuple[list[float], torch.device]:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model={type(model).__name__} must be a torch.nn.Module")
    params = [param for param in model.parameters() if param.requires_grad]
    if not params:
        raise ValueError("model has no parameter that needs a gradient, so nothing can be perturbed: unfreeze some")
    if type(n) is not int or n < 2:
        raise ValueError(f"n={n!r} must be a whole number of 2 batches or more: an interval needs two")
    return check_radii("rhos", rhos), params[0].device


def check_radii(name: str, rhos: Sequence[float] | str) -> list[float]:
    """Return radii as floats.

    Raises:
        TypeError: it is no list of numbers.
        ValueError: one is not above zero, or they do not increase.
    """
    if not isinstance(rhos, Sequence) or isinstance(rhos, str):
        raise TypeError(f"{name}={rhos!r} must be a list of radii, for instance [0.05, 0.1, 0.2]")
    radii = [positive(name, rho) for rho in rhos]
    if not radii or any(a >= b for a, b in itertools.pairwise(radii)):
        raise ValueError(f"{name}={list(rhos)} must be increasing, for instance {sorted({*radii}) or [*RHOS]}")
    return radii


def _looked_over(model: nn.Module, modes: Modes, batches: Mapping[str, Sequence[Batch]]) -> list[str]:
    """Check the labels, and return a note where two passes over one batch differ."""
    first, noisy = batches["batches"][0], []
    for kind, training in modes.items():
        with mode(model, training), torch.no_grad():
            logits = logits_of(model, first)
            if not torch.allclose(logits, logits_of(model, first), rtol=1e-3, atol=1e-3, equal_nan=True):
                noisy.append(kind)
    for name, found in batches.items():
        check_labels(name, found, logits.shape[1])
    words = (
        f"With {' and '.join(noisy)} statistics two passes over one batch give different logits, so every rise holds "
        "this noise, too: does a dropout function lack training=self.training?"
    )
    return [words] if noisy else []


def _counted(progress: Callable[[int, int], None], begun: int, batches: int, each: int) -> Callable[[], None]:
    count = itertools.count(begun * each + 1)
    return lambda: progress(next(count), batches * each)


def _summed_up(name: str, measured: Measured, adversaries: Sequence[Adversary], size: int) -> Audit:
    kinds = list(dict.fromkeys(at_w.statistics for at_w in measured.at_w))
    names = [one.name for one in adversaries]
    rows, headers = rows_of(measured, names, SAM), [_header(kind, measured) for kind in kinds]
    if len(kinds) == 1:  # without BatchNorm the two modes are one
        headers += [replace(header, statistics="running") for header in headers]
        rows += [replace(row, statistics="running") for row in rows]
    return Audit(
        name=name,
        batches=measured.batches,
        size=size,
        headers=tuple(headers),
        verdict=tuple(verdicts(rows, SAM, {one.name for one in adversaries if one.does_more})),
        notes=(),
        margins={kind: histogram(measured, names, kind) for kind in kinds},
        points=[
            {
                "statistics": p.statistics,
                "adversary": p.adversary,
                "rho": p.rho,
                "batch": p.batch,
                "rise_error_batch": 100 * p.here.error,
                "rise_error_held_out": 100 * p.held_out.error,
                "rise_loss_batch": p.here.loss,
            }
            for p in measured.climbed
        ],
        _rows=tuple(rows),
    )


def _header(kind: Statistics, measured: Measured) -> Header:
    found = [at_w for at_w in measured.at_w if at_w.statistics == kind]
    margins = np.concatenate([at_w.margins.numpy() for at_w in found])
    quantiles = tuple(float(q) for q in np.quantile(margins, QUANTILES))
    return Header(
        statistics=kind,
        error_batch=100 * float(np.mean([at_w.here.error for at_w in found])),
        loss_batch=float(np.mean([at_w.here.loss for at_w in found])),
        error_held_out=100 * float(np.mean([at_w.held_out.error for at_w in found])),
        loss_held_out=float(np.mean([at_w.held_out.loss for at_w in found])),
        margins=quantiles,
        scaled_margin=ALPHA * quantiles[2],
    )


def _notes_of_the_end(stopped: bool, batches: int, wanted: int) -> list[str]:
    if not stopped:
        return []
    when = f"after {batches} of {wanted} batches" if batches < wanted else "before its sharpness was measured"
    return [f"It was stopped {when}."]


def _notes(batches: int, others: int, held_out: bool, modes: Modes) -> list[str]:
    notes = []
    if batches < BATCHES:
        few = "1 batch: there are no intervals" if batches == 1 else f"{batches} batches: the intervals are wide"
        notes.append(f"n = {few}; {BATCHES} or more say more.")
    if not held_out:
        notes.append("No held-out data were given, so what a perturbation does beyond its batch is not known.")
    elif others < batches:
        notes.append(
            f"Held-out data are fewer ({others} of {batches} batches), so they are looked at again, and the intervals "
            "of held-out error are too short."
        )
    if len(modes) == 1:
        notes.append("No layer normalises by the batch in training alone, so both modes are one.")
    return notes
