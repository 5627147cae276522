"""The archives of a release: what CI builds, looks into and tries."""

import runpy
import subprocess
import tarfile
import zipfile

import pytest

from tests.pages import ROOT

NAMES = runpy.run_path(str(ROOT / ".ci" / "dist.py"))
ABOUT = ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")


def archives(folder, without=(), besides=()):
    """A wheel and a source archive with the names that they should have, but for some."""
    packed = {*NAMES["sources"](), *besides} - set(without)
    with zipfile.ZipFile(folder / "bisam-0-py3-none-any.whl", "w") as wheel:
        for name in (*packed, *(f"bisam-0.dist-info/{name}" for name in ABOUT)):
            wheel.writestr(name, "")
    with tarfile.open(folder / "bisam-0.tar.gz", "w:gz") as archive:
        for name in (*(f"src/{name}" for name in packed), *NAMES["BESIDE"]):
            archive.addfile(tarfile.TarInfo(f"bisam-0/{name}"))
    return folder


def main(folder, monkeypatch):
    monkeypatch.setattr("sys.argv", ["dist.py", str(folder)])
    NAMES["main"]()


def test_all_that_is_needed_at_run_time_is_packed(tmp_path, monkeypatch, capsys):
    main(archives(tmp_path), monkeypatch)
    assert capsys.readouterr().out.count("as they should be") == 3
    needed = {"bisam/py.typed", "bisam_lab/report/template.html", "bisam_lab/recipes/digits.yaml"}
    assert needed <= NAMES["sources"]()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"without": ["bisam/py.typed"]}, r"lacks \['bisam/py.typed'\]"),
        ({"without": ["bisam_lab/recipes/digits.yaml"]}, "lacks .*digits.yaml"),
        ({"besides": ["tests/test_dist.py"]}, r"has \['tests/test_dist.py'\] that it should not"),
    ],
)
def test_what_is_missing_or_too_much_is_named(change, words, tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match=words):
        main(archives(tmp_path, **change), monkeypatch)


def test_a_folder_without_archives_is_named(tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match="make dist builds it"):
        main(tmp_path, monkeypatch)


def test_ci_installs_the_wheel_in_an_empty_environment_and_uses_it():
    assert "make dist" in (ROOT / ".ci" / "run").read_text().splitlines()
    done = subprocess.run(["make", "-n", "dist"], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = "\n".join(done.stdout.splitlines())
    steps = ("uv build", ".ci/dist.py dist", "pip install", "first_example.py", "[lab]", "bisam compare digits --smoke")
    places = [lines.index(step, lines.index("uv build")) for step in steps]
    assert places == sorted(places)
