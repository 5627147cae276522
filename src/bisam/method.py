"""What a named method is, as data: its choices as functions of its numbers, its radius, its cost, its paper."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from torch import Tensor, nn
from torch.optim import Optimizer

from .optimizer import Options, SharpnessAware

__all__ = ["Method"]


Objectives = tuple[Callable[..., Tensor], Callable[..., Tensor]]


@dataclass(frozen=True)
class Method:
    """A named method. Its class, the laboratory, the documentation and the tests read the same entry.

    Example:
        >>> from bisam import METHODS
        >>> METHODS["asam"].rho, METHODS["asam"].passes
        (0.5, '2')
        >>> opt = METHODS["asam"](base, model=model, rho=1.0)

    Attributes:
        name: of its class.
        idea: what it does, in one sentence.
        source: authors, venue and year.
        arxiv: number of the paper.
        rho: default radius.
        rho_of_sam: SAM's radius beside which that one is published.
        passes: forward-backward passes of a step, in words; the number is ``estimator.passes_per_step``.
        choices: for each axis on which it makes a choice, a function of the method's own numbers that returns it. The
            defaults of these functions are the method's. A parameter ``inner`` takes another choice on that axis
            inside; ``descent`` is given the descent objective.
        couple: for a method that ties its two objectives together: makes both of (ascent or None, descent).
        optimizer: its class.
    """

    name: str
    idea: str
    source: str
    arxiv: str
    rho: float = 0.05
    rho_of_sam: float = 0.05
    passes: str = "2"
    choices: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    couple: Callable[[Callable[..., Tensor] | None, Callable[..., Tensor]], Objectives] | None = None
    optimizer: type[SharpnessAware] = field(default=SharpnessAware, compare=False)

    def __set_name__(self, owner: type[SharpnessAware], name: str) -> None:
        object.__setattr__(self, "optimizer", owner)

    def __call__(self, base: Optimizer, **arguments: Any) -> SharpnessAware:
        """Build its optimizer: ``METHODS["asam"](base, model=model)``."""
        return self.optimizer(base, **arguments)

    @property
    def numbers(self) -> dict[str, Any]:
        """Its own numbers and their defaults, without the radius."""
        named = {name: p.default for make in self.choices.values() for name, p in _parameters(make).items()}
        return {name: default for name, default in named.items() if name not in ("inner", "descent")}

    def wraps(self, axis: str) -> bool:
        """Whether its choice on ``axis`` takes another one inside."""
        return axis in self.choices and "inner" in _parameters(self.choices[axis])

    def choose(self, axis: str, **numbers: Any) -> Any:
        """Return its choice on ``axis``, made of those of ``numbers`` that belong to it."""
        make = self.choices[axis]
        return make(**{name: value for name, value in numbers.items() if name in _parameters(make)})

    def options(self, given: Options, **numbers: Any) -> Options:
        """Return the arguments of :class:`~bisam.SharpnessAware` for these numbers.

        A choice that is given, and is not None, replaces the method's own.

        Raises:
            ValueError: a number that has no effect, because a given choice replaces the one that it belongs to.
        """
        chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        descent = chosen.get("descent", nn.CrossEntropyLoss())
        for axis, make in self.choices.items():
            if axis not in chosen:
                chosen[axis] = self.choose(axis, descent=descent, **numbers)
                continue
            for name, parameter in _parameters(make).items():
                if name in numbers and numbers[name] != parameter.default:
                    raise ValueError(
                        f"{name}={numbers[name]!r} has no effect on {self.name}, because {axis}={chosen[axis]!r} "
                        "replaces the choice that it belongs to: leave out one of the two"
                    )
        if self.couple is not None:
            chosen["ascent"], chosen["descent"] = self.couple(chosen.get("ascent"), descent)
        return cast(Options, chosen)


def _parameters(make: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(make).parameters
