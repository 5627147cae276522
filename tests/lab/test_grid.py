"""Cost against size: what a cell holds, what does not fit, and where a grid goes on."""

import json

import pytest
import torch
from torch import nn

from bisam_lab.bench import grid as grids
from bisam_lab.bench.grid import grid, networks, paper
from bisam_lab.bench.grid.job import _wrapped, run
from bisam_lab.recipe import RecipeError
from tests.lab.test_cli import in_process


def rows(capsys, *methods, limit=2**40, training="full"):
    run("tiny", training, methods, rounds=2, limit=limit)
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_the_plan_of_a_plain_step_is_what_it_takes(capsys):
    (row,) = rows(capsys, "sam")
    known = networks.NETWORKS["tiny"]
    assert row["trained"] == row["weights"] == 4 * sum(p.numel() for p in known.build("full").parameters())
    assert row["paper"]["plain"] == pytest.approx(row["peak"]["plain"], rel=0.05)
    assert row["paper"]["method"] == row["paper"]["plain"] + row["trained"]
    assert row["memory"] == row["peak"]["method"] / row["peak"]["plain"]
    assert len(row["ratios"]) == 2
    assert row["ratios"][0] == row["seconds"]["method"][0] / row["seconds"]["plain"][0]


@pytest.mark.parametrize(
    ("method", "number"), [("sam", 1), ("bisam-log+asam", 1), ("gsam", 2), ("wsam", 2), ("vasso", 2), ("looksam", 3)]
)
def test_the_copies_of_a_method_are_those_of_its_choices(method, number):
    model = nn.Linear(2, 2)
    assert paper.copies(_wrapped(method, torch.optim.AdamW(model.parameters()), model)) == number


def test_adapters_train_a_part(capsys):
    pytest.importorskip("peft")
    model = networks.NETWORKS["tiny"].build("lora")
    trained = {key for key, p in model.named_parameters() if p.requires_grad}
    assert trained
    assert all("lora_" in key for key in trained)
    plan = paper.plan(networks.NETWORKS["tiny"], "lora", 2, 8)
    assert plan.trained == 4 * 8 * (16 + 48)  # rank 8, from 16 to 3 x 16
    assert plan.weights == sum(p.numel() * 4 for p in model.parameters())


def test_what_does_not_fit_is_refused_with_the_calculation(capsys):
    (row,) = rows(capsys, "gsam", limit=1000)
    assert "ratios" not in row
    found = [float(word) for word in row["refused"].partition("GiB: ")[2].replace(",", "").split() if "." in word]
    assert row["refused"].startswith("does not fit in 0.00 GiB, in GiB: weights ")
    assert len(found) == 7
    words = paper.Plan(weights=2**30, trained=2**29, peak=5 * 2**30).words(2)
    assert (
        words == "weights 1.00 + gradients 0.50 + AdamW 1.00 + 2 copies 1.00 + activations and temporaries 2.50 = 6.00"
    )


def test_a_grid_goes_on_and_keeps_what_failed(tmp_path, monkeypatch):
    asked = []

    def job(network, training, methods, rounds, limit):
        for method in methods:
            asked.append((training, method))
            found = {"ratios": [2.0]} if method == "sam" else {"error": "killed"}
            yield {"key": f"{network} {training} {method}", "said": "", "method": method, **found}

    monkeypatch.setattr(grids, "_job", job)
    out = tmp_path / "grid.json"
    grid(out, networks=["tiny"], methods=["sam"], rounds=2)
    result = grid(out, networks=["tiny"], methods=["sam", "gsam"], rounds=2)
    assert asked == [("full", "sam"), ("lora", "sam"), ("full", "gsam"), ("lora", "gsam")]
    assert set(json.loads(out.read_text())["cells"]) == set(result["cells"])
    grid(out, networks=["tiny"], methods=["sam", "gsam"], rounds=2)
    assert asked[4:] == [("full", "gsam"), ("lora", "gsam")]  # what failed is tried again


def test_a_process_that_dies_is_a_row_of_each_method_that_it_owes(tmp_path, monkeypatch):
    monkeypatch.setattr(grids.sys, "executable", "/bin/false")
    result = grid(tmp_path / "grid.json", networks=["tiny"], methods=["sam"], rounds=1, memory=1)
    assert {key: row["error"] for key, row in result["cells"].items()} == {
        "tiny full sam": "exit code 1",
        "tiny lora sam": "exit code 1",
    }


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--grid", "--networks", "vit-t"], "--networks vit-t is none of vit-ti, vit-s"),
        (["--grid", "cifar10"], "--grid has networks and data of its own: leave cifar10 out"),
        (["--grid", "--methods", "sgd"], "--methods: sgd is the plain optimizer"),
        (["--networks", "vit-ti"], "--networks has no effect without --grid: say bisam bench --grid"),
        (["--grid", "--out", "other.json"], "other.json is no result of bisam bench --grid"),
    ],
)
def test_wrong_words(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.json").write_text('{"cells": 3}')
    code, err = in_process(capsys, monkeypatch, "bench", *words)
    assert code == 2
    assert said in err


def test_an_unreadable_file_is_refused(tmp_path):
    (tmp_path / "grid.json").write_text("no JSON")
    with pytest.raises(RecipeError, match=r"is no result of bisam bench --grid: name another file with --out"):
        grids.read(tmp_path / "grid.json")
