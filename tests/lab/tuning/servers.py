"""Real database servers, each of which a test starts for itself and ends again."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

__all__ = ["PASSWORD", "mariadb", "postgresql"]

#: With signs that a URL must encode.
PASSWORD = "open/sesame@9"
ENCODED = "open%2Fsesame%409"


@contextlib.contextmanager
def postgresql():
    """A PostgreSQL from Debian's package on a free port; yields the URL of an empty database."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not places:
        pytest.skip("no PostgreSQL server here: apt-get install postgresql")
    binaries = places[-1].parent
    with _folder("postgres") as (folder, user):
        (folder / "password").write_text(PASSWORD)
        new = [
            "--username=bisam",
            "--auth=scram-sha-256",
            f"--pwfile={folder / 'password'}",
            "--no-sync",
            "--no-locale",
        ]
        _run(binaries / "initdb", "-D", folder / "data", "--encoding=UTF8", *new, **user)
        port = _free_port()
        given = ["-c", f"port={port}", "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-k", folder]
        url = f"postgresql://bisam:{ENCODED}@127.0.0.1:{port}/postgres"
        with _serving([binaries / "postgres", "-D", folder / "data", *given], signal.SIGQUIT, port, user, folder):
            yield url


@contextlib.contextmanager
def mariadb():
    """A MariaDB from Debian's package on a free port; yields the URL of an empty database."""
    if not shutil.which("mariadbd", path="/usr/sbin:/usr/bin:/usr/local/bin"):
        pytest.skip("no MariaDB server here: apt-get install mariadb-server")
    with _folder("mysql") as (folder, user):
        data = f"--datadir={folder / 'data'}"
        _run("mariadb-install-db", "--no-defaults", data, "--auth-root-authentication-method=normal", **user)
        port = _free_port()
        password = PASSWORD
        (folder / "init.sql").write_text(
            "CREATE DATABASE trials;\n"
            f"CREATE USER bisam@'127.0.0.1' IDENTIFIED BY '{password}';\n"
            "GRANT ALL ON trials.* TO bisam@'127.0.0.1';\n"
        )
        given = ["--bind-address=127.0.0.1", f"--port={port}", f"--socket={folder / 's'}", "--skip-name-resolve"]
        given += [f"--init-file={folder / 'init.sql'}", "--innodb-flush-log-at-trx-commit=0"]
        with _serving(["mariadbd", "--no-defaults", data, *given], signal.SIGTERM, port, user, folder):
            yield f"mysql://bisam:{ENCODED}@127.0.0.1:{port}/trials"


@contextlib.contextmanager
def _folder(name):
    """A folder that the server's user may enter, which pytest's own folders do not allow; servers refuse root."""
    folder, user = Path(tempfile.mkdtemp(prefix="db-")), {}
    if os.getuid() == 0:
        known = {entry.pw_name for entry in pwd.getpwall()}
        entry = pwd.getpwnam(name if name in known else "nobody")
        os.chown(folder, entry.pw_uid, entry.pw_gid)
        user = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    try:
        yield folder, user
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def _serving(command, ending, port, user, folder):
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(list(map(str, command)), stdout=log, stderr=log, cwd=folder, env=_PLACES, **user)
        try:
            end = time.monotonic() + 60
            while not _answers(port):
                assert server.poll() is None and time.monotonic() < end, (folder / "log").read_text()
                time.sleep(0.05)
            yield
        finally:
            server.send_signal(ending)
            server.wait(60)


_PLACES = {"PATH": f"{os.environ['PATH']}:/usr/sbin:/usr/bin"}


def _run(*command, **user):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd="/", env=_PLACES, **user)
    assert done.returncode == 0, done.stdout + done.stderr


def _free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def _answers(port):
    with socket.socket() as asking:
        asking.settimeout(1)
        return asking.connect_ex(("127.0.0.1", port)) == 0
