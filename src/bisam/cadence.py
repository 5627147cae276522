"""Cadence: on which steps is the gradient sharpness-aware?

On the other steps ``passes()`` yields one pass, the plain descent. A cadence is a pure function of the number of steps
taken, which is saved with the optimizer. So a run resumes in mid-cycle, and all micro-batches and workers agree.
"""

import math
import random
from abc import abstractmethod
from collections.abc import Sequence

from ._validation import count, finite
from ._validation import fraction as in_unit_interval
from ._vectors.random import seeded
from .choice import Choice

__all__ = ["Adaptive", "Always", "Bernoulli", "Cadence", "Every", "GradientCadence", "Tail", "Window"]


class Cadence(Choice):
    """Chooses the steps that perturb.

    Example:
        >>> class Fibonacci(Cadence):
        ...     def __call__(self, step):
        ...         return step in (1, 2, 3, 5, 8, 13)
        >>> opt = bisam.SAM(base, model=model, cadence=Fibonacci())
    """

    @abstractmethod
    def __call__(self, step: int) -> bool:
        """Return whether step number ``step`` (from 0) perturbs."""

    @property
    def fraction(self) -> float | None:
        """Fraction of the steps that perturb, in the long run; None where only the training can tell."""
        return None

    def opened_before(self, step: int) -> bool:
        """Whether one of the steps before number ``step`` was to perturb."""
        return any(self(earlier) for earlier in range(step))


class GradientCadence(Cadence):
    """A cadence that also looks at the gradient at w, on each step that its call allows. The host waits for the device.

    It remembers its running moments as the number ``moments``; a subclass defines :meth:`decide`.

    Example:
        >>> class Large(GradientCadence):
        ...     def __call__(self, step):
        ...         return step > 100  # before, no gradient is looked at
        ...     def decide(self, step, squared_norm, moments):
        ...         return squared_norm > 1.0, list(moments)
        >>> opt = bisam.SAM(base, model=model, cadence=Large())
    """

    numbers = {"moments": ()}
    needs_scale = True

    @abstractmethod
    def decide(self, step: int, squared_norm: float, moments: Sequence[float]) -> tuple[bool, list[float]]:
        """Return whether this step perturbs, and the new running moments.

        Args:
            step: number of the step, from 0.
            squared_norm: of the descent objective's gradient at w, with the loss's scale taken out.
            moments: as the last step left them; empty at first.
        """


class Always(Cadence):
    """Every step, as in SAM.

    Example:
        >>> from bisam import SAM
        >>> from bisam.cadence import Always
        >>> opt = SAM(base, model=model, cadence=Always())  # the default
    """

    fraction = 1.0

    def __call__(self, step: int) -> bool:
        """Return True."""
        return True


class Every(Cadence):
    """One step in ``k``, the first included: 1 + 1/k forward-backward pairs a step.

    Example:
        >>> from bisam import SAM
        >>> from bisam.cadence import Every
        >>> opt = SAM(base, model=model, cadence=Every(5))
        >>> [step for step in range(12) if Every(5)(step)]
        [0, 5, 10]

    Args:
        k: length of the cycle, >= 1.
    """

    def __init__(self, k: int) -> None:
        self.k = count("k", k)

    def __call__(self, step: int) -> bool:
        """Return whether ``step`` begins a cycle."""
        return step % self.k == 0

    @property
    def fraction(self) -> float:
        """1/k."""
        return 1 / self.k


class Window(Cadence):
    """The steps from ``start`` up to ``stop``, and plain steps before and after: late in training, for instance.

    The optimizer warns, once, if a run ends and the window never opened.

    Example:
        >>> from bisam import SAM
        >>> from bisam.cadence import Window
        >>> opt = SAM(base, model=model, cadence=Window(start=2, stop=4))
        >>> [step for step in range(6) if Window(start=2, stop=4)(step)]
        [2, 3]

    Args:
        start: first step that perturbs, >= 0.
        stop: first step after the window; None means the end of training.
    """

    def __init__(self, start: int = 0, stop: int | None = None) -> None:
        self.start = count("start", start, 0)
        self.stop = stop if stop is None else count("stop", stop, 0)
        if self.stop is not None and self.stop <= self.start:
            raise ValueError(f"stop={stop!r} must be greater than start={start!r}, or None")

    def __call__(self, step: int) -> bool:
        """Return whether ``step`` lies inside."""
        return step >= self.start and (self.stop is None or step < self.stop)

    def opened_before(self, step: int) -> bool:
        """Whether ``step`` lies behind the window's first step."""
        return step > self.start


class Tail(Window):
    """The last part of a training of known length (Zhou et al., ICLR 2025, arXiv 2410.10373).

    The optimizer warns, once, if the training goes on beyond ``total_steps``, or ends before the tail begins: then
    ``total_steps`` is not the number of ``step()`` calls.

    Example:
        >>> from bisam import SAM
        >>> from bisam.cadence import Tail
        >>> opt = SAM(base, model=model, cadence=Tail(10, tail=0.2))
        >>> [step for step in range(10) if Tail(10, tail=0.2)(step)]
        [8, 9]

    Args:
        total_steps: number of optimizer steps of the whole training, >= 1: the length of the learning-rate schedule.
        tail: the last part that perturbs, as a fraction in (0, 1].
    """

    def __init__(self, total_steps: int, tail: float = 0.2) -> None:
        self.total_steps = count("total_steps", total_steps)
        self.tail = in_unit_interval("tail", tail)
        super().__init__(self.total_steps - max(1, round(self.tail * self.total_steps)))

    @property
    def fraction(self) -> float:
        """The tail's share of the training."""
        return 1 - self.start / self.total_steps


class Bernoulli(Cadence):
    """Each step with probability ``p``, drawn from (seed, step), so that a resumed run draws the same.

    Example:
        >>> from bisam import SAM
        >>> from bisam.cadence import Bernoulli
        >>> opt = SAM(base, model=model, cadence=Bernoulli(0.5))

    Args:
        p: in (0, 1]; 1 + p forward-backward pairs a step on average.
        seed: of the draws.
    """

    def __init__(self, p: float, seed: int = 0) -> None:
        self.p = in_unit_interval("p", p)
        self.seed = seed

    def __call__(self, step: int) -> bool:
        """Draw."""
        return random.Random(seeded(self.seed, step)).random() < self.p

    @property
    def fraction(self) -> float:
        """The probability."""
        return self.p


class Adaptive(GradientCadence):
    """AE-SAM's cadence (Jiang et al., ICLR 2023, arXiv 2304.14647): perturb where the gradient is large for its time.

    With n = ||g||^2 and running moments mu = delta mu + (1 - delta) n, s^2 = delta s^2 + (1 - delta) (n - mu)^2, a step
    perturbs where n >= mu + c_t s, with c_t = t/T lambda_1 + (1 - t/T) lambda_2: rarely at first, often at the end. The
    other steps are plain and cost one pass.

    Example:
        >>> from bisam import SAM
        >>> from bisam.cadence import Adaptive
        >>> opt = SAM(base, model=model, cadence=Adaptive(total_steps=1000))  # bisam.AESAM

    Args:
        total_steps: T; None keeps c at the middle of the two.
        lambda_1: c at the end.
        lambda_2: c at the start.
        delta: weight of the old moments, in (0, 1].
    """

    def __init__(
        self, total_steps: int | None = None, lambda_1: float = -1.0, lambda_2: float = 1.0, delta: float = 0.9
    ) -> None:
        self.total_steps = total_steps if total_steps is None else count("total_steps", total_steps)
        self.lambda_1, self.lambda_2 = finite("lambda_1", lambda_1), finite("lambda_2", lambda_2)
        self.delta = in_unit_interval("delta", delta)

    def __call__(self, step: int) -> bool:
        """Return True: every step may perturb."""
        return True

    def decide(self, step: int, squared_norm: float, moments: Sequence[float]) -> tuple[bool, list[float]]:
        """Return whether ``squared_norm`` is large, and the new (mu, s^2).

        A norm that is not finite leaves the moments as they are. The step then perturbs, and its last pass runs at w.
        """
        mu, variance = moments or (0.0, math.exp(-10))
        if not math.isfinite(squared_norm):
            return True, [mu, variance]
        mu = self.delta * mu + (1 - self.delta) * squared_norm
        variance = self.delta * variance + (1 - self.delta) * (squared_norm - mu) ** 2
        done = 0.5 if self.total_steps is None else min(1.0, step / self.total_steps)
        c = done * self.lambda_1 + (1 - done) * self.lambda_2
        return squared_norm >= mu + c * math.sqrt(variance), [mu, variance]
