"""Ascent without a pass: what does the perturbation climb if nothing is computed for it?

The first choice of a method is what to climb. Mostly that is an objective, any callable of (output, target), whose
gradient costs a pass. The members here take a gradient that is at hand instead, so a step has one pass.
"""

from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor
from torch.optim import Optimizer

from .choice import Choice, Memory, Vector

__all__ = ["BaseMomentum", "LastGradient", "StoredAscent"]


class StoredAscent(Choice):
    """Supplies a gradient to climb along, without a pass.

    Example:
        >>> from bisam import SAM
        >>> from bisam.ascent import LastGradient, StoredAscent
        >>> isinstance(LastGradient(), StoredAscent)  # SAM(base, ascent=LastGradient()) has one pass a step
        True
    """

    #: Whether :meth:`remember` is to be given the gradient of the step's last pass.
    remembers_gradient: bool = False

    @abstractmethod
    def __call__(self, params: Sequence[Tensor], base: Optimizer, memory: Memory) -> Vector:
        """Return what stands for the gradient, a vector that may be overwritten.

        The step does not move parameters that it leaves out.

        Args:
            params: the optimizer's trainable parameters.
            base: the base optimizer, with its state.
            memory: what this choice has declared in ``memory`` and ``numbers``.
        """

    def remember(self, gradient: Vector, memory: Memory) -> None:
        """Take the gradient of the step's last pass, where ``remembers_gradient`` says so; it must not be changed."""

    def check(self, base: Optimizer) -> None:
        """Refuse a base optimizer that cannot supply the gradient.

        Raises:
            ValueError: naming the base and the remedy.
        """


class BaseMomentum(StoredAscent):
    """MSAM's perturbation (Becker et al., arXiv 2401.12033): along the base optimizer's momentum v.

    **Mind the sign.** The paper and its authors' code evaluate the gradient at w - rho v / ||v||, where v accumulates
    gradients. So they look ahead along the coming update, as Nesterov's momentum does, and do not climb. That is the
    default. ``uphill=True`` climbs along +v instead.

    Where there is no momentum yet, before the first step, nothing moves.

    Example:
        >>> from bisam import SAM
        >>> from bisam.ascent import BaseMomentum
        >>> opt = SAM(base, model=model, rho=3.0, ascent=BaseMomentum())  # bisam.MomentumSAM

    Args:
        uphill: climb along the momentum instead.
        key: name of the momentum in the base optimizer's state of a parameter; None looks for ``momentum_buffer`` (SGD,
            Muon) and ``exp_avg`` (Adam and its kin, Lion).
    """

    _KEYS = ("momentum_buffer", "exp_avg")

    def __init__(self, uphill: bool = False, key: str | None = None) -> None:
        if not isinstance(uphill, bool):
            raise TypeError(f"uphill={uphill!r} must be True or False")
        self.uphill, self.key = uphill, key

    def __call__(self, params: Sequence[Tensor], base: Optimizer, memory: Memory) -> Vector:
        """Return a copy of the momentum, with the sign that the climb is to take.

        Raises:
            RuntimeError: the base has taken a step, and its state holds no momentum.
        """
        keys = self._KEYS if self.key is None else (self.key,)
        states = [(param, base.state[param]) for param in params if param in base.state]
        found = {p: s[key] for p, s in states for key in keys if isinstance(s.get(key), Tensor)}
        if memory.step > 0 and states and not found:
            raise RuntimeError(
                f"the state of base={type(base).__name__} holds no {' or '.join(keys)}: name its momentum, "
                "ascent=BaseMomentum(key=...), or use a base that has one"
            )
        maximised = {p for group in base.param_groups if group.get("maximize") for p in group["params"]}
        ahead = [(p, m) for p, m in found.items() if (p in maximised) == self.uphill]
        along = [(p, m) for p, m in found.items() if (p in maximised) != self.uphill]
        minus = Vector.of(ahead).copy()
        minus.mul_(-1.0)
        return Vector([*minus.parts, *Vector.of(along).copy().parts])

    def check(self, base: Optimizer) -> None:
        """Refuse a base whose groups say that they have no momentum, or which holds a shard of it alone."""
        for one in getattr(base, "optimizers", [base]):
            if any(kind.__name__ == "ZeroRedundancyOptimizer" for kind in type(one).__mro__):
                raise ValueError(
                    "base=ZeroRedundancyOptimizer keeps a part of the momentum on each worker, so the workers would "
                    "perturb different weights: use the optimizer itself, or fully_shard (FSDP2)"
                )
        if all(group.get("momentum", None) == 0 for group in base.param_groups):
            raise ValueError(
                f"base={type(base).__name__} has momentum=0, so there is no momentum to perturb along: pass "
                "momentum=0.9, say, or use bisam.AsyncSAM"
            )


class LastGradient(StoredAscent):
    """AsyncSAM's ascent in one pass (Jo et al., arXiv 2503.11147): climb the gradient of the step before.

    The paper computes the stale gradient at the weights of the step before, on a second device, beside the update. Here
    it is the gradient that the step before has descended, taken at w + eps: nothing is computed for it. The paper's
    equations could not be checked; its abstract and a summary agree on the stale gradient.

    The first step has none and is plain.

    Example:
        >>> from bisam import SAM
        >>> from bisam.ascent import LastGradient
        >>> opt = SAM(base, model=model, ascent=LastGradient())  # bisam.AsyncSAM
    """

    memory = ("last",)
    remembers_gradient = True

    def __call__(self, params: Sequence[Tensor], base: Optimizer, memory: Memory) -> Vector:
        """Return a copy of the gradient of the step before; zero before the first step."""
        return memory.read("last", Vector.of((param, param.detach()) for param in params)).copy()

    def remember(self, gradient: Vector, memory: Memory) -> None:
        """Keep the gradient of the last pass."""
        memory.write("last", gradient.copy())
