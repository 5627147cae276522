"""Start the processes of a run that is larger than a device, through torch's own launcher, and say how they ended."""

import contextlib
import logging
import os
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import typer

from ..errors import RecipeError, shown
from ..run.place import OURS, LostError
from .signals import Terminated

if TYPE_CHECKING:
    from torch.distributed.launcher.api import LaunchConfig

    from ..recipe import EngineRecipe
    from ..run.place import Place

__all__ = ["GONE", "LOST", "PATIENCE", "alone", "leads", "speaking", "start"]

#: Exit code of a process of a run that has lost another one, and leaves it to this program to say so.
LOST = 75
#: Seconds that another process than the first waits before it says what is wrong.
PATIENCE = 15.0
#: What is said of a process that is gone.
GONE = "the same command goes on from the last checkpoint"


@contextlib.contextmanager
def speaking(here: "Place | None") -> Iterator[None]:
    """Let the first of several processes say what is wrong with all, and our own launcher that one is gone.

    Args:
        here: this process's place; None: it is alone.

    Raises:
        typer.Exit: our launcher says it.
    """
    try:
        yield
    except LostError:
        if here is None or (here.rank == 0 and not here.ours):
            raise
        raise typer.Exit(LOST) from None
    except RecipeError:
        if here is not None and here.rank > 0:
            time.sleep(PATIENCE)  # the first says it, and its launcher ends this process; or it is ours alone
        raise


@contextlib.contextmanager
def alone(here: "Place | None") -> Iterator[None]:
    """Keep silent what one process says for all, unless this is the one: how the command line was read."""
    if here is None or (here.rank == 0 and not here.ours):
        yield
        return
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        yield


def leads(here: "Place | None", engine: "EngineRecipe") -> bool:
    """Whether this process makes the run's folder: one of all that have been started on all nodes."""
    if here is not None:
        return here.rank == 0 and not here.ours
    return engine.nodes == 1 or os.environ.get("NODE_RANK") == "0"


def start(engine: "EngineRecipe") -> None:
    """Start this node's processes with this process's command line, and wait for them.

    It is what ``torchrun`` does. One that ends badly ends them all. SIGTERM and Ctrl-C are handed on.

    Args:
        engine: how many.

    Raises:
        typer.Exit: one ended badly.
        KeyboardInterrupt: they were told to stop, and have saved.
        RecipeError: there are several nodes, and the environment does not say which this is.
        OSError: one was killed.
    """
    with tempfile.TemporaryDirectory(prefix="bisam-") as folder:
        config = _config(engine, folder)  # refuses what cannot be before torch is asked
        _run(config)


def _run(config: "LaunchConfig") -> None:
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch

    logging.disable(logging.CRITICAL)  # this program says itself, in a line, what torch says in a page
    os.environ[OURS] = str(os.getpid())
    try:
        elastic_launch(config, sys.executable)("-m", "bisam_lab", *sys.argv[1:])
    except SignalException as stop:
        raise (Terminated if stop.sigval == signal.SIGTERM else KeyboardInterrupt) from None
    except ChildFailedError as error:
        _explain({rank: failure.exitcode for rank, failure in error.failures.items()})
    finally:
        logging.disable(logging.NOTSET)


def _explain(codes: Mapping[int, int]) -> None:
    """Raise what tells how processes ended, from their exit codes; a negative one is a signal."""
    killed = {rank: -code for rank, code in codes.items() if code < 0}
    own = {rank: number for rank, number in killed.items() if number != signal.SIGTERM}  # which the launcher sends
    said = [code for code in codes.values() if code > 0 and code != LOST]
    if not own and any(code in (130, 143) for code in said):
        raise Terminated if 143 in said else KeyboardInterrupt
    if not own and said:
        raise typer.Exit(said[0])
    for rank, number in (own or killed).items():
        memory = ", perhaps because memory ran out" if number == signal.SIGKILL else ""
        raise ChildProcessError(f"process {rank} of the run was killed ({signal.Signals(number).name}{memory}): {GONE}")
    raise ChildProcessError(f"a process of the run on another node has ended: {GONE}")


def _config(engine: "EngineRecipe", folder: str) -> "LaunchConfig":
    """Return what to start. On one node torch finds a free port; several meet where the environment says."""
    if engine.nodes == 1:
        meeting: dict[str, Any] = {"rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0", "local_addr": "127.0.0.1"}
    else:
        address, port, node = _several(engine.nodes)
        meeting = {"rdzv_backend": "static", "rdzv_endpoint": f"{address}:{port}", "rdzv_configs": {"rank": node}}
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.launcher.api import LaunchConfig

    from ..run.environment import cores

    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() // engine.devices)))
    return LaunchConfig(
        min_nodes=engine.nodes,
        max_nodes=engine.nodes,
        nproc_per_node=engine.devices,
        run_id=uuid.uuid4().hex if engine.nodes == 1 else "bisam",
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(log_dir=folder),
        **meeting,
    )


def _several(nodes: int) -> tuple[str, int, int]:
    """Return the address and port of the first node, and this node's number.

    Raises:
        RecipeError: the environment does not tell them.
    """
    names = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK")
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        raise RecipeError(
            f"engine.nodes={nodes}: {missing[0]} is not set: give each node MASTER_ADDR, MASTER_PORT and its NODE_RANK "
            "from 0, or use torchrun or srun"
        )
    address, port, node = (os.environ[name] for name in names)
    for name, value, most in (("MASTER_PORT", port, 65535), ("NODE_RANK", node, nodes - 1)):
        if not (value.isascii() and value.isdigit() and int(value) <= most):
            raise RecipeError(f"engine.nodes={nodes}: {name}={shown(value)} must be a number from 0 to {most}")
    return address, int(port), int(node)
