"""A schedule for rho, by the rules of torch's learning-rate schedules or along the learning rate itself."""

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ._validation import not_negative

__all__ = ["RhoScheduler"]


class RhoScheduler:
    """Sets ``rho`` in the param groups of a sharpness-aware optimizer, once a call of :meth:`step`.

    Without ``schedule`` it follows the learning rate, as GSAM does (arXiv 2203.08065):
    rho_t = rho_min + (rho - rho_min) (lr_t - lr_min) / (lr_max - lr_min) for each group; call ``step()`` after the
    learning-rate scheduler's.
    With one, any torch scheduler runs on rho: ``RhoScheduler(opt, lambda o: CosineAnnealingLR(o, T_max=90))``.

    Example:
        >>> from bisam import SAM, RhoScheduler
        >>> opt = SAM(base, model=model, rho=0.1)
        >>> schedule = RhoScheduler(opt)  # rho follows the learning rate; schedule.step() behind each opt.step()

    Args:
        optimizer: whose groups hold ``rho``; their present values are the largest ones (kept as ``initial_rho``).
        schedule: builds a torch scheduler on the optimizer it is given, whose ``lr`` is our rho.
        rho_min: rho where the learning rate is ``lr_min``, >= 0; a group whose rho is 0 stays there.
        lr_min: learning rate at which rho is smallest, >= 0; the ``eta_min`` of a cosine, say.
        lr_max: learning rate at which rho is largest; None takes each group's ``max_lr``, ``initial_lr`` or ``lr``.

    Raises:
        TypeError: an optimizer whose groups hold no ``rho``.
        ValueError: ``rho_min < 0``, ``lr_min < 0`` or ``lr_max <= lr_min``; one of them together with ``schedule``.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        schedule: Callable[[Optimizer], LRScheduler] | None = None,
        *,
        rho_min: float = 0.0,
        lr_min: float = 0.0,
        lr_max: float | None = None,
    ) -> None:
        if any("rho" not in group for group in optimizer.param_groups):
            raise TypeError("optimizer has no rho in its param groups: pass a sharpness-aware one, such as bisam.SAM")
        if schedule is not None and (rho_min or lr_min or lr_max is not None):
            raise ValueError(
                "rho_min, lr_min and lr_max are for following the learning rate: leave them out with schedule="
            )
        if lr_max is not None and not lr_max > lr_min:
            raise ValueError(f"lr_max={lr_max!r} must be greater than lr_min={lr_min!r}, and than 0")
        self.optimizer = optimizer
        self.rho_min = not_negative("rho_min", rho_min)
        self.lr_min = not_negative("lr_min", lr_min)
        self.lr_max = lr_max
        self._initial = [group.setdefault("initial_rho", group["rho"]) for group in optimizer.param_groups]
        self._shadow: Optimizer | None = None
        self._schedule: LRScheduler | None = None
        if schedule is not None:
            groups = [{"params": [torch.zeros(())], "lr": g["initial_rho"]} for g in optimizer.param_groups]
            self._shadow = torch.optim.SGD(groups, lr=0.0)
            self._schedule = schedule(self._shadow)
        self._write()

    def step(self, *args: Any) -> None:
        """Advance the schedule by one, or read the learning rate, and set every group's rho.

        Args:
            args: what the schedule's own ``step`` takes, such as the metric of ``ReduceLROnPlateau``.
        """
        if self._shadow is not None and self._schedule is not None:
            self._shadow.step()  # moves nothing; torch warns where a schedule runs ahead of its optimizer
            self._schedule.step(*args)
        self._write()

    def get_last_rho(self) -> list[float]:
        """Return the rho of each group."""
        return [group["rho"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """Return what resuming needs; rho itself is saved with the optimizer."""
        if self._schedule is None or self._shadow is None:
            return {}
        return {
            "schedule": self._schedule.state_dict(),
            "rho": [group["lr"] for group in self._shadow.param_groups],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume from :meth:`state_dict`."""
        if self._schedule is not None and self._shadow is not None:
            self._schedule.load_state_dict(state_dict["schedule"])
            for group, rho in zip(self._shadow.param_groups, state_dict["rho"], strict=True):
                group["lr"] = rho
        self._write()

    def _write(self) -> None:
        for number, group in enumerate(self.optimizer.param_groups):
            if number >= len(self._initial):  # added since
                self._initial.append(group["rho"])
            top_rho = group.setdefault("initial_rho", self._initial[number])  # a plain checkpoint has none
            if self._shadow is None:
                top = self.lr_max or group.get("max_lr", group.get("initial_lr", group["lr"]))
                reach = float(top) - self.lr_min
                height = min(1.0, max(0.0, float(group["lr"]) - self.lr_min) / reach) if reach > 0 else 1.0
                group["rho"] = self.rho_min + (top_rho - self.rho_min) * height if top_rho else 0.0
            elif number < len(self._shadow.param_groups):  # one added since keeps its rho
                group["rho"] = max(0.0, float(self._shadow.param_groups[number]["lr"]))
