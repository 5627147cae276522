"""What is done for an audit: in this process, or in a worker, whose result lies in the folder whoever reads it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import RecipeError, one_line
from ..parallel.events import JobEnded, Note, PartDone
from ..parallel.worker import send, stopping
from ..run.environment import environment
from .adversaries import DEFAULT
from .audit import RHOS, audit
from .checkpoint import loaded
from .task import Task

__all__ = ["DATA", "audit_task", "audited"]

#: Names what is said of the data.
DATA = "data"


def audited(
    task: Task,
    data_dir: Path | None,
    note: Callable[[str], None],
    progress: Callable[[int, int], None],
    told_to_stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Load a checkpoint and its data, let the adversaries climb, and return what they did as plain values.

    What is measured lies in the task's journal until all is, and the same task goes on from there.

    Args:
        task: what is asked for.
        data_dir: folder of the data sets.
        note: is called with one sentence on the data, if there is any.
        progress: is called with the number of measurements done and of all.
        told_to_stop: is asked before each pass; once it says so, the audit ends as at Ctrl-C.

    Raises:
        RecipeError: data are missing, weights do not fit, memory ran out, or the network raised an error.
        KeyboardInterrupt: it was stopped before two batches were measured.
    """
    place, asked = task.place, task.asked
    split = asked.held_out or ("validation" if place.own else "test")
    given = loaded(place, asked.batches, asked.batch_size, split, data_dir)
    if given.note:
        note(given.note)

    def leave(*called: object) -> None:
        if told_to_stop():
            raise KeyboardInterrupt

    given.model.register_forward_pre_hook(leave)
    with _in_one_sentence():
        found = audit(
            given.model,
            given.batches,
            adversaries=asked.adversaries or DEFAULT,
            rhos=asked.rhos or RHOS,
            held_out=given.held_out,
            n=asked.batches,
            name=place.name,
            seed=place.seed,
            sharpness=asked.sharpness,
            progress=progress,
            keep=True,
            journal=task.journal,
        )
    measured = found.to_dict() | {"environment": environment(next(given.model.parameters()).device)}
    return task.named(measured)


@contextmanager
def _in_one_sentence() -> Iterator[None]:
    """Turn what is raised inside into an error that the user can mend."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise RecipeError(str(error)) from None
    except MemoryError:
        raise RecipeError("memory ran out: write a smaller --batch-size") from None
    except RuntimeError as error:
        if "memory" in str(error):  # torch has no class of its own for it on the CPU
            raise RecipeError("memory ran out: write a smaller --batch-size") from None
        raise RecipeError(f"the network raised {type(error).__name__}: {one_line(str(error), 90)}") from None


def audit_task(task: Task, data_dir: Path | None) -> list[JobEnded[dict[str, Any]]]:
    """Audit a checkpoint in a worker process. The job has the name of the task's mark."""
    job = task.mark
    try:
        found = task.read()
        if found is None or found["stopped"]:
            if stopping():
                raise KeyboardInterrupt
            found = audited(task, data_dir, lambda text: send(Note(DATA, text)), _Progress(job), stopping)
            task.write(found)
        if found["stopped"]:
            raise KeyboardInterrupt
        return [JobEnded(job, found)]
    except KeyboardInterrupt:
        return [JobEnded(job, error="its process was told to stop")]
    except RecipeError as error:
        return [JobEnded(job, error=one_line(str(error)))]
    except BaseException as error:  # noqa: BLE001 a user's own network may raise anything, even SystemExit
        return [JobEnded(job, error=one_line(f"{type(error).__name__}: {error}"))]


class _Progress:
    """Sends each measurement to the process that has submitted the job, and says where an audit goes on."""

    def __init__(self, job: str) -> None:
        self._job, self._begun = job, False

    def __call__(self, done: int, total: int) -> None:
        if done > 1 and not self._begun:
            send(Note(self._job, f"goes on after {done - 1} of {total} measurements"))
        self._begun = True
        send(PartDone(self._job, done, total))
