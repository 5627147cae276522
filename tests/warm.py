"""A command `bisam` that starts at once: each call is a fork of a process that has imported everything.

A call takes a process, an environment, a working directory and standard streams of its own, and ends as `bisam` ends.
Only the five seconds of imports are shared. Tests of what is imported, and of signals, call the real command.
"""

import functools
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import weakref
from pathlib import Path

__all__ = ["warm"]

#: Listens on a socket: takes arguments, folder, environment and three streams, forks, and answers with the exit code.
SERVER = """
import atexit, json, os, socket, sys, threading, traceback
from multiprocessing import forkserver
own = dict(os.environ)
def of_a_study(environment):  # without what a shell and a test set
    other = {"PATH", "PWD", "OLDPWD", "SHLVL", "_", "PYTEST_CURRENT_TEST"}
    return {name: value for name, value in environment.items() if name not in other}
sys.path[:] = [place for place in sys.path if place]
import bisam_lab, matplotlib.pyplot, optuna, torchvision
import bisam_lab.cli.app, bisam_lab.report.page, bisam_lab.run.train, bisam_lab.study.pool, bisam_lab.tuning.tuning
from bisam_lab.parallel.processes import warm_up

warm_up()
imported = {name: value for name, value in os.environ.items() if name not in own}
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
print("ready", flush=True)
while True:
    client, _ = listener.accept()
    size = int.from_bytes(client.recv(4, socket.MSG_WAITALL), "big")
    _, streams, _, _ = socket.recv_fds(client, 1, 3)
    asked = json.loads(client.recv(size, socket.MSG_WAITALL))
    child = os.fork()
    if not child:
        break
    for stream in streams:
        os.close(stream)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        client.sendall(code.to_bytes(4, "big", signed=True))
    except OSError:  # the caller has been killed
        pass
    client.close()

os.setsid()
listener.close(), client.close()
for number, stream in enumerate(streams):
    os.dup2(stream, number)
    os.close(stream)
os.chdir(asked["folder"])
os.environ.clear()
os.environ.update({**imported, **asked["environment"]})
if of_a_study(asked["environment"]) == of_a_study(own):  # its processes come from the server that runs already
    forkserver.ensure_running = forkserver._forkserver.ensure_running = lambda: None
else:
    forkserver._forkserver._forkserver_pid = None
code = 0
try:
    if asked["arguments"][:1] == ["-c"]:
        sys.argv = ["-c", *asked["arguments"][2:]]
        exec(asked["arguments"][1])
    else:
        sys.argv = [asked["command"], *asked["arguments"]]
        bisam_lab.main()
except SystemExit as left:
    code = left.code
except BaseException:
    traceback.print_exc()
    code = 1
threading._shutdown(), atexit._run_exitfuncs()
sys.stdout.flush(), sys.stderr.flush()
os._exit(code or 0)  # what was imported need not be taken down, which takes a second
"""
#: Does not import `site`, and starts in a hundredth of a second.
CLIENT = """#!{python} -SE
import json, os, signal, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
asked = {{"command": {command!r}, "arguments": sys.argv[1:], "folder": os.getcwd(), "environment": dict(os.environ)}}
text = json.dumps(asked).encode()
server.sendall(len(text).to_bytes(4, "big"))
socket.send_fds(server, [b"."], [0, 1, 2])
server.sendall(text)
code = int.from_bytes(server.recv(4, socket.MSG_WAITALL), "big", signed=True)
if code < 0:
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


@functools.cache
def warm() -> Path:
    """Start the process, once in a session of tests, and return the path of the command."""
    folder = Path(tempfile.mkdtemp(prefix="warm-"))
    command = Path(sys.executable).parent / "bisam"
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(folder / "socket")],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env={**os.environ, "COLUMNS": "100", "NO_COLOR": "1"},
        cwd=folder,
        start_new_session=True,
    )
    weakref.finalize(server, _ended, server.pid, folder)
    assert server.stdout is not None and server.stdout.readline() == b"ready\n"
    client = folder / "bisam"
    client.write_text(CLIENT.format(python=sys.executable, address=str(folder / "socket"), command=str(command)))
    client.chmod(client.stat().st_mode | stat.S_IXUSR)
    _SERVERS.append(server)
    return client


_SERVERS: list["subprocess.Popen[bytes]"] = []


def _ended(pid: int, folder: Path) -> None:
    os.killpg(pid, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)
