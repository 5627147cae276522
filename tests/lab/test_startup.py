"""What a command imports, counted in modules: seconds depend on the machine, and these are where they go."""

import gc
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from bisam_lab import recipe as recipes
from bisam_lab.cli.recipes import _row
from bisam_lab.datasets.sets import digits
from bisam_lab.importing import no_collection

from .test_cli import TINY, start

HEAVY = ("torch", "lightning_fabric", "sklearn", "scipy", "pandas", "matplotlib", "optuna", "torchvision", "PIL")
RUN = """
import atexit, sys
import bisam_lab
atexit.register(lambda: print("imported:", *[name for name in {names!r} if name in sys.modules]))
sys.argv = ["bisam", *{args!r}]
bisam_lab.main()
"""


def imported(names, *args, cwd):
    """Those of the modules that a command has imported when it ends."""
    code = RUN.format(names=names, args=args)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=cwd, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].split()[1:]


@pytest.mark.parametrize(
    "args",
    [
        ["--help"],
        ["--version"],
        *([command, "--help"] for command in ("train", "compare", "tune", "rho-range", "bench", "audit", "report")),
    ],
    ids=" ".join,
)
def test_help_waits_for_nothing(args, tmp_path):
    assert imported((*HEAVY, "bisam_lab.recipe", "yaml", "numpy"), *args, cwd=tmp_path) == []


@pytest.mark.parametrize(
    "args",
    [["recipes", "list"], ["recipes", "list", "--json"], ["recipes", "show", "digits"], ["data", "list"]],
    ids=" ".join,
)
def test_what_only_reads_text_waits_for_no_engine(args, tmp_path):
    assert imported(HEAVY, *args, cwd=tmp_path) == []


@pytest.mark.parametrize(
    ("line", "offer"),
    [
        ("bisam compare finetune-", "finetune-flowers"),
        ("bisam compare digits data.name = cifar10", "cifar100"),
        ("bisam train --method bisam-t", "bisam-tanh"),
    ],
)
def test_the_shell_waits_for_no_engine(line, offer, tmp_path):
    code = RUN.format(names=HEAVY, args=[]) + "\n"
    words = {"_BISAM_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
    code = f"import os; os.environ.update({words!r})\n" + code.replace('["bisam", *[]]', '["bisam"]')
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert offer in done.stdout, done.stderr
    assert done.stdout.splitlines()[-1] == "imported:"


def test_the_process_that_starts_the_runs_needs_no_engine(tmp_path):
    """It imports torch, for methods have names to check, and the table's packages while the runs' server starts."""
    args = ["compare", "--methods", "sgd", "--seeds", "1", "--jobs", "1", "--out", "s", *TINY]
    names = ("torch", "torch._dynamo", "lightning_fabric", "sklearn", "pandas", "torchvision")
    assert imported(names, *args, cwd=tmp_path) == ["torch"]
    assert (tmp_path / "s" / "runs" / "sgd" / "seed-0" / "result.json").exists()


def test_the_interpreter_ends_at_once(tmp_path):
    """It would look through every object of torch for rubbish, which takes longer than most commands."""
    code = RUN.format(names=(), args=["--version"]).replace(
        "import atexit, sys", "import atexit, gc, sys; atexit.register(lambda: print(gc.get_freeze_count() > 10_000))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.stdout.splitlines()[-1] == "True", done.stderr


def test_imports_set_off_no_search_for_rubbish():
    assert gc.isenabled()
    with pytest.raises(KeyError), no_collection():
        assert not gc.isenabled()
        raise KeyError
    assert gc.isenabled()
    gc.disable()
    try:
        with no_collection():
            pass
        assert not gc.isenabled(), "as it was before"
    finally:
        gc.enable()


def test_the_digits_are_those_of_scikit_learn_without_it(tmp_path):
    code = "import sys; from bisam_lab.datasets.sets.digits import _read; _read(None); print('sklearn' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.stdout.strip() == "False", done.stderr
    assert np.array_equal(digits._rows(), digits._rows_of_scikit_learn())
    from sklearn.datasets import load_digits

    bunch, read = load_digits(), digits._read(None)
    x = torch.cat([read.train[0], read.test[0]])
    assert torch.equal(x[:, 0], torch.tensor(bunch.images / 16.0, dtype=torch.float32))
    assert torch.equal(torch.cat([read.train[1], read.test[1]]), torch.tensor(bunch.target).long())
    assert (x.shape, len(read.train[1])) == ((1797, 1, 8, 8), 1200)


def test_another_scikit_learn_may_keep_the_digits_elsewhere(tmp_path, monkeypatch):
    class Elsewhere:
        submodule_search_locations = (str(tmp_path),)

    here = digits._rows()
    monkeypatch.setattr(digits, "find_spec", lambda name: Elsewhere)
    assert np.array_equal(digits._rows(), here)


@pytest.mark.parametrize("name", recipes.names())
def test_a_recipe_is_listed_as_it_is_read(name):
    recipe = recipes.load(name)
    variants = [recipes.variant(recipe, key) for key in recipe.variants] or [recipe]
    assert _row(name) == {
        "name": recipe.name,
        "description": recipe.description,
        "data": ", ".join(dict.fromkeys(one.data.name for one in variants)),
        "variants": len(recipe.variants),
        "methods": len(recipe.methods),
        "seeds": recipe.seeds,
        "runs": len(variants) * len(recipe.methods) * recipe.seeds,
    }
    assert recipes.outline(name) | {"smoke": None} == recipe.model_dump(mode="json") | {"smoke": None}


def test_ctrl_c_does_not_wait_for_data_that_are_still_read(tmp_path):
    (tmp_path / "slow.py").write_text(
        "import pathlib, time\ndef read(folder):\n    pathlib.Path('reading').touch()\n    time.sleep(600)\n"
    )
    process = start("compare", "data.name=slow.py:read", "--methods", "sgd", "--seeds", "1", "--out", "s", cwd=tmp_path)
    end = time.monotonic() + 120
    while not (tmp_path / "reading").exists():
        assert process.poll() is None and time.monotonic() < end, process.communicate()[0]
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 130, output
    assert "Traceback" not in output
