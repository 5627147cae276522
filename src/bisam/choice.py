"""What every choice of a method declares, and what a choice works with.

A method is a set of choices, one on each axis: ascent, direction, geometry, radius, cadence, combine. Each axis has its
own base class (:class:`~bisam.direction.Direction`, :class:`~bisam.geometry.Geometry`, ...), and each of these is a
:class:`Choice`: it *declares* what else the optimizer must know of it. A choice that holds another one is a
:class:`Wrapper` too, which forwards what the inner choice declares.
"""

from abc import ABC
from collections.abc import Mapping
from typing import Any, ClassVar

from ._vectors.bucket import Bucket
from ._vectors.foreach import Scale
from ._vectors.memory import Memory
from ._vectors.part import Part
from ._vectors.vector import Vector

__all__ = ["Bucket", "Choice", "Memory", "Part", "Scale", "Vector", "Wrapper", "require_choice"]


class Choice(ABC):  # noqa: B024 - the axes add the abstract method
    """What a choice declares beside what it does; a subclass overrides what differs.

    Example:
        >>> from bisam.geometry import ScaledBall
        >>> isinstance(ScaledBall(), Choice)
        True
        >>> ScaledBall(), ScaledBall().needs_scale
        (ScaledBall(eta=0.01), False)

    Attributes:
        memory: names of the vectors that it remembers in :class:`Memory`, saved in ``state_dict()``.
        numbers: first values, by name, of the single numbers that it remembers there.
        needs_scale: whether its result depends on the scale of the losses, so that ``passes(grad_scale=)`` must tell
            it. A choice that says False gives the same perturbation for a loss that is multiplied by 1024;
            :data:`bisam.testing.CONTRACT` checks that.
    """

    memory: tuple[str, ...] = ()
    numbers: Mapping[str, Any] = {}
    needs_scale: bool = False

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in vars(self).items() if not name.startswith("_"))
        return f"{type(self).__name__}({shown})"


class Wrapper(Choice):
    """A choice around an inner one of the same axis: it declares what the inner one declares, and its own besides.

    Write it first among the bases, and name what it needs itself in the attributes ``own_...``.

    Example:
        >>> from bisam import SAM, ScaledBall
        >>> from bisam.geometry import Geometry
        >>> class Half(Wrapper, Geometry):
        ...     def __call__(self, buckets, memory):
        ...         self.inner(buckets, memory)
        ...         for bucket in buckets:
        ...             bucket.multiply([torch.full_like(t, 0.5) for t in bucket.tensors])
        >>> opt = SAM(base, model=model, geometry=Half(ScaledBall()))

    Args:
        inner: the choice inside.

    Raises:
        TypeError: ``inner`` is no choice of the same axis.
    """

    own_memory: ClassVar[tuple[str, ...]] = ()
    own_numbers: ClassVar[Mapping[str, Any]] = {}
    own_needs_scale: ClassVar[bool] = False

    def __init__(self, inner: Choice) -> None:
        axis = next(
            (
                base
                for base in type(self).__mro__
                if issubclass(base, Choice) and Choice in base.__bases__ and base is not Wrapper
            ),
            Choice,
        )
        require_choice("inner", inner, axis)
        self.inner: Any = inner

    @property
    def memory(self) -> tuple[str, ...]:  # type: ignore[override]
        """Names of the vectors that both remember."""
        return (*self.own_memory, *self.inner.memory)

    @property
    def numbers(self) -> Mapping[str, Any]:  # type: ignore[override]
        """The numbers that both remember."""
        return {**self.own_numbers, **self.inner.numbers}

    @property
    def needs_scale(self) -> bool:  # type: ignore[override]
        """Whether one of the two depends on the scale of the losses."""
        return bool(self.own_needs_scale or self.inner.needs_scale)


def require_choice(name: str, value: object, axis: type[Choice]) -> None:
    """Refuse what does not declare itself as a choice of that axis.

    Example:
        >>> from bisam.choice import require_choice
        >>> from bisam.geometry import Geometry, ScaledBall
        >>> require_choice("geometry", ScaledBall(), Geometry)  # raises for what is none

    Raises:
        TypeError: naming the argument, its value and the class to derive from.
    """
    if isinstance(value, axis):
        return
    kind = f"bisam.{axis.__module__.removeprefix('bisam.').partition('.')[0]}.{axis.__name__}"
    if isinstance(value, type) and issubclass(value, axis):
        raise TypeError(f"{name}={value.__name__} is a class: pass an object of it, {name}={value.__name__}(...)")
    raise TypeError(
        f"{name}={value!r} must be a {kind}: derive a class from it, which declares what it remembers and whether it "
        f"depends on the loss's scale; around another choice, derive it from bisam.choice.Wrapper and {kind}"
    )
