"""A run in MLflow: parameters, tags and the numbers of each epoch, sent by MLflow's own client.

What is trained never depends on the server. An epoch that could not be sent is sent with a later one, at the end, or
when the command is repeated.
"""

import json
import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from ..errors import RecipeError, one_line
from ..recipe import Recipe, digest
from .logs import logged
from .observer import Observer, Stopped
from .result import Epoch, Run, RunResult
from .signatures import Signature

__all__ = ["NOTED", "Tracked"]

#: Names the MLflow run in the folder of ours.
NOTED = "mlflow.json"
#: Seconds in which a server that did not answer is not asked again.
PAUSE = 60.0
#: Most parameters of one request, and characters of a value.
PARAMETERS, LONGEST = 100, 500
#: A server that is down must be told within seconds. What the user has set stays.
_PATIENCE = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


class Tracked(Observer):
    """Observes a run for MLflow, and passes everything on to another observer. Use it in a ``with`` block.

    Args:
        given: the address of a tracking server, or the name of an experiment.
        recipe: of the run.
        run: which run of the recipe.
        folder: of the run. The file ``mlflow.json`` in it names the MLflow run, which a resumed run continues.
        inner: is told everything as well, and decides when the run stops.

    Raises:
        RecipeError: the package is missing, or there is neither an address nor ``MLFLOW_TRACKING_URI``.
    """

    def __init__(self, given: str, recipe: Recipe, run: Run, folder: Path, inner: Observer) -> None:
        for name, value in _PATIENCE.items():
            os.environ.setdefault(name, value)
        self._server, experiment = _place(given, recipe.name)
        self.server = _without_password(self._server)
        self.recipe, self.run, self.inner = recipe, run, inner
        self._file = folder / NOTED
        self._waiting: dict[int, Epoch] = {}
        self._sent: set[int] = set()
        self._id: str | None = None
        self._told, self._next = False, 0.0
        self._client = _client(self._server, self.server)
        self._experiment = experiment
        self._reach(self._find_experiment)

    def stopping(self) -> bool:
        """Return whether the run must stop."""
        return self.inner.stopping()

    def step(self, epoch: int, done: int, total: int) -> None:
        """Pass it on."""
        self.inner.step(epoch, done, total)

    def epoch(self, epoch: Epoch) -> None:
        """Send the epoch, and those that could not be sent before."""
        self.inner.epoch(epoch)
        self._waiting[epoch.epoch] = epoch
        if time.monotonic() >= self._next:
            self._reach(self._send)

    def signature(self, shown: Signature, epoch: int) -> None:
        """Pass it on."""
        self.inner.signature(shown, epoch)

    def about_data(self, text: str) -> None:
        """Pass it on."""
        self.inner.about_data(text)

    def note(self, text: str) -> None:
        """Pass it on."""
        self.inner.note(text)

    def ended(self, result: RunResult) -> None:
        """Send what is missing and the test's score, and mark the MLflow run as finished."""

        def finish() -> None:
            self._send()
            if not self._client.get_metric_history(self._id, "test_score"):
                self._log({"test_score": result.test_score}, result.selected_epoch)
            self._client.set_tag(self._id, "status", result.status)
            self._client.set_terminated(self._id, "FINISHED")

        self._waiting = {epoch.epoch: epoch for epoch in result.history}
        if not self._reach(finish):
            self.note(f"MLflow lacks numbers of this run: repeat the command when {self.server} answers")

    def __enter__(self) -> "Tracked":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None and self._id is not None:
            stopped = isinstance(error, Stopped | KeyboardInterrupt)
            self._reach(lambda: self._client.set_terminated(self._id, "KILLED" if stopped else "FAILED"))

    def _reach(self, action: Callable[[], object]) -> bool:
        """Ask the server, and tell once that it does not answer; return whether it did."""
        try:
            action()
        except Exception as error:  # noqa: BLE001 the client raises its own errors, and those of what it is built on
            self._next = time.monotonic() + PAUSE
            if not self._told:
                said = one_line(str(error).replace(self._server, self.server), 80)
                self.note(f"MLflow at {self.server} does not answer ({said}): the training goes on, and is sent later")
            self._told = True
            return False
        return True

    def _find_experiment(self) -> str:
        found = self._client.get_experiment_by_name(self._experiment)
        if found is not None:
            return str(found.experiment_id)
        try:
            return str(self._client.create_experiment(self._experiment))
        except Exception:  # another run may have created it just now
            found = self._client.get_experiment_by_name(self._experiment)
            if found is None:
                raise
            return str(found.experiment_id)

    def _send(self) -> None:
        """Send the epochs that wait, each once."""
        if self._id is None:
            self._id = self._continued() or self._created()
            self._sent = {one.step for one in self._client.get_metric_history(self._id, "validation_score")}
        for number in sorted(self._waiting.keys() - self._sent):
            self._log(logged(self._waiting[number]), number)
            self._sent.add(number)
        self._waiting.clear()

    def _log(self, numbers: Mapping[str, float], step: int) -> None:
        metric, now = import_module("mlflow.entities").Metric, int(1000 * time.time())
        finite = [metric(name, value, now, step) for name, value in numbers.items() if math.isfinite(value)]
        self._client.log_batch(self._id, metrics=finite)

    def _continued(self) -> str | None:
        """Return the MLflow run that an earlier call began on this server, and mark it as running."""
        try:
            noted = json.loads(self._file.read_text(encoding="utf-8"))
            if noted["server"] != self.server:
                return None
            known = str(noted["run"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
        try:
            info = self._client.get_run(known).info
        except Exception as error:  # the client's own class, which is not at hand without it
            if getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        if info.lifecycle_stage == "deleted":
            return None
        self._client.update_run(known, status="RUNNING")
        return known

    def _created(self) -> str:
        """Create the MLflow run, with parameters and tags."""
        tags = {"method": self.run.method, "seed": str(self.run.seed), "recipe": digest(self.recipe)}
        tags |= {"variant": self.run.variant} if self.run.variant else {}
        made = self._client.create_run(self._find_experiment(), run_name=str(self.run), tags=tags)
        number, entities = str(made.info.run_id), import_module("mlflow.entities")
        parameters = [entities.Param(*pair) for pair in _flat(self.recipe.model_dump(mode="json"))]
        for first in range(0, len(parameters), PARAMETERS):
            self._client.log_batch(number, params=parameters[first : first + PARAMETERS])
        self._file.write_text(json.dumps({"server": self.server, "run": number}) + "\n", encoding="utf-8")
        return number


def _place(given: str, name: str) -> tuple[str, str]:
    """Return the server's address and the experiment's name."""
    if "://" in given or given == "databricks":
        return given, os.environ.get("MLFLOW_EXPERIMENT_NAME") or name
    server = os.environ.get("MLFLOW_TRACKING_URI")
    if not server:
        raise RecipeError(
            f"--mlflow {given} names an experiment, and no server: set MLFLOW_TRACKING_URI=http://HOST:5000, or give "
            "--mlflow http://HOST:5000"
        )
    return server, given


def _client(address: str, shown: str) -> Any:
    """Return MLflow's client. Its package has no types that mypy could read in reasonable time."""
    try:
        return import_module("mlflow.tracking").MlflowClient(tracking_uri=address)
    except ModuleNotFoundError:
        raise RecipeError("--mlflow needs the package mlflow-skinny: pip install 'bisam[mlflow]'") from None
    except Exception as error:  # noqa: BLE001 of an address that it cannot use
        said = one_line(str(error).replace(address, shown), 80)
        raise RecipeError(f"--mlflow {shown} cannot be used ({said}): give http://HOST:5000") from None


def _without_password(address: str) -> str:
    parts = urlsplit(address)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _flat(fields: Mapping[str, Any], before: str = "") -> Iterable[tuple[str, str]]:
    """Yield the fields of a recipe by their dotted names, lists as JSON."""
    for key, value in fields.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", (value if isinstance(value, str) else json.dumps(value))[:LONGEST]
