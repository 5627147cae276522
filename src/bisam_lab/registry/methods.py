"""A method by its name: ``bisam-log+asam`` makes the choices of BiSAM and of ASAM, around one optimizer.

A name is parts joined by ``+``. A part is a key of :data:`bisam.METHODS`, ``bisam-BOUND`` with a bound of its own,
``msam`` (micro-batches), ``subbatch`` (climb on a part of the batch), ``every`` (perturb on one step in k), or the base
optimizer alone: ``plain``, or its short name, such as ``sgd``. Every part brings the choices of its entry in
:data:`bisam.METHODS`. Two parts that make the same choice exclude each other, but for a
geometry inside another one (ESAM, SAM-ON, SSAM). Numbers follow a part after ``@``: ``bisam-tanh@mu=5@alpha=0.2``,
``looksam@k=10``, ``sam@rho=0.1``. So one study can hold one method several times. A number is written in one way alone:
``sam@rho=0.10`` is ``sam@rho=0.1``, and lies in one folder with it.
"""

import difflib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor, nn
from torch.optim import Optimizer

import bisam
from bisam import LowerBoundLoss, SharpnessAware
from bisam._validation import count, not_negative
from bisam.bounds import BOUNDS, takes_alpha
from bisam.cadence import Every
from bisam.loops import SharpestSamples, SubBatch

from ..errors import one_line, shown
from .optimizers import PLAIN

__all__ = ["Method", "canonical", "names", "twins"]

Options: TypeAlias = Mapping[str, Mapping[str, Any]]
Choose: TypeAlias = Callable[[Any, nn.Module, Tensor, Tensor], tuple[Tensor, ...]]

#: The entries of parts. ``every`` is a choice of the library that has no class: ``SAM(base, cadence=Every(k))``.
METHODS = {
    **bisam.METHODS,
    "every": bisam.Method(
        "every", "SAM on one step in k", "", "", passes="1 + 1/k", choices={"cadence": lambda k=5: Every(k)}
    ),
}
#: Numbers that count something.
_WHOLE = ("k", "m", "every", "total_steps", "seed")
_WORDS = {"combine": "combination", "ascent": "ascent objective"}
#: A number as it may stand in a name: no spaces, no other alphabet's digits, no underscores.
_NUMBER = re.compile(r"[+-]?([0-9]{1,20}\.?[0-9]{0,20}|\.[0-9]{1,20})([eE][+-]?[0-9]{1,3})?")
#: Numbers that a study cannot set: objects, and what needs a loop of its own (SSAM's Fisher mask).
_NOT_IN_A_STUDY = ("types", "key", "uphill", "rule", "unit", "decoupled")
#: Numbers of a part that are no arguments of its class: of its loop, or of its lower bound.
_OTHER_OPTIONS = {
    "msam": ["m"],
    "subbatch": ["share"],
    "esam": ["gamma"],
    **{f"bisam-{bound}": ["mu", *(["alpha"] if takes_alpha(bound) else [])] for bound in BOUNDS},
    "bisam": ["mu"],
}


def names() -> list[str]:
    """Return every part that a name may have."""
    return [*PLAIN, *METHODS, *(f"bisam-{bound}" for bound in BOUNDS), "msam", "subbatch"]


def canonical(name: str) -> str:
    """Return the name with its numbers written in the shortest way; one that is wrong stays as it is."""
    return "+".join("@".join([part, *map(_short, given)]) for part, *given in (t.split("@") for t in name.split("+")))


def _short(word: str) -> str:
    key, _, value = word.partition("=")
    number = float(value) + 0.0 if _NUMBER.fullmatch(value) else math.nan  # -0 is 0
    if not math.isfinite(number):
        return word
    return f"{key}={int(number) if number.is_integer() and abs(number) < 1e15 else number}"


def twins(names: Sequence[str]) -> tuple[str, str] | None:
    """Return two of the names that stand for one method, such as ``asam+bisam`` and ``bisam-log+asam``, or None."""
    known: dict[object, str] = {}
    for name in names:
        parts = [_part_and_numbers(text) for text in name.split("+")]
        outer = tuple(part for part in parts if _order_counts(part[0]))  # the first of these is outside the next
        key = outer, frozenset(parts)
        if key in known:
            return known[key], name
        known[key] = name
    return None


def _part_and_numbers(text: str) -> tuple[str, frozenset[str]]:
    part, *numbers = text.split("@")
    return "bisam-log" if part == "bisam" else part, frozenset(numbers)


def _order_counts(part: str) -> bool:
    return part in METHODS and (_wraps(part) or METHODS[part].couple is not None)


@dataclass(frozen=True)
class Method:
    """What a name stands for.

    Attributes:
        name: as it was given.
        options: numbers of the parts, by part and argument: ``{"looksam": {"k": 10}}``.

    Raises:
        ValueError: an unknown part, one that is there twice, parts that exclude each other, an impossible option.
    """

    name: str
    options: Options

    def __post_init__(self) -> None:
        for part in self.parts:
            if part not in names():
                near = difflib.get_close_matches(part, names(), n=1)
                hint = f": did you mean {near[0]}?" if near else ""
                raise ValueError(f"{part!r} is none of {', '.join(names())} (join parts by +){hint}")
        if len({part.partition("-")[0] for part in self.parts}) < len(self.parts):
            raise ValueError(f"{self.name!r} names a method twice")
        if self.plain and self.name not in PLAIN:
            raise ValueError(f"{self.name!r}: {self.parts[0]} is the plain optimizer, which joins nothing")
        if len(self._radii) > 1:
            raise ValueError(f"{self.name!r} has {len(self._radii)} radii: name one, after any part")
        for rho in self._radii:
            not_negative("rho", rho)
        self.choices(steps=1, epochs=1)
        if self.bound is not None:
            self._lower_bound(None, None)
        count("m", self.micro_batches)
        _ = self.choose_samples

    @property
    def parts(self) -> list[str]:
        """The names that it joins."""
        return [part.partition("@")[0] for part in self.name.split("+")]

    @property
    def plain(self) -> bool:
        """Whether it is, or names among others, a plain optimizer."""
        return any(part in PLAIN for part in self.parts)

    @property
    def numbers(self) -> dict[str, dict[str, Any]]:
        """What the name says after ``@``, by part and argument."""
        found: dict[str, dict[str, Any]] = {}
        for text in self.name.split("+"):
            part, *given = text.split("@")
            for word in given:
                key, equals, value = word.partition("=")
                number = float(value) if equals and _NUMBER.fullmatch(value) else math.nan
                if not math.isfinite(number):
                    raise ValueError(f"{shown(self.name)}: @{one_line(word, 30)} must look like @rho=0.1")
                if key in found.get(part, {}):
                    raise ValueError(f"{shown(self.name)} gives {one_line(key, 30)} of {part} twice: give it once")
                found.setdefault(part, {})[key] = int(number) if number.is_integer() and key in _WHOLE else number
        return found

    @property
    def bound(self) -> str | None:
        """The lower bound that the perturbation climbs; None: the descent objective."""
        found = [part for part in self.parts if part.startswith("bisam")]
        return (found[0].partition("-")[2] or "log") if found else None

    @property
    def micro_batches(self) -> int:
        """Into how many parts each batch is split, each with a perturbation of its own: mSAM's m, 4 unless set."""
        return int(self._option("msam", "m", 4)) if "msam" in self.parts else 1

    @property
    def sharpest_samples(self) -> SharpestSamples | None:
        """ESAM's choice of the samples to descend on."""
        return SharpestSamples(self._option("esam", "gamma", 0.5)) if "esam" in self.parts else None

    @property
    def sub_batch(self) -> SubBatch | None:
        """The choice of the samples to climb on."""
        return SubBatch(self._option("subbatch", "share", 0.25)) if "subbatch" in self.parts else None

    @property
    def choose_samples(self) -> Choose | None:
        """Return what says which samples a pass sees, called as ``choose(objective, model, x, y)``; None: all."""
        sharpest, few = self.sharpest_samples, self.sub_batch
        if few is None:
            return sharpest
        if sharpest is not None:
            raise ValueError(f"{self.name!r}: esam and subbatch both choose the samples: leave one out")
        return lambda objective, model, x, y: few(objective, x, y)

    @property
    def follows_learning_rate(self) -> bool:
        """Whether rho goes the way of the learning rate, as in GSAM's paper."""
        return "gsam" in self.parts

    def parts_with(self, number: str) -> list[str]:
        """Return its parts that take a number of that name."""
        return [part for part in self.parts if number in _numbers(part)]

    def radius(self, rho: float, radii: Mapping[str, float]) -> float:
        """Return the radius given in its name, for its name or for one of its parts, else ``rho`` in proportion.

        ``rho`` is SAM's; ASAM's published radius is ten times SAM's, so ASAM takes ten times ``rho``.
        """
        if self.plain:
            return 0.0
        given = self._radii + [radii[name] for name in (self.name, *self.parts) if name in radii]
        return given[0] if given else rho * max(_published_ratio(part) for part in self.parts)

    @property
    def published(self) -> float:
        """The published radius: the largest of its parts'."""
        return max(_published_rho(part) for part in self.parts)

    def choices(self, steps: int, epochs: int) -> dict[str, Any]:
        """Return the choices by axis, for a training of so many steps and epochs."""
        made: dict[str, Any] = {}
        whose = {} if self.bound is None else {"ascent": self._part_of_bound}
        for part in sorted(self.parts, key=_wraps):
            arguments = self._arguments(part, steps, epochs)
            for axis in _axes(part):
                inner = {"inner": made.pop(axis, None)} if METHODS[part].wraps(axis) else {}
                if axis in whose and not inner:
                    what = _WORDS.get(axis, axis)
                    raise ValueError(f"{self.name!r}: {whose[axis]} and {part} both choose the {what}: leave one out")
                made[axis], whose[axis] = METHODS[part].choose(axis, **arguments, **inner), part
        return made

    def build(
        self,
        base: Optimizer,
        *,
        model: nn.Module,
        rho: float,
        descent: Callable[..., Tensor],
        steps: int,
        epochs: int,
        mu: float | None = None,
        alpha: float | None = None,
        sync_ascent: bool = False,
    ) -> SharpnessAware:
        """Build it around ``base``. ``sgd`` is SAM with rho = 0, which is plain SGD to the bit."""
        options = self.choices(steps, epochs)
        if self.bound is not None:
            options["ascent"] = self._lower_bound(mu, alpha)
        for part in self.parts:
            if part in METHODS and (couple := METHODS[part].couple) is not None:
                options["ascent"], descent = couple(options.get("ascent"), descent)
        options |= {"third_pass": "ascent" in options, "sync_ascent": sync_ascent}
        return SharpnessAware(base, model=model, rho=rho, descent=descent, **options)

    def climber(self, base: Optimizer, *, model: nn.Module) -> SharpnessAware:
        """Build only what perturbs: its objective, direction, geometry and radius, on every step, with radius 1.

        The descent objective is cross-entropy.
        """
        made = self.choices(steps=1, epochs=1)
        options = {axis: made[axis] for axis in ("ascent", "direction", "geometry", "radius") if axis in made}
        if self.bound is not None:
            options["ascent"] = self._lower_bound(None, None)
        return SharpnessAware(base, model=model, rho=1.0, descent=nn.CrossEntropyLoss(), **options)

    @property
    def gives_radius(self) -> bool:
        """Whether its name sets a radius."""
        return bool(self._radii)

    @property
    def _radii(self) -> list[float]:
        return [numbers["rho"] for numbers in self.numbers.values() if "rho" in numbers]

    def _lower_bound(self, mu: float | None, alpha: float | None) -> LowerBoundLoss:
        """Build it; ``mu`` and ``alpha`` are the recipe's, for every bound that has them."""
        part = self._part_of_bound
        alpha = alpha if takes_alpha(self.bound or "") else None
        return LowerBoundLoss(self.bound or "", self._option(part, "mu", mu), self._option(part, "alpha", alpha))

    @property
    def _part_of_bound(self) -> str:
        return next(part for part in self.parts if part.startswith("bisam"))

    def _given(self, part: str) -> dict[str, Any]:
        """Return the numbers given for a part, those in the name first, without the radius."""
        named = {key: value for key, value in self.numbers.get(part, {}).items() if key != "rho"}
        return {**self.options.get(part, {}), **named}

    def _option(self, part: str, name: str, default: Any) -> Any:
        return self._given(part).get(name, default)

    def _arguments(self, part: str, steps: int, epochs: int) -> dict[str, Any]:
        """Return the numbers of the part: its options, and how long the training is."""
        known, given = _numbers(part), self._given(part)
        for name in given:
            takes = [*known, *_OTHER_OPTIONS.get(part, [])]
            if name not in takes:
                raise ValueError(f"option {part}.{name} does not exist: {part} takes {', '.join(takes) or 'none'}")
        arguments = {name: value for name, value in given.items() if name in known}
        if "total_steps" in known:
            arguments.setdefault("total_steps", steps)
        if part == "ssam":  # its authors change the mask every five epochs
            arguments.setdefault("every", max(1, 5 * steps // epochs))
        return arguments


def _axes(part: str) -> list[str]:
    """Return the axes on which a part chooses; of BiSAM and mSAM none, for objective and loop are told apart."""
    return [] if part.startswith("bisam") or part not in METHODS else list(METHODS[part].choices)


def _numbers(part: str) -> list[str]:
    """Return the numbers of the part's own choices."""
    known = METHODS[part].numbers if _axes(part) else {}
    return [name for name in known if name not in _NOT_IN_A_STUDY]


def _wraps(part: str) -> bool:
    """Whether its geometry takes another one inside."""
    return "geometry" in _axes(part) and METHODS[part].wraps("geometry")


def _published_rho(part: str) -> float:
    return METHODS[part if part in METHODS else "sam"].rho


def _published_ratio(part: str) -> float:
    """Return how many times SAM's radius the part's published radius is."""
    method = METHODS[part if part in METHODS else "sam"]
    return method.rho / method.rho_of_sam
