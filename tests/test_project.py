"""The house rules: who may import whom, what must be importable alone, what the documents promise."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import bisam

ROOT = Path(__file__).parent.parent
BLOCKED = [
    *("lightning", "lightning_fabric", "transformers", "accelerate", "timm", "peft", "schedulefree"),
    *("torchvision", "matplotlib", "pydantic", "yaml", "rich", "sklearn", "scipy", "typer"),
]


def python(code, **kwargs):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300, **kwargs
    )


def test_bisam_imports_torch_and_nothing_else():
    """With every package of the extras blocked, import, train and save."""
    code = f"""
import sys
sys.modules.update(dict.fromkeys({BLOCKED!r}))
import torch, bisam, bisam.testing
from bisam.testing import Net, batches, run_steps
model = Net()
opt = bisam.BiSAM(torch.optim.SGD(model.parameters(), lr=0.1), model=model)
print(len(run_steps(model, opt, batches(2))), bisam.__version__)
"""
    done = python(code)
    assert done.stdout.split() == ["2", bisam.__version__], done.stderr


def test_the_command_without_the_laboratory_says_what_to_install():
    done = python(f"import sys; sys.modules.update(dict.fromkeys({BLOCKED!r})); import bisam_lab; bisam_lab.main()")
    assert done.returncode == 1
    assert "pip install 'bisam[lab]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_laboratory_does_not_import_what_it_never_uses():
    """Each run is a process of its own: Lightning, if it is there, would make every one wait for torchmetrics."""
    heavy = ["torchmetrics", "lightning", "transformers", "timm"]
    done = python(f"import bisam_lab.run.train, sys; print([name for name in {heavy!r} if name in sys.modules])")
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_the_import_contract_holds():
    done = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "src" / "bisam").rglob("*.py")), ids=lambda p: p.stem)
def test_foreach_is_called_in_one_package(path):
    assert path.parent.name == "_vectors" or "torch._foreach" not in path.read_text()


def test_every_public_name_of_bisam_is_documented():
    for name in bisam.__all__:
        assert getattr(bisam, name).__doc__, name


def test_the_oldest_torch_that_is_tested_is_the_floor_and_meets_every_room_of_the_library():
    """``make oldest`` reads the floor from pyproject.toml; what it leaves out needs an engine or several processes."""
    floor = re.search(r'^dependencies = \["torch>=([0-9.]+)"\]$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert floor is not None
    done = subprocess.run(["make", "-n", "oldest"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"'torch=={floor[1]}'" in done.stdout
    tested = set(done.stdout.split())
    rooms = {path.parent.relative_to(ROOT).as_posix() for path in (ROOT / "tests").glob("*/__init__.py")}
    left_out = {"tests/lab", "tests/integrations", "tests/distributed", "tests/reference"}
    assert rooms - left_out <= tested
    alone = {
        f"tests/test_{name}.py"
        for name in (
            *("tables", "docs", "loop_pages", "notebook", "examples", "reference_examples"),
            *("project", "constraints", "dist", "assistants", "results_tables"),
        )
    }
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").glob("test_*.py")}
    assert files - alone <= tested
