"""Servers that misbehave, archives that grow, and files that are no files: one sentence each, and no file is left."""

import contextlib
import gzip
import io
import os
import socket
import tarfile
import threading

import pytest

from bisam_lab.data import official
from bisam_lab.data.find import find
from bisam_lab.data.official import download
from bisam_lab.datasets.folders import read_folder
from bisam_lab.datasets.tables import read_tables
from bisam_lab.recipe import RecipeError

from ..painting import paint

OK = b"HTTP/1.1 200 OK\r\n"


@pytest.fixture
def answers(monkeypatch):
    """Returns a function that starts a server with one answer, whatever is asked, and returns its address."""
    monkeypatch.setattr(official, "TIMEOUT", 0.5)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    listening = socket.create_server(("127.0.0.1", 0))
    listening.settimeout(0.02)
    closing, threads = threading.Event(), []

    def start(answer):
        def serve():
            while not closing.is_set():
                try:
                    asked, _ = listening.accept()
                except TimeoutError:
                    continue
                with asked, contextlib.suppress(OSError):
                    asked.recv(10_000)
                    if answer is None:
                        closing.wait(2)
                    else:
                        asked.sendall(answer)

        closing.clear()
        threads.append(threading.Thread(target=serve, daemon=True))
        threads[-1].start()
        return f"http://127.0.0.1:{listening.getsockname()[1]}/set.bin"

    def stop():
        closing.set()
        for thread in threads:
            thread.join()

    start.stop = stop
    yield start
    stop()
    listening.close()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "cannot be downloaded"),
        (b"no HTTP at all\r\n\r\n", "cannot be downloaded"),
        (b"HTTP/1.1 abc OK\r\n\r\n", "cannot be downloaded"),
        (b"HTTP/1.1 200 " + b"x" * 100_000, "cannot be downloaded"),
        (OK + b"x: y\r\n" * 200 + b"\r\n", "cannot be downloaded"),
        (OK + b"x: " + b"y" * 100_000 + b"\r\n\r\n", "cannot be downloaded"),
        (b"HTTP/1.1 503 busy\r\n\r\n", "HTTP Error 503"),
        (b"HTTP/1.1 302 Found\r\nLocation: /set.bin\r\n\r\n", "cannot be downloaded"),
        (b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n", "cannot be downloaded"),
        (OK + b"Content-Length: 100\r\n\r\nabc", "ended after 3 of 100 bytes"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc", "cannot be downloaded"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\nff\r\nabc", "cannot be downloaded"),
        (OK + b"Content-Type: text/html; charset=utf-8\r\n\r\nlog in", "answers with a web page"),
        (OK + b"\r\n  <!DOCTYPE HTML><html>log in</html>", "answers with a web page"),
        (None, "cannot be downloaded: "),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_broken_answers(answer, words, answers, tmp_path):
    with pytest.raises(RecipeError) as caught:
        download(answers(answer), tmp_path / "set.bin", None)
    assert words in str(caught.value)
    assert len(str(caught.value)) <= 200
    assert "http://127.0.0.1" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_lengths_that_say_nothing_do_no_harm(answers, tmp_path, monkeypatch):
    for number, header in enumerate((b"", b"Content-Length: many\r\n", b"Content-Length: -5\r\n")):
        place = tmp_path / f"{number}.bin"
        download(answers(OK + header + b"\r\nabc"), place, "900150983cd24fb0d6963f7d28e17f72")
        assert place.read_bytes() == b"abc"
        answers.stop()
    monkeypatch.setattr(official, "LARGEST", 2)
    with pytest.raises(RecipeError, match="sends more than the 2 bytes"):
        download(answers(OK + b"\r\nabc"), tmp_path / "x.bin", None)


def test_a_host_that_is_not_there(tmp_path):
    for url in ("http://127.0.0.1:9/x", "http://no-such-host.invalid/x", "http://[x/x", "nothing"):
        with pytest.raises(RecipeError, match="cannot be downloaded"):
            download(url, tmp_path / "x", None)


@pytest.mark.parametrize("kind", ["gz", "tar.gz", "many"])
def test_an_archive_that_grows(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(official, "_BLOCK", 50_000)
    path, fresh = tmp_path / ("set.gz" if kind == "gz" else "set.tar.gz"), tmp_path / "fresh"
    fresh.mkdir()
    if kind == "gz":
        path.write_bytes(gzip.compress(bytes(50_000_000), 1))
    else:
        with tarfile.open(path, "w:gz", compresslevel=1) as archive:
            entry = tarfile.TarInfo("made/x")
            entry.size = 50_000_000 if kind == "tar.gz" else 0
            for number in range(1 if entry.size else 2_000):
                entry.name = f"made/{number}"
                archive.addfile(entry, io.BytesIO(bytes(entry.size)))
    with pytest.raises(RecipeError, match=r"unpacks to more than [0-9,]+ bytes, 10 times its own"):
        official._unpack(path, fresh, tmp_path / "made")
    assert sum(file.stat().st_size for file in fresh.rglob("*") if file.is_file()) < 20_000_000


@pytest.mark.parametrize("name", ["set.gz", "set.tar.gz", "set.tgz"])
def test_an_archive_that_is_broken(name, tmp_path):
    whole = gzip.compress(os.urandom(100_000))
    for content in (b"no archive", whole[:1000], whole[:500] + b"x" * 500 + whole[1000:]):
        (tmp_path / name).write_bytes(content)
        (tmp_path / "fresh").mkdir(exist_ok=True)
        with pytest.raises(RecipeError, match="cannot be unpacked"):
            official._unpack(tmp_path / name, tmp_path / "fresh", tmp_path / "made")


def test_what_is_no_file_among_pictures(tmp_path):
    for label in ("cat", "dog"):
        for number in range(3):
            paint(tmp_path / label / f"{number}.jpg", number, (8, 8))
    os.mkfifo(tmp_path / "dog" / "pipe.jpg")
    with pytest.raises(RecipeError, match=r"pipe\.jpg is a named pipe, and no picture: remove it"):
        read_folder(tmp_path)
    (tmp_path / "dog" / "pipe.jpg").unlink()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "dog" / "socket.jpg"))
        with pytest.raises(RecipeError, match="is a socket"):
            read_folder(tmp_path)
    (tmp_path / "dog" / "socket.jpg").unlink()
    (tmp_path / "dog" / "zero.jpg").symlink_to("/dev/zero")
    with pytest.raises(RecipeError, match="is a device"):
        read_folder(tmp_path)


def test_names_that_are_no_text(tmp_path):
    for name in (b"caf\xe9", b"a\nb"):
        folder = os.path.join(os.fsencode(tmp_path), name)
        os.makedirs(folder)
        (tmp_path / "dog").mkdir(exist_ok=True)
        with pytest.raises(RecipeError, match="which no name may have") as caught:
            read_folder(tmp_path)
        str(caught.value).encode()
        os.rmdir(folder)


def test_a_text_in_another_encoding_is_named(tmp_path):
    (tmp_path / "train.tsv").write_text("text\tlabel\nfine\t1\ndull\t0\n")
    (tmp_path / "test.tsv").write_bytes("text\tlabel\ncafé\t1\n".encode("latin-1"))
    with pytest.raises(RecipeError, match=r"test\.tsv is not text in UTF-8 \(byte 0xe9 at position 14\)"):
        read_tables(tmp_path)
    with pytest.raises(RecipeError, match=r"test\.tsv is not text in UTF-8"):
        find(f"text:{tmp_path}").load(None)
