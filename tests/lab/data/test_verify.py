"""The command ``bisam data``: sets listed and verified."""

import json

import pytest
from typer.testing import CliRunner

from bisam_lab.cli.data import data
from bisam_lab.datasets.registry import SETS, WEIGHTS
from bisam_lab.recipe import DataRecipe, RecipeError
from tests.lab.painting import jpeg


def command(*words):
    return CliRunner().invoke(data, [str(word) for word in words])


def test_the_list_names_every_set_of_a_recipe(tmp_path):
    (tmp_path / "flowers-102").mkdir()
    rows = json.loads(command("list", "--json", "--data-dir", tmp_path).stdout)
    assert [list(row) for row in rows] == [["name", "what", "examples", "licence", "where", "here"]] * len(rows)
    here = {row["name"]: row["here"] for row in rows}
    assert set(SETS) < set(here)
    assert (here["flowers"], here["pets"], here["digits"]) == (True, False, None)
    assert "Oxford flowers" in command("list").stdout
    for name in here:
        assert name in ("cifar-n", *WEIGHTS) or DataRecipe(name=name).name == name


@pytest.mark.parametrize("name", [name for name in SETS if ":" not in name and name != "digits"])
def test_an_empty_folder_is_said_to_lack_every_set(name, tmp_path):
    found = command("verify", name, "--data-dir", tmp_path)
    assert found.exit_code == 1
    assert "missing" in found.stdout
    assert "ok" not in found.stdout.split()


def test_the_packed_cifar_sets_are_told_apart_file_by_file(real_data):
    found = command("verify", "cifar10", "--data-dir", real_data("cifar10"), "--json")
    rows = {row["path"].rsplit("/", 1)[1]: row for row in json.loads(found.stdout)}
    assert found.exit_code == 1
    assert rows["data_batch_2.bin"]["state"] == "missing"
    assert rows["test_batch.bin"]["note"] == "not the official file: 20 images differ, by lossy_indices.json"
    found = command("verify", "cifar100", "--data-dir", real_data("cifar100"))
    assert found.exit_code == 0
    assert found.stdout.split()[::2] == ["ok"] * 3


def test_a_changed_byte_is_found(real_data, tmp_path):
    inner = tmp_path / "cifar-100-python"
    inner.mkdir()
    for name in ("train", "test"):
        (inner / name).symlink_to(real_data("cifar100") / "cifar-100-python" / name)
    content = bytearray((real_data("cifar100") / "cifar-100-python" / "meta").read_bytes())
    content[1000] ^= 1
    (inner / "meta").write_bytes(content)
    found = command("verify", "cifar100", "--data-dir", tmp_path)
    assert found.exit_code == 1
    assert f"broken  {inner / 'meta'}: MD5" in found.stdout
    assert f"Delete {inner}" in found.stderr
    assert f"bisam data fetch cifar100 --data-dir {tmp_path}" in found.stderr


def test_the_way_out_never_leads_through_the_data_dir_itself(tmp_path):
    """What is deleted is the set's own folder, and no folder that may hold anything else."""
    assert "Delete" not in command("verify", "pets", "--data-dir", tmp_path).stderr
    assert f"bisam data fetch pets --data-dir {tmp_path}" in command("verify", "pets", "--data-dir", tmp_path).stderr
    (tmp_path / "oxford-iiit-pet").mkdir()
    assert f"Delete {tmp_path / 'oxford-iiit-pet'}," in command("verify", "pets", "--data-dir", tmp_path).stderr
    (tmp_path / "train").mkdir()
    (tmp_path / "val").mkdir()
    assert "Delete" not in command("verify", "imagenet", "--data-dir", tmp_path).stderr


def test_folders_and_texts_are_verified_by_reading_them(tmp_path):
    for k in range(6):
        path = tmp_path / "own" / "ab"[k % 2] / f"{k}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(k))
    name = f"folder:{tmp_path / 'own'}"
    assert command("verify", name).exit_code == 0
    assert "4 + 2 pictures of 2 classes, at 32 pixels" in command("prepare", name).stdout
    (tmp_path / "own" / "a" / "0.jpg").write_bytes(jpeg()[:400])
    for verb in ("verify", "prepare"):
        found = command(verb, name)
        assert found.exit_code == 1
        assert "0.jpg is broken or no picture" in found.stdout
    assert command("verify", f"text:{tmp_path / 'none'}").exit_code == 1


def test_prepare_says_what_a_file_of_texts_holds(tmp_path):
    path = tmp_path / "films.csv"
    path.write_text("review,sentiment\n" + "so fine,good\nso dull,bad\n" * 10)
    found = command("prepare", f"text:{path}")
    assert found.exit_code == 0
    assert found.stdout.splitlines() == [
        "16 + 4 texts of 2 classes, columns review and sentiment",
        "bad: 8 + 2",
        "good: 8 + 2",
    ]


def test_a_path_is_read_as_the_data_that_lie_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "films.csv").write_text("text,label\n" + "so fine,good\nso dull,bad\n" * 10)
    for verb in ("prepare", "verify"):
        found = command(verb, "films.csv")
        assert (found.exit_code, found.stderr.strip()) == (0, "Read as: text:films.csv")
        assert "16 + 4 texts of 2 classes" in found.stdout


def test_what_is_not_here_is_not_prepared(tmp_path):
    for name in ("text:none.csv", "folder:none"):
        assert "none" in str(command("prepare", name, "--data-dir", tmp_path).exception)
    found = command("prepare", "glue:rte", "--data-dir", tmp_path)
    assert (found.exit_code, found.stdout.split()[0]) == (1, "missing")


@pytest.mark.parametrize("verb", ["verify", "fetch", "prepare"])
def test_an_unknown_set_is_named(verb, tmp_path):
    found = command(verb, "flower", "--data-dir", tmp_path)
    assert isinstance(found.exception, RecipeError)
    assert "did you mean flowers?" in str(found.exception)


def test_a_task_of_glue_that_is_not_here_is_missing_and_not_downloaded(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets, "load_dataset", None)
    found = command("verify", "glue:qqp", "--data-dir", tmp_path)
    assert found.exit_code == 1
    assert found.stdout.split() == ["missing", str(tmp_path / "glue" / "QQP")]
    assert f"To get it: bisam data fetch glue:qqp --data-dir {tmp_path}" in found.stderr
    folder = tmp_path / "glue" / "QQP"
    folder.mkdir(parents=True)
    found = command("verify", "glue:qqp", "--data-dir", tmp_path)
    assert "broken" in found.stdout
    assert f"Delete {folder}" in found.stderr
