"""Databases that hold the trials of several machines: how they are opened, and how two processes take turns.

Optuna's own heartbeat tells which trials have died. A process writes a sign of life into the database for each trial
that it runs; a trial without one for some time is marked as failed, and its setting is queued again. Optuna has it for
relational databases. For Redis, whose journal has none, the same interface is implemented here.
"""

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any, TypeAlias

import optuna
from filelock import FileLock
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages._heartbeat import BaseHeartbeat
from optuna.storages.journal import BaseJournalBackend, JournalRedisBackend
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import URL, Engine, column, create_engine, make_url, select, table
from sqlalchemy.exc import ArgumentError, DatabaseError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from ..errors import RecipeError, one_line
from .retry import queue_again

__all__ = ["BeatingJournal", "answering", "open_database", "turn"]

#: How often the tables are tried, and seconds between two attempts.
TRIES, PAUSE = 8, 0.5
#: Seconds that a connection may take, and seconds after which a server ends the turn of a machine that was lost.
REACH, TURN = 10, 60
#: The driver of a database whose URL names none. The extra ``databases`` brings them.
DRIVERS = {"postgresql": "psycopg", "mysql": "pymysql", "mariadb": "pymysql"}
#: The table whose row of the study is locked while a trial is claimed. Optuna writes the row once and never locks it.
_ATTRIBUTES = table("study_user_attributes", column("study_id"), column("key"), column("value_json"))

_Callback: TypeAlias = Callable[[optuna.Study, FrozenTrial], None]


class BeatingJournal(JournalStorage, BaseHeartbeat):
    """Optuna's journal with Optuna's heartbeat, for trials of several machines in a Redis.

    Args:
        backend: holds the journal.
        beat: seconds between two signs of life of a trial.
        silent: seconds without one after which it counts as dead.
    """

    def __init__(self, backend: BaseJournalBackend, beat: int, silent: int) -> None:
        super().__init__(backend)
        self.beat, self.silent = beat, silent

    def record_heartbeat(self, trial_id: int) -> None:
        """Write the time."""
        self.set_trial_system_attr(trial_id, "alive", time.time())

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        running = self.get_all_trials(study_id, deepcopy=False, states=(TrialState.RUNNING,))
        last = {trial._trial_id: trial.system_attrs.get("alive") for trial in running}
        oldest = time.time() - self.silent
        return [number for number, alive in last.items() if isinstance(alive, int | float) and alive < oldest]

    def get_heartbeat_interval(self) -> int:
        """Return the seconds between two signs of life."""
        return self.beat

    def get_heartbeat_stale_trial_callback(self) -> _Callback:
        """Return what is called with a trial that was marked as dead."""
        return queue_again


def open_database(url: str, beat: int, silent: int) -> BaseStorage:
    """Open the storage at a URL.

    Args:
        url: of a database that SQLAlchemy knows, or of a Redis.
        beat: seconds between two signs of life of a trial.
        silent: seconds without one after which it counts as dead.

    Raises:
        RecipeError: there is no such storage, it does not answer, or a package for it is missing.
    """
    scheme = url.partition(":")[0]
    if scheme in ("redis", "rediss", "redis+socket", "unix"):
        return _redis(url, beat, silent)
    parsed = _parsed(url)
    try:
        engine = _engine(parsed)
        with engine.connect():
            pass
        return _tables(parsed, beat, silent)
    except ModuleNotFoundError as error:
        own = error.name in DRIVERS.values()
        remedy = "'bisam[databases]'" if own else error.name
        raise RecipeError(f"--storage {scheme}:... needs the package {error.name}: pip install {remedy}") from None
    except (ImportError, SQLAlchemyError, StorageInternalError, ValueError, OSError, RuntimeError, TypeError) as error:
        said = _said(error, url)
        raise RecipeError(f"--storage {scheme}:... cannot be opened ({said}); sqlite:///FILE needs no server") from None


@contextlib.contextmanager
def answering(url: str | None) -> Iterator[None]:
    """Turn the errors of a database that no longer answers into one sentence.

    Raises:
        RecipeError: an operation in the ``with`` block failed in the database.
    """
    try:
        yield
    except (StorageInternalError, SQLAlchemyError) as error:
        if url is None:
            raise
        scheme, said = url.partition(":")[0], _said(error.__cause__ or error, url)
        raise RecipeError(f"--storage {scheme}:... does not answer ({said}); the same command goes on later") from None


@contextlib.contextmanager
def turn(url: str, study: optuna.Study) -> Iterator[None]:
    """Hold the turn of a study: one process at a time, on whichever machine, counts its trials and claims one.

    A server keeps a row locked for the process, and lets it go when the process or its machine is lost. SQLite has no
    such lock; a file beside the database is locked instead. So is, for a Redis, only the caller's own folder.
    """
    if url.partition(":")[0].startswith(("redis", "unix")):
        yield
        return
    parsed = _parsed(url)
    if parsed.get_backend_name() == "sqlite":
        with FileLock(f"{parsed.database}.lock"):
            yield
        return
    row = select(_ATTRIBUTES.c.value_json).where(
        _ATTRIBUTES.c.study_id == study._study_id, _ATTRIBUTES.c.key == "bisam"
    )
    with _engine(parsed).begin() as connection:
        if parsed.get_backend_name() == "postgresql":
            connection.exec_driver_sql(f"SET LOCAL idle_in_transaction_session_timeout = '{TURN}s'")
        connection.execute(row.with_for_update())
        yield


def _redis(url: str, beat: int, silent: int) -> BaseStorage:
    try:
        backend = JournalRedisBackend(url)
        return BeatingJournal(backend, beat, silent)
    except ImportError:
        raise RecipeError("--storage redis:... needs the package redis: pip install redis") from None
    except Exception as error:  # noqa: BLE001 the package's own errors have no base class that is at hand without it
        raise RecipeError(f"--storage redis:... cannot be opened ({_said(error, url)})") from None


def _parsed(url: str) -> URL:
    """Read a URL, and choose the driver where it names none.

    Raises:
        RecipeError: it cannot be read, or names a database in the memory of one process.
    """
    scheme, _, rest = url.partition(":")
    try:
        parsed = make_url(f"postgresql:{rest}" if scheme == "postgres" else url)
    except (ArgumentError, ValueError):
        parsed = None
    if parsed is None or "@" in (parsed.host or ""):
        raise RecipeError(
            f"--storage {scheme}:... is no URL: write {scheme}://USER:PASSWORD@HOST/NAME, with %40 for an @ in a "
            "password, %2F for a / and %3A for a :"
        )
    if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise RecipeError(f"--storage {scheme}:... lives in the memory of one process: name a file, sqlite:///FILE")
    driver = DRIVERS.get(parsed.drivername)
    return parsed if driver is None or find_spec(driver) is None else parsed.set(drivername=f"{scheme}+{driver}")


def _options(url: URL) -> dict[str, Any]:
    """Return what an engine is made with: a server that is not there must be told within seconds."""
    seconds: dict[str, int] = {}
    if url.get_backend_name() == "sqlite":
        seconds = {"timeout": TURN}
    elif url.get_driver_name() in ("psycopg", "psycopg2", "pymysql", "mysqldb") and "connect_timeout" not in url.query:
        seconds = {"connect_timeout": REACH}
    return {"connect_args": seconds, "pool_pre_ping": True}


def _engine(url: URL) -> Engine:
    """Return an engine that keeps no connection."""
    return create_engine(url, poolclass=NullPool, connect_args=_options(url)["connect_args"])


def _tables(url: URL, beat: int, silent: int) -> RDBStorage:
    """Open the tables. Optuna creates them without a lock, and another process may be creating them now."""
    text = url.render_as_string(hide_password=False)
    for left in reversed(range(TRIES)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)
                return RDBStorage(
                    text,
                    _options(url),
                    heartbeat_interval=beat,
                    grace_period=silent,
                    heartbeat_stale_trial_callback=queue_again,
                )
        except DatabaseError:
            if not left:
                raise
        time.sleep(PAUSE)
    raise AssertionError("the last attempt returns or raises")


def _said(error: BaseException, url: str) -> str:
    """Return the first line of an error, without the password of the URL."""
    error = getattr(error, "orig", None) or error  # the driver's own, without what SQLAlchemy adds
    lines = str(error).strip().splitlines() or [type(error).__name__]
    said = lines[0]
    with contextlib.suppress(ArgumentError, ValueError):
        parsed = make_url(url)
        raw = url.partition("://")[2].rpartition("@")[0].partition(":")[2]
        for secret in (url, parsed.password, raw):
            said = said.replace(str(secret), "***") if secret else said
    return one_line(said, 110)
