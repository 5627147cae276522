"""The export for benchopt: its columns, a row for the test and one for each epoch, and what is refused.

benchopt itself read and plotted such a file: its version 1.10.0, ``read_results`` and ``benchopt plot``.
"""

import json
import sys

import pandas as pd
import pytest

from bisam_lab.recipe import RecipeError, load
from bisam_lab.report.benchopt import export_benchopt

from ..test_cli import in_process
from .folders import study

#: What benchopt 1.10 writes and reads back, of `benchopt run` with benchmarks/benchopt_sam.
COLUMNS = {
    *("objective_name", "solver_name", "dataset_name", "idx_rep", "sampling_strategy", "stop_val", "time"),
    *("objective_value", "obj_description", "solver_description", "base_seed", "run_date", "benchmark-git-tag"),
    *("env-OMP_NUM_THREADS", "platform", "system-cpus", "system-processor", "p_dataset_label_noise", "p_solver_epochs"),
    *("platform-architecture", "platform-release", "platform-version", "system-ram (GB)", "version-cuda"),
    *("version-numpy", "version-numpy-libs", "version-scipy"),
}


@pytest.fixture
def folder(tmp_path):
    """A study with a whole recipe, whose scores are 0.8 to 0.87."""
    made = study(tmp_path / "s")
    recipe = load("digits", ["methods=[sgd,sam]", "seeds=3", "train.epochs=6", "first_seed=0"])
    (made / "recipe.yaml").write_text(recipe.to_yaml())
    return made


def test_a_run_has_a_row_for_the_test_and_one_for_each_epoch(folder):
    table = pd.read_parquet(export_benchopt(folder))
    assert set(table) >= COLUMNS
    mine = table[(table.solver_name == "sam") & (table.idx_rep == 1)].set_index("objective_name")
    assert mine.loc["test error", "objective_value"] == pytest.approx(100 - 85)
    assert mine.loc["test error", "time"] == 12.5
    curve = mine.loc["validation error"]
    assert list(curve.stop_val) == [1, 2, 3, 4, 5, 6]
    assert list(curve.objective_value) == pytest.approx([100 * (1 - (0.85 - 0.1 / epoch)) for epoch in range(1, 7)])
    assert curve.time.is_monotonic_increasing
    assert set(table.dataset_name) == {"digits"}
    assert set(table["p_dataset_label_noise"]) == {0.4}
    assert table["run_date"].iloc[0].startswith("2026-01-")


def test_a_score_that_is_no_number_is_left_out(folder):
    path = folder / "runs" / "sam" / "seed-1" / "result.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps(told | {"test_score": None}))
    table = pd.read_parquet(export_benchopt(folder))
    sam = table[(table.solver_name == "sam") & (table.objective_name == "test error")]
    assert sorted(sam.idx_rep) in ([0, 2], [0, 1, 2])
    assert table.objective_value.notna().all()


def test_variants_are_data_sets_of_their_own(tmp_path):
    made = study(tmp_path / "s", variants=("a", "b", "c"))
    given = ["methods=[sgd,sam]", "variants={a: {data.label_noise: 0.2}, b: {train.lr: 0.3}}"]
    (made / "recipe.yaml").write_text(load("digits", given).to_yaml())
    notes = []
    table = pd.read_parquet(export_benchopt(made, notes.append)).groupby("dataset_name")
    assert notes == ["Left out, because recipe.yaml has no such variant: c."]
    assert table["p_dataset_label_noise"].first().to_dict() == {"digits[a]": 0.2, "digits[b]": 0.4}
    assert table["p_solver_lr"].first().to_dict() == {"digits[a]": 0.1, "digits[b]": 0.3}


def test_what_cannot_be_exported_is_refused_with_the_remedy(folder, tmp_path, monkeypatch):
    with pytest.raises(RecipeError, match="is not the folder of a study: name one that bisam compare has written"):
        export_benchopt(tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(RecipeError, match=r"--export benchopt needs pyarrow: pip install pyarrow"):
        export_benchopt(folder)


def test_a_damaged_result_is_named(folder, capsys, monkeypatch):
    (folder / "runs" / "sam" / "seed-1" / "result.json").write_text("{")
    code, told = in_process(capsys, monkeypatch, "report", str(folder), "--export", "benchopt")
    assert code == 0
    assert "Left out, because they cannot be read: runs/sam/seed-1/result.json." in told
    table = pd.read_parquet(folder / "benchopt.parquet")
    assert sorted(set(table[table.solver_name == "sam"].idx_rep)) == [0, 2]


@pytest.mark.parametrize("words", [["--json"], ["--watch"], ["--out", "x.html"], ["--baseline", "sam"]])
def test_options_that_an_export_does_not_heed_are_refused(words, folder, capsys, monkeypatch):
    code, told = in_process(capsys, monkeypatch, "report", str(folder), "--export", "benchopt", *words)
    assert (code, (folder / "benchopt.parquet").exists()) == (2, False)
    assert f"{words[0]} has no effect with --export benchopt" in told


def test_the_command(folder, capsys, monkeypatch):
    code, told = in_process(capsys, monkeypatch, "report", str(folder), "--export", "benchopt")
    assert (code, (folder / "benchopt.parquet").exists(), (folder / "report.html").exists()) == (0, True, False), told
