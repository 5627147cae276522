"""Files of a study under several writers, and folders that cannot be."""

import errno
import os

import pytest

from bisam_lab.study.files import read_results, write_text

from ..test_cli import TINY, in_process


def test_writers_with_one_process_number_do_not_meet(tmp_path, monkeypatch):
    """In containers that share a folder every process may be number 1."""
    monkeypatch.setattr(os, "getpid", lambda: 1)
    path, replace, seen = tmp_path / "a.json", os.replace, []

    def interrupted(source, target):
        if not seen:
            seen.append(source)
            write_text(path, "another's")
        replace(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    write_text(path, "mine")
    assert path.read_text() == "mine"


def test_a_stray_result_is_passed_over(tmp_path):
    (tmp_path / "runs" / "seed-0").mkdir(parents=True)
    (tmp_path / "runs" / "seed-0" / "result.json").write_text("{}")
    assert read_results(tmp_path)[0] == []


@pytest.mark.parametrize("command", ["compare", "train"])
def test_a_file_is_no_folder(command, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    for out in ("file", "file/run"):
        code, said = in_process(capsys, monkeypatch, command, "digits", *TINY, "--out", out)
        assert code == 2
        assert f"--out {out} " in said
        assert "name another folder" in said


def test_a_full_disk_names_the_file(tmp_path, monkeypatch):
    """A write that fails tells no name of its own."""

    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        write_text(tmp_path / "result.json", "{}")
    assert caught.value.filename == str(tmp_path / "result.json")
    assert list(tmp_path.iterdir()) == []
