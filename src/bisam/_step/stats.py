"""What the last step did, for logs: read when it is asked for, free for those who do not ask."""

from collections.abc import Callable

import torch
from torch import Tensor

from .objective import Objective

__all__ = ["StepStats"]


class StepStats:
    """What the last loop over ``passes()`` did. Not reading it costs nothing.

    With accumulation it tells of the last micro-batch.

    Example:
        >>> for objective in opt.passes():
        ...     objective(model(x), y).backward()
        >>> opt.step()
        >>> opt.last.loss.shape, opt.last.output.shape, opt.last.perturbed
        (torch.Size([]), torch.Size([2, 3]), True)

    Args:
        descent: the descent objective.
    """

    def __init__(self, descent: Callable[..., Tensor] | None = None) -> None:
        self._descent = descent
        self._norm: Tensor | None = None
        self._perturbed: Tensor | None = None
        self._ascent: Objective | None = None
        self._at_w: Objective | None = None
        self._loss: Tensor | None = None
        self._ascent_value: Tensor | None = None

    def climbed(self, norm: Tensor, perturbed: Tensor) -> None:
        """Remember how far the weights have moved, and whether they have."""
        self._norm, self._perturbed = norm, perturbed

    def saw(self, objective: Objective) -> None:
        """Remember a pass that was taken at w; the first one tells the loss."""
        self._at_w = self._at_w or objective

    def release(self) -> None:
        """Let go of the outputs, as the next step begins; numbers that have been read stay."""
        self._ascent_value = None if self._ascent is None else self._ascent.value
        self._at_w = self._ascent = None

    def climbs(self, ascent: Objective | None) -> None:
        """Remember the ascent's pass, where there was one."""
        self._ascent = ascent

    def forget_weights(self) -> None:
        """Withdraw values that are sums of several calls; see :meth:`Objective.forget_weights`."""
        self._loss = None
        for objective in (self._at_w, self._ascent):
            if objective is not None:
                objective.forget_weights()

    @property
    def loss(self) -> Tensor | None:
        """The descent objective at w: 0-dim, detached, on the device. The number to log, for every method.

        SAM's first pass has computed it. Where the ascent is another objective (BiSAM), the descent objective is
        evaluated now, on the output and target of the first pass; one that reads the weights itself sees those of now.
        None where no pass was taken at w (MomentumSAM, AsyncSAM), and where the loss cannot be told.
        """
        if self._loss is None and self._at_w is not None and self._descent is not None:
            value = self._at_w.value_of(self._descent)
            loss = None if value is None else value.detach().mean()
            if not self._at_w.over:  # there may be more calls
                return loss
            self._loss = loss
        return self._loss

    @property
    def output(self) -> Tensor | None:
        """The model's output at w, detached: what the metrics are counted on.

        It is kept until the next loop begins. None where no pass was taken at w, where the output is no tensor or not
        one, and where an engine has computed the loss.
        """
        return None if self._at_w is None else self._at_w.output

    @property
    def perturbed_on_device(self) -> Tensor | None:
        """:attr:`perturbed` as a 0-dim tensor on the device; None where there was nothing to climb."""
        return self._perturbed

    @property
    def norm_on_device(self) -> Tensor | None:
        """:attr:`norm` as a 0-dim tensor, 0 where the weights did not move; None where there was nothing to climb."""
        return self._norm

    @property
    def norm(self) -> float:
        """L2 norm of the perturbation; for 16-bit weights what they really moved by, which may be far from rho."""
        return 0.0 if self._norm is None else float(self._norm)

    @property
    def perturbed(self) -> bool:
        """Whether the last pass ran at w + eps rather than at w. Waits for the device."""
        return self._perturbed is not None and bool(self._perturbed)

    @property
    def ascent_value(self) -> float | None:
        """Value of the ascent objective at w. Waits for the device.

        None where it was not called or the step did not climb.
        """
        value = self._ascent_value if self._ascent is None else self._ascent.value
        return None if value is None else float(torch.mean(value))

    def __repr__(self) -> str:
        return f"StepStats(perturbed={self.perturbed}, norm={self.norm:.6g}, ascent_value={self.ascent_value})"
