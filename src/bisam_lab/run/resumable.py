"""A training that can stop after any step, be saved, and continue as if it had not stopped."""

import copy
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..data import Source
from ..data.examples import count_batches
from ..data.stream import Streamed
from ..errors import one_line, some
from ..recipe import Recipe, differences, settings
from ..registry.methods import Method
from ..registry.metrics import METRICS
from .asking import Asking, Clock
from .checkpoint import CheckpointError, Checkpoints, check_kinds, random_state, read, set_random_state, write
from .epoch import Epoch, check_order, read_epoch
from .evaluation import commonest, predictions
from .fabric import join_fabric
from .observer import Observer, Stopped
from .optimizer import build_optimizer
from .seen import Seen
from .setup import load_examples_and_model, own_noise, synchronised
from .sharding import shard, whole_on_cpu
from .steps import Steps
from .team import Team

if TYPE_CHECKING:
    from .sharded_checkpoint import ShardedCheckpoints

__all__ = ["SPREAD", "Training"]

#: Fields that say over how many devices a run is spread: it may go on over others.
SPREAD = ("engine.devices", "engine.nodes", "engine.strategy", "engine.sync_batchnorm")


class Training:
    """One run's network, optimizer, data and progress.

    Initial weights, split, noise, data order and augmentation depend only on the seed. So the runs of all methods with
    one seed are paired.

    Args:
        recipe: what to train, without variants.
        method: its name.
        seed: of all random numbers.
        data_dir: folder of the data sets.
        clock: tells the seconds that the run has taken; several runs at once share the time.

    Raises:
        RecipeError: data are missing, or the network or the optimizer cannot be built.
    """

    def __init__(
        self,
        recipe: Recipe,
        method: str,
        seed: int,
        data_dir: Path | None = None,
        clock: Clock = time.perf_counter,
    ) -> None:
        self.recipe, self.method, self.seed, self.clock = recipe, method, seed, clock
        self.fabric = join_fabric(recipe.engine)
        self.team = Team(self.fabric)
        splits, model = self.team.all_or_none(lambda: load_examples_and_model(recipe, data_dir, seed))
        self.model = synchronised(recipe.engine, model, self.fabric.device)
        shard(self.fabric, self.model)
        own_noise(seed, self.team.rank)
        self.about_data, self.classes = splits.note, splits.classes
        self.batches = count_batches(len(splits.train), recipe.train.batch_size)
        steps = self.batches * recipe.train.epochs
        self.opt = build_optimizer(method, recipe, self.model, steps, splits.classes)
        self.steps = Steps(
            self.fabric,
            self.model,
            self.opt,
            Method(method, recipe.sharpness.options),
            recipe.train,
            steps,
            team=self.team,
        )
        self.train, self.validation = (source.to(self.fabric.device) for source in (splits.train, splits.validation))
        self.test = splits.test  # moved to the device when it is read, once
        self.history: list[Epoch] = []
        self._exported = 0
        self.chosen = _copy(self.model)
        self.began_with = self.team.size  # processes that wrote the state that it went on from
        self.began_averaged = True  # whether they climbed one averaged gradient
        self.losses: list[Tensor] = []  # of the current epoch, this process's part of each
        self.seconds = self.epoch_seconds = 0.0
        self.started, self.saved = clock(), time.perf_counter()

    @property
    def diverged(self) -> bool:
        """Whether the loss of the last epoch is not finite."""
        return bool(self.history) and not math.isfinite(self.history[-1].train_loss)

    @property
    def selected(self) -> int:
        """The epoch whose weights are tested: the first with the best score, or the last. 0 before the first ends."""
        if self.recipe.train.select == "last" or self.diverged:
            return len(self.history)
        return self._best

    @property
    def ended(self) -> bool:
        """Whether the training is finished."""
        t, epochs = self.recipe.train, len(self.history)
        return self.diverged or epochs == t.epochs or (t.patience is not None and epochs - self._best >= t.patience)

    @property
    def _best(self) -> int:
        return max(range(1, len(self.history) + 1), key=lambda i: self.history[i - 1].validation_score, default=0)

    def epoch(self, observer: Observer, checkpoints: Checkpoints | None, every: float) -> Asking[Epoch]:
        """Train to the end of the current epoch, score it on validation, and return its numbers.

        Args:
            observer: is called after each step, and can stop the training.
            checkpoints: where the state is saved; None saves nothing.
            every: seconds between two checkpoints.

        Raises:
            Stopped: the observer stopped the training; its state is saved.
        """
        number = len(self.history) + 1
        yield from self._train(number, observer, checkpoints, every)
        predicted = yield from self._validate(observer, checkpoints)
        result = Epoch(
            epoch=number,
            train_loss=float(self.team.summed(torch.stack(self.losses)).mean()),
            validation_score=METRICS[self.recipe.data.metric].score(predicted, self.validation.labels),
            learning_rate=self.opt.param_groups[0]["lr"],
            seconds=self.epoch_seconds,
            loss_at=self.steps.loss_at,
            passes=self.steps.passes / self.batches,
            steps=self.batches,
            rho=float(self.opt.param_groups[0]["rho"]),
            chance_loss=math.log(self.classes),
            same_class=commonest(predicted),
            **self._seen().read(self.batches, METRICS[self.recipe.data.metric].score),
        )
        self.history.append(result)
        self.losses, self.epoch_seconds, self.steps.passes, self.steps.seen = [], 0.0, 0.0, Seen()
        if self.selected == number:
            self.chosen = _copy(self.model)
        return result

    def _train(self, number: int, observer: Observer, checkpoints: Checkpoints | None, every: float) -> Asking[None]:
        """Take the steps that are left of the epoch."""
        batches = self.mine(self.train).shuffled(
            self.recipe.train.batch_size, self.seed, number, start=len(self.losses)
        )
        began = self.clock()
        for done, batch in enumerate(batches):
            if done == 0:
                self.steps.begin()
            self.losses.append((yield from self.steps.step(batch)))
            observer.step(number, len(self.losses), self.batches)
            stop, due = self._agreed(observer, time.perf_counter() - self.saved >= every)
            if checkpoints is not None and (stop or due):
                self.epoch_seconds += self.clock() - began
                self.save(checkpoints)
                began = self.clock()
            if stop:
                raise Stopped
        self.epoch_seconds += self.clock() - began

    def mine(self, source: Source) -> Source:
        """Return a source of which only this process's parts of the batches are read: a stream decodes no others."""
        if self.team.size == 1 or not isinstance(source, Streamed):
            return source
        return source.only(lambda examples: self.team.part(examples).rows)

    def _agreed(self, observer: Observer, due: bool = False) -> tuple[bool, bool]:
        """Return whether to stop and whether to save, the same in all processes.

        Asked once a step: a signal may arrive between two questions. Any process may stop all; the first one's clock
        tells when to save.
        """
        stop = observer.stopping()
        if self.team.size == 1:
            return stop, due
        stopped, saves = self.team.largest(stop, due and self.team.first)
        observer.stop = observer.stop or bool(stopped)
        return bool(stopped), bool(saves)

    def _seen(self) -> Seen:
        """Return what all processes have seen of the epoch's steps."""
        seen = self.steps.seen
        return seen if self.team.size == 1 else Seen.joined(self.team.gathered(seen.state()))

    def _validate(self, observer: Observer, checkpoints: Checkpoints | None) -> Asking[Tensor]:
        """Return the predicted classes (N,) of the validation examples."""

        def stop_if_asked() -> None:
            if self._agreed(observer)[0]:
                if checkpoints is not None:
                    self.save(checkpoints)
                raise Stopped

        self.opt.eval()
        self.team.same_buffers(self.model)
        mine = self.mine(self.validation)
        return (yield from predictions(self.steps.net, mine, self.fabric, stop_if_asked, self.team))

    def save(self, checkpoints: Checkpoints) -> None:
        """Save the state after the last step, and the weights of the selected epoch if they are new.

        All processes do it together, and have it when the function returns.
        """
        now = self.clock()
        self.seconds, self.started = self.seconds + now - self.started, now
        self.team.same_buffers(self.model)
        if self.recipe.engine.sharded:
            self._sharded(checkpoints).save(self.model, self.opt, self._other_chosen, self._progress())
            if self.team.first:
                checkpoints.remove_whole()
        else:
            state = self.state()
            if self.team.first:
                checkpoints.save(state)
        if self.selected not in (0, self._exported):
            self._export(checkpoints.best, self.chosen, self.selected)
            self._exported = self.selected
        self.team.wait()
        self.saved = time.perf_counter()

    def keep(self, checkpoints: Checkpoints) -> None:
        """Keep the present weights, after the last whole epoch, for other programs."""
        self._export(checkpoints.of_epoch(len(self.history)), self.model.state_dict(), len(self.history))

    def _export(self, path: Path, weights: Mapping[str, Any], epoch: int) -> None:
        there = whole_on_cpu(weights, keep=self.team.first)
        if self.team.first:
            write(path, {"model": there, "epoch": epoch, "recipe": self.recipe.model_dump(mode="json")})

    def state(self) -> dict[str, Any]:
        """Return everything that the rest of the run depends on, as tensors and plain values."""
        return {
            **self._progress(),
            "model": self.model.state_dict(),
            "optimizer": self.opt.state_dict(),
            "chosen": self._other_chosen,
        }

    @property
    def _other_chosen(self) -> dict[str, Any] | None:
        """The chosen weights, where they are other ones than the current."""
        fresh = self.selected == len(self.history) and not self.losses
        return None if fresh else self.chosen

    def _progress(self) -> dict[str, Any]:
        """Return the state without weights and the optimizer's; the same in all processes."""
        random, *others = self.team.gathered(random_state(self.fabric.device))
        return {
            "recipe": self.recipe.model_dump(mode="json"),
            "method": self.method,
            "seed": self.seed,
            "schedule": self.steps.schedule.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
            "random": random,
            **({"random_of_others": others} if others else {}),
            "history": [vars(epoch) for epoch in self.history],
            "losses": self.team.summed(torch.stack(self.losses)).cpu() if self.losses else None,
            "epoch_seconds": self.epoch_seconds,
            "passes": self.steps.passes,
            "seen": self._seen().state(),
            "seconds": self.seconds,
        }

    def resume(self, checkpoints: Checkpoints) -> bool:
        """Continue from the last checkpoint, which any number of processes may have written; say if there is one.

        Raises:
            CheckpointError: it belongs to another run, or a newer version wrote it.
        """
        kinds = [self._resume_whole, self._resume_sharded]
        return any(kind(checkpoints) for kind in (kinds[::-1] if self.recipe.engine.sharded else kinds))

    def _sharded(self, checkpoints: Checkpoints) -> "ShardedCheckpoints":
        """Return the checkpoints in shards. Runs without pay nothing for the import."""
        from .sharded_checkpoint import ShardedCheckpoints

        return ShardedCheckpoints(checkpoints.last.parent, self.team, checkpoints.note)

    def _resume_whole(self, checkpoints: Checkpoints) -> bool:
        team = self.team
        mine = team.all_or_none(lambda: checkpoints.load() if team.first else None, CheckpointError, OSError)
        if not team.gathered(mine is not None)[0]:
            return False
        state = mine or read(checkpoints.last if checkpoints.last.is_file() else checkpoints.previous)
        self._restore_from(checkpoints.last, state, lambda: self._load_whole(state))
        return True

    def _resume_sharded(self, checkpoints: Checkpoints) -> bool:
        there = any(checkpoints.last.parent.glob("*.dcp"))
        if not self.team.gathered(there)[0]:
            return False
        sharded = self._sharded(checkpoints)
        if (found := sharded.load()) is None:
            return False
        path, rest = found

        def load() -> None:
            chosen = sharded.restore(path, rest, self.model, self.opt, _copy(self.model))
            self.chosen = _copy(self.model) if chosen is None else chosen

        self._restore_from(path, rest, load)
        return True

    def _restore_from(self, path: Path, state: Mapping[str, Any], load: Callable[[], None]) -> None:
        try:
            self._take(state, load)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}: choose another folder with --out") from None

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state` returned.

        Raises:
            CheckpointError: the state belongs to another recipe, method, seed or network.
        """
        self._take(state, lambda: self._load_whole(state))

    def _take(self, state: Mapping[str, Any], load: Callable[[], None]) -> None:
        """Continue from a state, after checking it; ``load`` takes weights and the optimizer's from it."""
        mine = {"method": self.method, "seed": self.seed, **settings(self.recipe.model_dump(mode="json"))}
        if "method" not in state:
            raise CheckpointError("it holds weights alone, and no run to continue from")
        if not isinstance(state.get("recipe"), dict):
            raise CheckpointError("the checkpoint is damaged (it has no recipe)")
        there = {"method": state["method"], "seed": state.get("seed"), **settings(state["recipe"])}
        differing = [
            f"{key}={old!r} there, {new!r} now" for key, old, new in differences(there, mine) if key not in SPREAD
        ]
        if differing:
            raise CheckpointError(f"the checkpoint belongs to another run ({some(differing)})")
        try:
            self._check(state)
            load()
            self._restore(state)
        except (RuntimeError, LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
            reason = one_line(str(error))
            raise CheckpointError(f"the checkpoint does not fit the network or this version ({reason})") from error

    def _check(self, state: Mapping[str, Any]) -> None:
        """Check the kinds of values, before any of them is used.

        Raises:
            TypeError: a value is of another kind than the one that :meth:`state` returns.
            ValueError: the history is longer than the training, or in disorder.
        """
        history, epochs = [read_epoch(epoch) for epoch in state["history"]], self.recipe.train.epochs
        check_order(history)
        losses = state["losses"]
        if losses is not None and not (isinstance(losses, Tensor) and losses.dim() == 1):
            raise TypeError("losses are no vector")
        if len(history) > epochs or (losses is not None and (len(history) == epochs or len(losses) > self.batches)):
            raise ValueError(f"a history of {len(history)} epochs and more, where the recipe trains {epochs}")
        if "optimizer" in state:  # and not in shards
            check_kinds("model", state["model"], self.model.state_dict())
            if state["chosen"] is not None:
                check_kinds("chosen", state["chosen"], self.model.state_dict())
            check_kinds("groups", state["optimizer"]["param_groups"], self.opt.state_dict()["param_groups"])
        check_kinds("schedule", state["schedule"], self.steps.schedule.state_dict())
        numbers = {"epoch_seconds": 0.0, "seconds": 0.0, "passes": 0.0}
        check_kinds("state", {"passes": 0.0, **state}, numbers)

    def _load_whole(self, state: Mapping[str, Any]) -> None:
        if self.recipe.engine.sharded:
            from .sharded_checkpoint import load_whole

            chosen = load_whole(self.model, self.opt, state)
        else:
            self.model.load_state_dict(state["model"])
            self.opt.load_state_dict(state["optimizer"])
            chosen = state["chosen"]
        self.chosen = _copy(self.model) if chosen is None else chosen

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.steps.schedule.load_state_dict(state["schedule"])
        self.fabric.strategy.precision.load_state_dict(state["precision"])
        self.history = [read_epoch(epoch) for epoch in state["history"]]
        losses = [] if state["losses"] is None else list(state["losses"].to(self.fabric.device))
        self.losses = losses if self.team.first else [torch.zeros_like(loss) for loss in losses]
        self.epoch_seconds, self.seconds = state["epoch_seconds"], state["seconds"]
        self.steps.passes = state.get("passes", math.nan)  # a run that an older version began does not know
        self.steps.seen = Seen.restored(state.get("seen"), self.fabric.device).begun_by_first(self.team.rank)
        randoms = [state["random"], *state.get("random_of_others", ())]
        self.began_with = len(randoms)
        sharded = settings(state["recipe"])["engine"]["strategy"] == "fsdp"
        self.began_averaged = sharded or self.began_with == 1 or self.opt.estimator.averages_ascent
        if self.team.rank < len(randoms):
            set_random_state(randoms[self.team.rank], self.fabric.device)
        else:  # more processes than before
            own_noise(self.seed, self.team.rank, len(self.history), len(losses))


def _copy(model: nn.Module) -> dict[str, Any]:
    """Return a copy of a model's state. ``copy.deepcopy`` would copy a whole storage that several models share."""
    state: dict[str, Any] = model.state_dict()
    return {key: value.clone() if isinstance(value, Tensor) else copy.deepcopy(value) for key, value in state.items()}
