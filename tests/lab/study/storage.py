"""A real S3 server on this machine, moto's, which a test starts and ends; and a gate before it that can be shut."""

import contextlib
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

__all__ = ["Gate", "s3", "variables"]


@contextlib.contextmanager
def s3():
    """Start the server; yields its port and its log. It has an empty bucket of the name ``bucket``."""
    pytest.importorskip("s3fs")
    pytest.importorskip("moto")
    port = _free_port()
    with TemporaryDirectory() as folder, (Path(folder) / "log").open("wb") as log:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        server = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            end = time.monotonic() + 60
            while not _created(port):
                assert server.poll() is None and time.monotonic() < end, (Path(folder) / "log").read_text()
                time.sleep(0.1)
            yield port, Path(folder) / "log"
        finally:
            server.kill()
            server.wait(60)


def variables(port, cache):
    """Return the environment of a machine: the server, and where its working copies lie."""
    return {
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_EC2_METADATA_DISABLED": "true",
        "BISAM_CACHE": str(cache),
    }


class Gate:
    """Lets connections through to a port, or refuses them."""

    def __init__(self, port):
        self._there, self.open = port, True
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._through = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listening.accept()
                if not self.open:
                    client.close()
                    continue
                server = socket.create_connection(("127.0.0.1", self._there))
                self._through += [client, server]
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=_pass_on, args=pair, daemon=True).start()

    def shut(self):
        """Refuse connections, and cut those that are there."""
        self.open = False
        for connection in self._through:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self):
        self.shut()
        self._listening.close()
        for connection in self._through:
            connection.close()


def _pass_on(here, there):
    with contextlib.suppress(OSError):
        while data := here.recv(65536):
            there.sendall(data)
        there.shutdown(socket.SHUT_WR)


def _free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def _created(port):
    request = b"PUT /bucket HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(request)
        return b" 200 " in connection.recv(100)
    return False
