"""How jobs are submitted through submitit, and which of them live: on a Slurm cluster, or on this machine."""

import getpass
import os
import re
import shutil
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import RecipeError, nearest, one_line
from ..recipe import Recipe
from ..run.environment import cores
from .engine import Engine

__all__ = ["AT_ONCE", "Cluster", "at_once", "cluster_of", "is_ending", "minutes"]

#: Jobs that Slurm runs at once, unless --jobs says another number, and jobs of one array: clusters allow about 1000.
AT_ONCE, ARRAY = 256, 1000
#: Minutes of a job, and how often one is queued again whose time was over, unless --slurm says so.
TIME, REQUEUE = "60", "3"


class Cluster(ABC):
    """Where submitit's jobs run.

    Attributes:
        requeue: whether a job is queued again that the cluster stops.
        notes: for the user.
    """

    job: type[Any]

    def __init__(self, executor: Any, folder: Path, requeue: bool) -> None:
        self._executor, self._folder, self.requeue = executor, folder, requeue
        self.notes: list[str] = []

    @abstractmethod
    def room(self, running: int) -> int:
        """Return how many more jobs to submit."""

    @abstractmethod
    def submit(self, calls: Sequence[Callable[[], Any]]) -> list[Any]:
        """Submit jobs, and return them as submitit knows them."""

    @abstractmethod
    def alive(self, jobs: Sequence[Any]) -> set[str] | None:
        """Return the numbers of the jobs that are queued or running; None: nobody has looked since the last time."""

    @abstractmethod
    def cancel(self, jobs: Sequence[Any], waiting_alone: bool) -> None:
        """Take jobs out of the queue; those that run, too, unless ``waiting_alone``."""

    def is_cancelled(self, job: Any) -> bool:
        """Whether a user has taken a job that lives no more out of the queue."""
        return False

    def found(self, number: object) -> Any | None:
        """Return a job that an earlier process has submitted, if it is queued or running."""
        if not isinstance(number, str):
            return None
        job = self.job(self._folder, number)
        there = self.alive([job])
        return job if there and number in there else None


class _Slurm(Cluster):
    """A Slurm cluster, asked through ``squeue``, which needs no accounting."""

    #: Seconds between two questions.
    ASK = 15.0

    def __init__(self, executor: Any, folder: Path, requeue: bool) -> None:
        from submitit import SlurmJob

        super().__init__(executor, folder, requeue)
        self.job = SlurmJob
        self._asked, self._there = float("-inf"), set[str]()

    def room(self, running: int) -> int:
        """All at once: Slurm knows best, and they need this process no more."""
        return ARRAY

    def submit(self, calls: Sequence[Callable[[], Any]]) -> list[Any]:
        """Submit an array of jobs."""
        try:
            jobs = list(self._executor.submit_array(calls) if len(calls) > 1 else [self._executor.submit(calls[0])])
        except (OSError, RuntimeError, ValueError) as error:
            raise RecipeError(
                f"--engine slurm: sbatch refuses the jobs ({one_line(str(error))}): see --slurm"
            ) from None
        self._asked = float("-inf")
        return jobs

    def alive(self, jobs: Sequence[Any]) -> set[str] | None:
        """See :meth:`Cluster.alive`."""
        if time.monotonic() - self._asked < self.ASK:
            return None
        told = subprocess.run(
            ["squeue", "--noheader", "--array", "--format=%i", f"--user={getpass.getuser()}"],
            capture_output=True,
            text=True,
            check=False,
        )
        self._asked = time.monotonic()
        if told.returncode != 0:  # the controller does not answer now
            return None
        self._there = set(told.stdout.split())
        return self._there

    def is_cancelled(self, job: Any) -> bool:
        """See :meth:`Cluster.is_cancelled`."""
        return _state(job.job_id) == "CANCELLED"

    def found(self, number: object) -> Any | None:
        """See :meth:`Cluster.found`. One question serves all."""
        self.alive([])
        return self.job(self._folder, number) if isinstance(number, str) and number in self._there else None

    def cancel(self, jobs: Sequence[Any], waiting_alone: bool) -> None:
        """See :meth:`Cluster.cancel`."""
        numbers = [job.job_id for job in jobs]
        if numbers:
            which = ["--state=PENDING"] if waiting_alone else []
            subprocess.run(["scancel", "--quiet", *which, *numbers], check=False, capture_output=True)
            self._asked = float("-inf")


class _Machine(Cluster):
    """This machine. submitit starts a process that looks after each job."""

    def __init__(self, executor: Any, folder: Path, requeue: bool, at_once: int) -> None:
        from submitit import LocalJob

        super().__init__(executor, folder, requeue)
        self.job, self._at_once = LocalJob, at_once

    def room(self, running: int) -> int:
        """As many as the cores take: no queue holds the others back."""
        return max(0, self._at_once - running)

    def submit(self, calls: Sequence[Callable[[], Any]]) -> list[Any]:
        """Start the jobs."""
        return [self._executor.submit(call) for call in calls]

    def alive(self, jobs: Sequence[Any]) -> set[str] | None:
        """See :meth:`Cluster.alive`."""
        return {job.job_id for job in jobs if _runs(job)}

    def cancel(self, jobs: Sequence[Any], waiting_alone: bool) -> None:
        """See :meth:`Cluster.cancel`."""
        for job in () if waiting_alone else jobs:
            job.cancel(check=False)


def _runs(job: Any) -> bool:
    """Whether the process of a job lives. Another process may have its number by now."""
    if job._process is not None:
        return job._process.poll() is None
    try:
        os.kill(int(job.job_id), 0)
        return b"submitit" in Path(f"/proc/{job.job_id}/cmdline").read_bytes()
    except FileNotFoundError:
        return not Path("/proc/self").exists()
    except OSError:
        return False


def cluster_of(engine: Engine, recipe: Recipe, folder: Path) -> Cluster:
    """Return the cluster that an engine submits to.

    Raises:
        RecipeError: submitit is not installed, this machine belongs to no Slurm cluster, or a setting is none.
    """
    try:
        import submitit
    except ModuleNotFoundError:
        raise RecipeError("--engine slurm needs submitit: pip install 'bisam[slurm]'") from None
    given = dict(engine.slurm)
    kind = given.pop("cluster", "slurm")
    if kind not in ("slurm", "local"):
        raise RecipeError(f"--slurm cluster={kind}: say slurm, or local for this machine")
    if kind == "slurm" and shutil.which("sbatch") is None:
        raise RecipeError(
            "--engine slurm: there is no sbatch here: run it on a login node of the cluster, or try it on this machine "
            "with --slurm cluster=local"
        )
    requeue = _whole("requeue", given.pop("requeue", REQUEUE))
    executor = submitit.AutoExecutor(folder, cluster=kind, **{f"{kind}_max_num_timeout": requeue})
    gpus = _gpus(engine, recipe)
    common = {
        "name": f"bisam-{recipe.name}",
        "timeout_min": minutes(given.pop("time", TIME)),
        "cpus_per_task": engine.cpus_for(recipe),
        **({"gpus_per_node": gpus} if gpus else {}),
    }
    own = {f"slurm_{_known(key)}": _value(value) for key, value in given.items()}
    executor.update_parameters(**common, slurm_array_parallelism=at_once(engine, recipe), **own)
    if kind == "local":
        return _Machine(executor, folder, requeue > 0, at_once(engine, recipe))
    found = _Slurm(executor, folder, requeue > 0)
    if engine.gpus is None and recipe.engine.accelerator == "auto":
        found.notes.append("the jobs ask for no GPU: --gpus-per-run 1 does")
    return found


def at_once(engine: Engine, recipe: Recipe) -> int:
    """Return how many jobs run at once: on a cluster as many as Slurm may, and on this machine as the cores take."""
    if engine.jobs is not None:
        return engine.jobs
    return max(1, cores() // engine.cpus_for(recipe)) if engine.slurm.get("cluster") == "local" else AT_ONCE


def is_ending() -> bool:
    """Whether this process is a job that Slurm ends: a user has cancelled it, or Slurm will queue it again itself.

    A job that Slurm preempts with a time of grace runs, and gets the same signal.
    """
    return _state(os.environ.get("SLURM_JOB_ID")) in ("COMPLETING", "CANCELLED")


def _state(number: str | None) -> str | None:
    """Return the state of a job of Slurm; None where there is no Slurm, or it knows the job no more."""
    if number is None or shutil.which("scontrol") is None:
        return None
    told = subprocess.run(["scontrol", "show", "job", number], capture_output=True, text=True, check=False)
    found = re.search(r"\bJobState=(\w+)", told.stdout)
    return found[1] if found else None


def _gpus(engine: Engine, recipe: Recipe) -> int:
    """Return the GPUs of a job.

    Raises:
        RecipeError: Slurm gives no part of a GPU.
    """
    if engine.gpus is None:
        return recipe.engine.devices * (recipe.engine.accelerator == "cuda")
    if engine.gpus != int(engine.gpus):
        raise RecipeError(
            f"--gpus-per-run {engine.gpus:g}: Slurm gives whole ones: say 1, or --gpus-per-run 0 --slurm gres=shard:1"
        )
    return int(engine.gpus)


def _known(key: str) -> str:
    """Return submitit's name of a setting.

    Raises:
        RecipeError: there is no such setting, or it is said in another way.
    """
    from submitit.slurm.slurm import _get_default_parameters

    elsewhere = {"array_parallelism": "jobs", "cpus_per_task": "cpus-per-run", "gpus_per_node": "gpus-per-run"}
    known = {"memory": "mem"} | {name: name for name in _get_default_parameters() if name != "mem"}
    if key in elsewhere:
        raise RecipeError(f"--slurm {key}: say --{elsewhere[key]} N")
    if key not in known:
        near = nearest(key, [*known, "time", "requeue", "cluster"])
        some = near or ": say partition, time, memory, requeue, account, qos, constraint or another of sbatch"
        raise RecipeError(f"--slurm {key[:30]}: no setting of a job{some}")
    return known[key]


def _value(text: str) -> str | int:
    return int(text) if text.isdigit() and not text.startswith("0") else text


def _whole(name: str, text: str) -> int:
    if not text.isdigit() or len(text) > 6:
        raise RecipeError(f"--slurm {name}={text[:20]}: say a whole number, such as {name}=3")
    return int(text)


def minutes(text: str) -> int:
    """Return the minutes of a time as Slurm writes it: 90, 1:30:00 or 2-12:00:00, rounded up.

    Raises:
        RecipeError: it is none.
    """
    found = re.fullmatch(r"(?:(\d{1,3})-)?(?:(\d{1,4}):)?(\d{1,5}):(\d{1,2})|(\d{1,6})", text)
    if found is None or (found[5] is not None and int(found[5]) == 0):
        raise RecipeError(f"--slurm time={text[:20]}: say minutes, or 1:30:00, or 2-12:00:00")
    if found[5] is not None:
        return int(found[5])
    days, hours, some, seconds = (int(part or 0) for part in found.groups()[:4])
    return max(1, -(-(((days * 24 + hours) * 60 + some) * 60 + seconds) // 60))
