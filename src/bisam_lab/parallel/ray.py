"""The engine ``ray``: each job is a task of a Ray cluster.

Ray places the tasks by the cores and GPUs that they ask for, and starts a task again whose process or node has died. It
continues from the run's checkpoint, for the study's folder lies on a file system that all nodes share.
"""

import asyncio
import contextlib
import logging
import math
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NamedTuple, TypeVar

from ..errors import RecipeError, one_line
from ..recipe import Recipe
from .engine import Engine
from .events import Event, JobEnded, Note
from .pool import GRACE, TRIES, Pool
from .worker import Reported, begin, stop

__all__ = ["RayPool", "check_room", "connected", "room"]

T = TypeVar("T")
R = TypeVar("R")


class RayPool(Pool[T]):
    """Tasks of a Ray cluster.

    Args:
        engine: where the cluster is, and what each job gets.
        recipe: of the jobs.

    Raises:
        RecipeError: Ray is not installed, there is no cluster, or no node has so many cores or GPUs.
    """

    def __init__(self, engine: Engine, recipe: Recipe) -> None:
        self._ray = connected(engine)
        self._engine, self._recipe = engine, recipe
        self._mailbox = self._here(_Mailbox)
        self._threads = engine.cpus_for(recipe)
        work: dict[str, Any] = {"num_cpus": self._threads, "num_gpus": gpus_of(engine, recipe)}
        self._work = self._ray.remote(_work).options(max_retries=TRIES - 1, **work)
        self._waiting: list[tuple[Sequence[str], tuple[Any, ...]]] = []
        self._running: dict[Any, Sequence[str]] = {}

    def notes(self) -> list[Note]:
        """See :meth:`Pool.notes`."""
        lacking = check_room(self._engine, self._recipe)
        return [Note("ray", lacking)] if lacking else []

    def _here(self, actor: type) -> Any:
        """Start an actor on the node of this process, for another node may die."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        place = NodeAffinitySchedulingStrategy(self._ray.get_runtime_context().get_node_id(), soft=False)
        return self._ray.remote(actor).options(num_cpus=0, scheduling_strategy=place, max_concurrency=100_000).remote()

    def submit(self, jobs: Callable[..., Sequence[JobEnded[T]]], *args: Any, names: Sequence[str] = ()) -> None:
        """See :meth:`Pool.submit`."""
        self._waiting.append((names, (jobs, *args)))
        self._fill()

    def _fill(self) -> None:
        """Submit as many jobs as there is room for. So those that are told to stop are those that have begun."""
        most = (self._engine.jobs or room(self._engine, self._recipe)) if self._waiting else 0
        while self._waiting and len(self._running) < most:
            names, (jobs, *args) = self._waiting.pop(0)
            self._running[self._start(names, jobs, *args)] = names

    def _start(self, names: Sequence[str], job: Callable[..., Any], *args: Any) -> Any:
        place = _Place(os.getcwd(), self._threads, tuple(names))
        return self._work.remote(self._mailbox, place, job, *args)

    def ask(self, job: Callable[..., R], each: Iterable[tuple[Any, ...]]) -> list[R]:
        """See :meth:`Pool.ask`."""
        return [self._get(ref) for ref in [self._start((), job, *args) for args in each]]

    def _get(self, ref: Any) -> Any:
        """Return what a task returned.

        Raises:
            Exception: the one that it raised.
            BrokenProcessPool: its process or node died, each time that it was started.
        """
        from ray.exceptions import RayError, RayTaskError

        try:
            return self._ray.get(ref)
        except RayTaskError as error:
            raise error.cause from None
        except RayError as error:
            raise BrokenProcessPool(one_line(str(error))) from None

    def events(self, end: float = math.inf) -> Iterator[Event[T]]:
        """See :meth:`Pool.events`."""
        while (self._running or self._waiting) and time.monotonic() < end:
            done, _ = self._ray.wait(list(self._running), num_returns=1, timeout=0.2) if self._running else ([], [])
            yield from self._ray.get(self._mailbox.take.remote())
            for ref in done:
                names = self._running.pop(ref)
                self._fill()
                yield from self._ended(ref, names)
            self._fill()

    def _ended(self, ref: Any, names: Sequence[str]) -> Iterator[Event[T]]:
        try:
            yield from self._get(ref)
        except BrokenProcessPool:
            if not names:
                raise
            for name in names:
                yield JobEnded(name, error=f"its process or node died, {TRIES} times")

    def close(self) -> None:
        """Tell the tasks to save and stop, and wait. This process leaves the cluster; one that it started ends."""
        running = list(self._running)
        with contextlib.suppress(Exception):  # the cluster may be gone
            self._ray.get(self._mailbox.stop.remote(), timeout=GRACE)
            if running:
                self._ray.wait(running, num_returns=len(running), timeout=GRACE)
        self._ray.shutdown()


class _Mailbox:
    """An actor that holds what the tasks have reported, and whether they have to stop."""

    def __init__(self) -> None:
        self._events: list[Reported] = []
        self._begun: set[tuple[str, ...]] = set()
        self._over = asyncio.Event()

    async def begin(self, names: tuple[str, ...]) -> bool:
        """Note that jobs begin, and tell where they begin again; return whether they have to stop."""
        if names and names in self._begun:
            self._events.append(Note(names[0], "its process or node has died; it is started again"))
        self._begun.add(names)
        return self._over.is_set()

    async def put(self, event: Reported) -> None:
        self._events.append(event)

    async def take(self) -> list[Reported]:
        taken, self._events = self._events, []
        return taken

    async def stop(self) -> None:
        self._over.set()

    async def over(self) -> None:
        """Return when the jobs have to stop."""
        await self._over.wait()


class _Letters:
    """Sends events to the mailbox, and does not wait until they are there."""

    def __init__(self, mailbox: Any) -> None:
        self._mailbox = mailbox

    def put(self, event: Reported) -> None:
        self._mailbox.put.remote(event)


class _Place(NamedTuple):
    """Where a job computes.

    Attributes:
        folder: from which relative paths lead.
        threads: that it has.
        names: of what it runs, where they are known.
    """

    folder: str
    threads: int
    names: tuple[str, ...]


def _work(mailbox: Any, place: _Place, job: Callable[..., R], *args: Any) -> R:
    """Run a job in a process of the cluster."""
    import ray

    with contextlib.suppress(FileNotFoundError):  # paths may be absolute
        os.chdir(place.folder)
    begin(_Letters(mailbox), place.threads)
    if ray.get(mailbox.begin.remote(place.names)):
        stop()

    def watch() -> None:
        with contextlib.suppress(Exception):  # the process that has submitted the job is gone
            ray.get(mailbox.over.remote())
        stop()

    threading.Thread(target=watch, daemon=True).start()
    return job(*args)


def room(engine: Engine, recipe: Recipe) -> int:
    """Return how many jobs the cluster has room for now, at least one."""
    there, gpus = connected(engine).cluster_resources(), gpus_of(engine, recipe)
    slots = int(there.get("CPU", 0)) // engine.cpus_for(recipe)
    return max(1, slots if gpus == 0 else min(slots, int(there.get("GPU", 0) / gpus)))


def check_room(engine: Engine, recipe: Recipe) -> str:
    """Refuse a job that is larger than this machine, where Ray is started on it.

    Returns:
        That no node of a cluster has room for a job now. A cluster may grow. Empty: one has.

    Raises:
        RecipeError: Ray is not installed, there is no cluster, or this machine is too small.
    """
    ray = connected(engine)
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus, gpus = engine.cpus_for(recipe), gpus_of(engine, recipe)
    if any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
        return ""
    wanted = f"{cpus} core{'s' * (cpus > 1)}" + (f" and {gpus:g} GPU{'s' * (gpus > 1)}" if gpus else "")
    if _address(engine) is None:
        ray.shutdown()
        raise RecipeError(
            f"--engine ray: a run asks for {wanted}, and this machine has {nodes[0].get('CPU', 0):g} and "
            f"{nodes[0].get('GPU', 0):g}: lower --cpus-per-run or --gpus-per-run, or join a cluster with --ray-address"
        )
    return f"no node of the cluster has {wanted}: the runs wait for one; say less by --cpus-per-run or --gpus-per-run"


def _address(engine: Engine) -> str | None:
    return engine.ray_address or os.environ.get("RAY_ADDRESS")


def gpus_of(engine: Engine, recipe: Recipe) -> float:
    """Return how many GPUs a job asks for: by default one a process where the recipe may use one and there are any."""
    if engine.gpus is not None:
        return engine.gpus
    if recipe.engine.accelerator == "cpu":
        return 0
    there = connected(engine).cluster_resources().get("GPU", 0) > 0
    return float(recipe.engine.devices * (there or recipe.engine.accelerator == "cuda"))


def connected(engine: Engine) -> Any:
    """Return Ray, connected to the cluster; or to one that it starts on this machine.

    Raises:
        RecipeError: Ray is not installed, or there is no cluster at the address.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ModuleNotFoundError:
        raise RecipeError("--engine ray needs Ray: pip install 'bisam[ray]'") from None
    if ray.is_initialized():
        return ray
    address = _address(engine)
    if address is not None and address.startswith("ray://"):
        raise RecipeError(
            f"--ray-address {address} is a client's, outside the cluster: run bisam on a node of it, with "
            "--ray-address auto, or through `ray job submit`"
        )
    if address is not None and (place := re.fullmatch(r"([^:/]+):(\d+)", address)):
        _check_answers(address, place[1], int(place[2]))
    quiet: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    try:
        if address is None:
            ray.init(include_dashboard=False, **quiet)
        else:
            ray.init(address, **quiet)
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        where = f"--ray-address {address}" if address else "--engine ray"
        raise RecipeError(f"{where}: no Ray cluster answers ({one_line(str(error), 80)}): `ray start --head`") from None
    ray._private.worker.print_to_stdstream = _say_nothing
    return ray


def _check_answers(address: str, host: str, port: int) -> None:
    """Ask at the address, for Ray itself would ask for minutes.

    Raises:
        RecipeError: nobody answers there.
    """
    try:
        socket.create_connection((host, port), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise RecipeError(
            f"--ray-address {address}: nobody answers ({error}): start one there with `ray start --head`, or say auto"
        ) from None


def _say_nothing(*said: Any, **how: Any) -> None:
    """Take the place of Ray's writer to stdout: pages about a node that died would stand amid JSON."""
