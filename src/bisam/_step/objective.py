"""What ``opt.passes()`` yields: the loss function of one pass, and what its calls have returned."""

import inspect
import weakref
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten  # torch's own way through the outputs of models

__all__ = ["Arguments", "Objective", "Turn"]

_INSIDE = "write `for objective in opt.passes(): objective(model(x), y).backward()`, with the model's call inside"


class Turn:
    """One pass's turn in its step, as the objective must know it.

    Attributes:
        index: number of the pass within the step, from 0.
        moved: whether the weights are at w + eps.
        must_be_called: whether the pass may not end without a call of its objective.
        before: the objectives of the step's earlier passes.
        scale: returns what the losses are multiplied by, as ``passes()`` was told.
        look: is shown every loss of the first step, to look at its graph.
        over: whether the pass has ended.
    """

    def __init__(
        self,
        index: int,
        *,
        moved: bool = False,
        must_be_called: bool = False,
        before: "Sequence[Objective]" = (),
        scale: Callable[[], Tensor | float | None] = lambda: None,
        look: Callable[[Tensor], None] | None = None,
    ) -> None:
        self.index, self.moved, self.must_be_called, self.before = index, moved, must_be_called, before
        self.scale, self.look = scale, look
        self.over = False

    def end(self) -> None:
        """End it, and let go of the step: what an objective keeps for the log shall not keep the optimizer alive."""
        self.over = True
        self.before, self.scale, self.look = (), lambda: None, None


class _Call:
    """One call of an objective.

    Attributes:
        value: what it returned, detached.
        trains: whether it can have a part in the pass's loss.
        weight: gradient of the pass's loss with respect to ``value``; None until ``backward()``.
        ambiguous: whether there were several, as where ``autograd.grad()`` is called beside ``backward()``.
        arguments: the call's own, detached; None where they cannot be.
    """

    def __init__(self, turn: Turn, value: Tensor, arguments: Any) -> None:
        self.value, self.arguments = value.detach().clone(), arguments  # a copy: ``loss += ...`` writes in place
        self.trains = value.requires_grad and not torch.compiler.is_compiling()
        self.weight: Tensor | None = None
        self.ambiguous = False
        self._turn = turn
        if self.trains:
            value.register_hook(self._weigh)

    def _weigh(self, gradient: Tensor) -> None:
        """Take what ``backward()`` weighs the value by; it comes before any other gradient.

        Raises:
            RuntimeError: the pass is over.
        """
        if self._turn.over:
            raise RuntimeError(
                f"backward() after the end of pass {self._turn.index}: the weights are no longer those of its forward "
                f"pass. Call it inside the loop: {_INSIDE}"
            )
        self.ambiguous = self.weight is not None
        self.weight = gradient.detach()


class Objective:
    """The loss function of one pass: call it like any loss, ``objective(model(x), y).backward()``.

    It may be called several times in a pass, as CutMix, auxiliary heads and micro-batches inside the pass do.

    Example:
        >>> for objective in opt.passes():
        ...     loss = objective(model(x), y)  # Q in the first pass of BiSAM, cross-entropy in the last
        ...     loss.backward()
        ...     kept = None if objective.is_ascent else loss.detach()
        >>> opt.step()

    Attributes:
        loss: the ascent or descent objective that it calls.
        is_ascent: whether this pass comes before the climb.
        loss_at_w: the descent objective at w, where an engine has computed it beside an ascent of its own.
    """

    def __init__(self, turn: Turn, loss: Callable[..., Tensor], *, is_ascent: bool) -> None:
        self.is_ascent = is_ascent
        self.loss = loss
        self.loss_at_w: Tensor | None = None
        self._turn = turn
        self._scale: Tensor | float | None = None
        self._calls: list[_Call] = []
        self._recorded: list[_Call] = []
        self._outputs: list[Tensor | None] = []
        self._raw: list[weakref.ref[Tensor]] = []

    @property
    def index(self) -> int:
        """Number of the pass within the step, from 0."""
        return self._turn.index

    @property
    def over(self) -> bool:
        """Whether its pass has ended."""
        return self._turn.over

    def __call__(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the loss of (output, target), or of whatever the objective takes.

        Raises:
            RuntimeError: the loop that yielded this objective has ended; the output is that of an earlier pass.
            TypeError: the objective takes other arguments, or returned no tensor.
        """
        if self.over:
            raise RuntimeError(
                "this objective's pass is over: call it inside its own turn of `for objective in opt.passes()`, and "
                "call zero_grad(), state_dict() and passes() outside of that loop, because they end it"
            )
        output = args[0] if args and isinstance(args[0], Tensor) else None
        if output is not None and self._turn.moved and any(b.was_given(output) for b in self._turn.before):
            raise RuntimeError(
                f"pass {self.index} was given the output of an earlier pass, which was computed at w, and the weights "
                f"are at w + eps: {_INSIDE}"
            )
        value = self._evaluate(args, kwargs)
        self._outputs.append(None if output is None else output.detach())
        if output is not None:
            self._raw.append(weakref.ref(output))
        again = self._turn.must_be_called and not self._turn.moved  # another objective may be asked about this pass
        self._note(value, self._calls, Arguments.of(args, kwargs) if again else None)
        return value

    def record(self, value: Tensor) -> Tensor:
        """Take ``value`` as this pass's loss, computed elsewhere: by an engine, or by a model that returns its loss.

        Returns:
            ``value`` itself, to be followed by ``backward()``.

        Raises:
            TypeError: ``value`` is no tensor.
        """
        if not isinstance(value, Tensor):
            raise TypeError(f"record() got {type(value).__name__}: {_returned(value)}")
        self._note(value, self._recorded, None)
        return value

    def _evaluate(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        try:
            value = self.loss(*args, **kwargs)
        except TypeError as error:
            if _takes(self.loss, args, kwargs):
                raise
            raise TypeError(
                f"the {self._kind} objective {self.loss!r} does not take what it was called with: {error}. The "
                "objectives of all passes are called alike, with (output, target): add what else belongs to the loss, "
                "`loss = objective(output, target) + extra`, then `loss.backward()`; or pass ascent= and descent= "
                "that take the same arguments"
            ) from error
        if not isinstance(value, Tensor):
            raise TypeError(f"objective {self.loss!r} returned {type(value).__name__}: {_returned(value)}")
        return value

    def _note(self, value: Tensor, calls: list[_Call], arguments: Any) -> None:
        calls.append(_Call(self._turn, value, arguments))
        if len(calls) == 2:  # now, because the scaler changes it in place after the step
            scale = self._turn.scale()
            self._scale = scale.clone() if isinstance(scale, Tensor) else scale
        if self._turn.look is not None and not torch.compiler.is_compiling():
            self._turn.look(value)

    # -- what the calls have returned ------------------------------------------------------------------------------

    @property
    def value(self) -> Tensor | None:
        """What the call returned, detached; of several calls the sum, each as ``backward()`` has weighted it.

        None before the first call, and, of several calls, before ``backward()``. What was given to :meth:`record` goes
        before what calls have returned. A loss scale is taken out of the sum where ``passes(grad_scale=)`` was told it.
        """
        calls = self._recorded or self._calls
        return self._together(calls, [call.value for call in calls])

    @property
    def output(self) -> Tensor | None:
        """The model's output, detached, as the calls were given it first; None where it is no tensor, or not one."""
        if not self._outputs or any(output is None for output in self._outputs):
            return None
        first = self._outputs[0]
        return first if all(_same(first, output) for output in self._outputs[1:]) else None

    def value_of(self, loss: Callable[..., Tensor]) -> Tensor | None:
        """What another loss makes of the same calls; None where that cannot be told."""
        if self.loss_at_w is not None:
            return self.loss_at_w
        if loss is self.loss:
            return self.value
        given = [None if call.arguments is None else call.arguments.again() for call in self._calls]
        values = [_evaluated(loss, arguments) for arguments in given if arguments is not None]
        known = [value for value in values if value is not None]
        return self._together(self._calls, known) if given and len(known) == len(given) else None

    def _together(self, calls: Sequence[_Call], values: Sequence[Tensor]) -> Tensor | None:
        if len(calls) < 2:
            return values[0] if calls else None
        terms = [(call.weight, value) for call, value in zip(calls, values, strict=True) if call.trains]
        if self.over:  # what backward() has not seen by now is no part of the loss
            terms = [(weight, value) for weight, value in terms if weight is not None]
        if not terms or any(weight is None for weight, _ in terms) or any(call.ambiguous for call in calls):
            return None
        total = torch.stack([(weight * value).sum() for weight, value in terms if weight is not None]).sum()
        return total if self._scale is None else total / self._scale

    def forget_weights(self) -> None:
        """Withdraw sums of several calls, whose weights have a loss scale in them that nobody has told."""
        for calls in (self._calls, self._recorded):
            if len(calls) > 1:
                calls.clear()

    # -- the pass ----------------------------------------------------------------------------------------------------

    @property
    def settled(self) -> bool:
        """Whether the pass may end here."""
        return bool(self._calls or self._recorded) or not self._turn.must_be_called

    @property
    def lacks_backward(self) -> bool:
        """Whether its loss was computed, and ``backward()`` has not been called on it."""
        calls = [call for call in (*self._calls, *self._recorded) if call.trains]
        return bool(calls) and all(call.weight is None for call in calls)

    def was_given(self, output: Tensor) -> bool:
        """Whether a call was given this very output."""
        return output.requires_grad and not output.is_leaf and any(raw() is output for raw in self._raw)

    def finish(self) -> None:
        """End the pass.

        Raises:
            RuntimeError: the objective was never called although the two passes differ.
        """
        self._turn.end()
        if not self.settled:
            raise RuntimeError(
                f"pass {self.index} ended without a call of its {self._kind} objective, so its gradient belongs to "
                "another loss: write `objective(model(x), y).backward()` with the objective that passes() yields (in "
                "a closure: opt.objective), or make ascent and descent the same objective"
            )

    def expire(self) -> None:
        """Refuse calls from now on."""
        self._turn.end()

    @property
    def _kind(self) -> str:
        return "ascent" if self.is_ascent else "descent"

    def __repr__(self) -> str:
        return f"Objective(index={self.index}, is_ascent={self.is_ascent}, loss={self.loss!r})"

    # -- people take it for the number that it returns ---------------------------------------------------------------

    def __getattr__(self, name: str) -> NoReturn:
        if name in ("item", "backward", "detach", "cpu", "mean", "data", "grad_fn"):
            raise AttributeError(f"objective.{name}: {self._remedy}")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __float__(self) -> NoReturn:
        raise TypeError(f"float(objective): {self._remedy}")

    def __format__(self, spec: str) -> str:
        if spec:
            raise TypeError(f"format(objective, {spec!r}): {self._remedy}")
        return repr(self)

    def _refuse(self, other: object) -> NoReturn:
        raise TypeError(f"arithmetic with an objective: {self._remedy}")

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _refuse

    @property
    def _remedy(self) -> str:
        return (
            "the objective is this pass's loss function, not its value. Write `loss = objective(model(x), y)`, then "
            "`loss.backward()` and `loss.item()`; after the call the value is in objective.value"
        )


def _takes(loss: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call with these arguments fits the loss's signature, so that an error came from within."""
    try:
        inspect.signature(getattr(loss, "forward", loss)).bind(*args, **kwargs)
    except TypeError:
        return False
    except ValueError:  # it has no signature to read
        pass
    return True


def _returned(value: Any) -> str:
    """What to write instead of a loss that is no tensor."""
    if isinstance(value, dict):
        return "pass the loss itself, objective.record(sum(losses.values())).backward()"
    if isinstance(value, tuple | list):
        return (
            "it must be a tensor, the loss. Where a loss returns its parts too, take the loss out, "
            "descent=lambda output, target: criterion(output, target)[0], or compute it yourself and write "
            "objective.record(loss).backward()"
        )
    return "it must return a tensor, the loss"


class Arguments:
    """The arguments of a call without their graphs, to call something else with them later.

    Args:
        leaves: tensors and plain values.
        tree: how they belong together.
    """

    def __init__(self, leaves: Sequence[Any], tree: Any) -> None:
        self._leaves = [leaf.detach() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        self._tree = tree
        self._versions = self._now

    @classmethod
    def of(cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> "Arguments | None":
        """Return the arguments; None where they hold something that cannot be looked into."""
        leaves, tree = tree_flatten((args, kwargs))
        plain = (Tensor, str, int, float, bool, type(None), torch.dtype, torch.device)
        return cls(leaves, tree) if all(isinstance(leaf, plain) for leaf in leaves) else None

    @property
    def _now(self) -> list[int]:
        tensors = [leaf for leaf in self._leaves if isinstance(leaf, Tensor)]
        return [0 if tensor.is_inference() else tensor._version for tensor in tensors]  # no public way to see a change

    def again(self) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Return args and kwargs, those in 16 bits widened, as losses under autocast do; None where one has changed."""
        if self._now != self._versions:
            return None
        narrow = (torch.float16, torch.bfloat16)
        wide = [leaf.float() if isinstance(leaf, Tensor) and leaf.dtype in narrow else leaf for leaf in self._leaves]
        args, kwargs = tree_unflatten(wide, self._tree)
        return args, kwargs


def _evaluated(loss: Callable[..., Tensor], arguments: tuple[tuple[Any, ...], dict[str, Any]]) -> Tensor | None:
    """Return a loss without a graph, and without a draw that the training would miss; None where it cannot be told."""
    args, kwargs = arguments
    devices = {leaf.device for leaf in tree_flatten(arguments)[0] if isinstance(leaf, Tensor)}
    with torch.random.fork_rng([device for device in devices if device.type == "cuda"]), torch.enable_grad():
        try:
            value = loss(*args, **kwargs)
        except RuntimeError:  # one that differentiates its output, say
            return None
    return value.detach() if isinstance(value, Tensor) else None


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return False
    return one.data_ptr() == other.data_ptr() and one.shape == other.shape
