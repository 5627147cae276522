"""Sharpness-aware training under Lightning's ``Trainer``.

Lightning's automatic optimization calls ``training_step``, ``zero_grad``, ``backward`` for each micro-batch and hands
all of it to ``optimizer.step`` as a closure, but only for the last micro-batch of a window. The seam is therefore
``training_step``: the ascent pass runs inside it, whole and unseen, and the descent pass is the one that Lightning
logs, scales, hooks, clips and steps. Lightning itself is not imported: both ``lightning.pytorch`` and
``pytorch_lightning`` modules take the mixin.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from bisam._step.objective import Objective
from bisam._step.passes import Passes
from bisam.optimizer import SharpnessAware

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule as _Base
    from torch.optim import Optimizer
else:
    _Base = object

__all__ = ["SharpnessAwareMixin"]


class SharpnessAwareMixin(_Base):
    """Lets a ``LightningModule`` train with the optimizers of this library; it stands first among the bases.

        class Net(SharpnessAwareMixin, LightningModule):
            def training_step(self, batch, batch_idx):
                x, y = batch
                loss = self.objective(self(x), y)
                self.log("train_loss", loss)
                return loss

            def configure_optimizers(self):
                return BiSAM(torch.optim.SGD(self.parameters(), lr=0.1), model=self)

    ``training_step`` runs once a pass. Everything else happens once a step, and belongs to the last pass: ``self.log``
    (silent during the ascent), ``on_before_backward``, ``on_after_backward``, clipping, ``global_step``, and the
    output that callbacks see. What is no ``self.log`` (a metric's ``update``, a logger called directly) needs
    ``if not self.objective.is_ascent``. Gradients are cleared *before* the first pass, so ``on_before_zero_grad``
    finds none. With ``accumulate_grad_batches`` each micro-batch has its own perturbation; under DDP each worker has.

    With ``automatic_optimization = False`` the mixin makes ``self.optimizers().step()`` safe after a loop of your own.

    Example:
        >>> from lightning.pytorch import LightningModule
        >>> from bisam import BiSAM
        >>> class Net(SharpnessAwareMixin, LightningModule):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.net = nn.Linear(4, 3)
        ...     def training_step(self, batch, batch_idx):
        ...         return self.objective(self.net(batch[0]), batch[1])
        ...     def configure_optimizers(self):
        ...         return BiSAM(torch.optim.SGD(self.parameters(), lr=0.1), model=self, rho=0.05)
    """

    _opt: SharpnessAware | None = None
    _loop: Passes | None = None
    _inside = False  # training_step is running on behalf of a pass
    _ascending = False
    _complete = False  # the gradient is there before Lightning's backward: an adaptive cadence ended the step at w
    _held: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let ``training_step`` run once a pass.

        Raises:
            TypeError: the mixin stands behind LightningModule; ``training_step`` takes ``dataloader_iter``.
        """
        super().__init_subclass__(**kwargs)
        before = cls.__mro__[: cls.__mro__.index(SharpnessAwareMixin)]
        if any(base.__name__ == "LightningModule" for base in before):
            raise TypeError(f"write class {cls.__name__}(SharpnessAwareMixin, LightningModule): the mixin comes first")
        owner = next((base for base in cls.__mro__ if "training_step" in vars(base)), None)
        if owner is None or owner.__name__ == "LightningModule":  # the hook's stub: Lightning reports it missing
            return
        step = vars(owner)["training_step"]
        if "dataloader_iter" in inspect.signature(step).parameters:
            raise TypeError(
                f"{cls.__name__}.training_step must take (batch, batch_idx): a second pass over "
                "dataloader_iter would draw another batch"
            )
        if not getattr(step, "_runs_once_a_pass", False):
            cls.training_step = _once_a_pass(step)  # type: ignore[method-assign]

    @property
    def objective(self) -> Objective:
        """The objective of the running pass: call it on (output, target) instead of a loss of your own.

        Raises:
            RuntimeError: no pass is running.
        """
        if self._opt is None:
            raise RuntimeError(
                "self.objective exists inside training_step() under Trainer.fit: elsewhere use a loss of your own, "
                "and let an on_train_start() of your own call super().on_train_start()"
            )
        return self._opt.objective

    # -- Lightning's hooks ---------------------------------------------------------------------------------------

    def on_train_start(self) -> None:
        """Take the optimizers over.

        Raises:
            TypeError: automatic optimization without a sharpness-aware optimizer.
            RuntimeError: a strategy, or a way to compile, in which the passes would not be right.
        """
        super().on_train_start()
        strategy = self.trainer.strategy
        sharp = [opt for opt in strategy.optimizers if isinstance(opt, SharpnessAware)]
        if self.automatic_optimization and not sharp:
            raise TypeError(
                f"configure_optimizers() returned {[type(opt).__name__ for opt in strategy.optimizers]}: return "
                "BiSAM(torch.optim.SGD(...), model=self), or SAM with rho=0 for the plain optimizer"
            )
        _check_strategy(strategy.model, self)
        if getattr(self, "_compiler_ctx", None) is not None:  # torch.compile(module) leaves no other trace
            raise RuntimeError("compile the network inside, self.net = torch.compile(net), not the LightningModule")
        for opt in sharp:
            opt.model = strategy.model  # wrapped, for DDP; and whole, for training_step runs twice on all its buffers
        self._loop = None
        self._opt = sharp[0] if self.automatic_optimization else None
        strategy.optimizers = [
            _StepsOnce(opt, self) if isinstance(opt, SharpnessAware) else opt  # type: ignore[misc]
            for opt in strategy.optimizers
        ]

    def on_train_end(self) -> None:
        """Let the optimizer go: a module that is copied or pickled afterwards brings no trainer's objects along."""
        super().on_train_end()
        if self._opt is not None:
            self._opt.model, self._opt = self, None

    def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """Run backward; that of the descent pass ends the passes, so that hooks and clipping see the gradient.

        Raises:
            RuntimeError: something ended the passes early, or the objective was never called.
        """
        if self._complete:
            self._complete = False
            return
        if self._ascending or self._loop is None:
            super().backward(loss, *args, **kwargs)
            return
        try:
            _check_running(self)
            super().backward(loss, *args, **kwargs)
            next(self._loop, None)
        except BaseException:
            self._leave()
            raise
        self._loop = None

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: "Optimizer") -> None:
        """Do nothing while the passes run: they began with cleared gradients."""
        if self._loop is None and not self._complete:
            super().optimizer_zero_grad(epoch, batch_idx, optimizer)

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Step as Lightning does; that the hook exists makes it accept a ``RhoScheduler``."""
        super().lr_scheduler_step(scheduler, metric)

    def log(self, *args: Any, **kwargs: Any) -> None:
        """Log as Lightning does, of the last pass only: otherwise each step would count twice."""
        if self._ascending:
            self._held.append((args, kwargs))
        else:
            super().log(*args, **kwargs)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Return the weights; an interrupted step gives back w first, or a checkpoint would hold w + eps."""
        if self._loop is not None:
            self._leave()
        return super().state_dict(*args, **kwargs)

    # -- the passes ----------------------------------------------------------------------------------------------

    def _both_passes(self, opt: SharpnessAware, step: Callable[[], Any]) -> Any:
        """Run the ascent pass, forward and backward, and the descent pass's forward; Lightning goes on from there."""
        self._check_over()
        if self.trainer.fit_loop.batch_idx % self.trainer.accumulate_grad_batches == 0:  # as Lightning would, later
            opt.zero_grad()
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        self._loop, self._complete, self._inside = opt.passes(1.0 if scaler is None else scaler), False, True
        try:
            for objective in self._loop:
                self._ascending, self._held = objective.is_ascent, []
                output = step()
                loss = _loss_of(output)
                if loss is None or not objective.is_ascent:
                    break
                self._ascend(loss / self.trainer.accumulate_grad_batches, scaler)
            else:
                self._complete, self._loop = True, None
        except BaseException:
            self._leave()
            raise
        finally:
            self._inside = self._ascending = False
        if loss is None:  # training_step() skips the batch, which Lightning allows
            self._leave()
            opt._context.left = None
        if self._complete:  # the pass that was taken for the ascent was the last one after all
            for args, kwargs in self._held:
                self.log(*args, **kwargs)
        self._held = []
        return output

    def _ascend(self, loss: Tensor, scaler: Any) -> None:
        _prepare(self.trainer.strategy.model, loss)
        loss = loss if scaler is None else scaler.scale(loss)
        with torch.autocast(loss.device.type, enabled=False):  # training_step runs inside autocast, backward does not
            self.backward(loss)

    def _leave(self) -> None:
        """Give weights, gradients and buffers back."""
        self._loop = None
        if self._opt is not None:
            self._opt.state_dict()  # ends a loop that was left, and unlike zero_grad() keeps what was accumulated

    def _check_over(self) -> None:
        if self._loop is not None:
            self._leave()
            raise RuntimeError("the last pass is unfinished: a backward() of your own calls super().backward(loss)")


class _StepsOnce:
    """Stands in for the optimizer in Lightning: the closure has both passes in it, so it runs once, before the step.

    Lightning always steps with a closure, and ``SharpnessAware.step(closure)`` would run it once a pass.
    """

    def __init__(self, opt: SharpnessAware, module: SharpnessAwareMixin) -> None:
        self._wrapped = opt
        self._module = module

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """The optimizer's own class, for hooks that ask isinstance()."""
        return type(self._wrapped)

    def step(self, closure: Callable[[], Any] | None = None, **kwargs: Any) -> Any:
        """Run the closure, then let the optimizer update the weights."""
        value = None if closure is None else closure()
        self._module._check_over()
        result = self._wrapped.step(**kwargs)
        return result if closure is None else value

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wrapped, name)


def _once_a_pass(step: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a ``training_step`` so that one call of Lightning's runs all passes."""

    @functools.wraps(step)
    def training_step(self: SharpnessAwareMixin, *args: Any, **kwargs: Any) -> Any:
        opt = self._opt
        # self.trainer raises where there is none
        if opt is None and self.automatic_optimization and getattr(self, "_trainer", None) is not None:
            raise RuntimeError("an on_train_start() of your own must call super().on_train_start()")
        if opt is None or self._inside:  # manual optimization, or super().training_step() of a subclass
            return step(self, *args, **kwargs)
        return self._both_passes(opt, lambda: step(self, *args, **kwargs))

    training_step._runs_once_a_pass = True  # type: ignore[attr-defined]
    return training_step


def _check_running(module: SharpnessAwareMixin) -> None:
    try:
        _ = module.objective
    except RuntimeError as error:
        raise RuntimeError(
            "zero_grad() or state_dict() between training_step() and backward() has ended the passes: an "
            "optimizer_zero_grad() of your own calls super().optimizer_zero_grad()"
        ) from error


def _check_strategy(model: Any, module: SharpnessAwareMixin) -> None:
    ddp = isinstance(model, DistributedDataParallel)
    sharded = any(hasattr(part, "set_requires_gradient_sync") for part in module.modules())
    if sharded or (model.module if ddp else model) is not module:
        raise RuntimeError(
            f"a strategy that shards the module, or wraps it in {type(model).__name__}, cannot run the ascent pass "
            "inside training_step(): use strategy='ddp' or one device, or Fabric with a loop of your own"
        )
    if ddp and model.static_graph:
        raise RuntimeError("static_graph=True counts one backward a step, and here are two: static_graph=False")


def _prepare(model: Any, loss: Tensor) -> None:
    """Let a backward inside DDP's forward average gradients, unless the optimizer has switched that off."""
    if isinstance(model, DistributedDataParallel) and model.require_backward_grad_sync:
        # What DDP.forward() does before it returns; nothing public does it for a backward inside that forward.
        model.reducer._rebuild_buckets()
        model.reducer.prepare_for_backward([loss] if model.find_unused_parameters else [])


def _loss_of(output: Any) -> Tensor | None:
    loss = output.get("loss") if isinstance(output, Mapping) else output
    if loss is not None and not isinstance(loss, Tensor):
        raise TypeError(f"training_step() returned {type(loss).__name__}: return the loss, or a dict with it as 'loss'")
    return loss
