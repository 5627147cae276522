"""The house rules: who may import whom, what must be importable alone, what the documents promise."""

import copy
import doctest
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import bisam
from tests.pages import run_page

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
    done = python(f"import bisam_lab.engine, sys; print([name for name in {heavy!r} if name in sys.modules])")
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
def test_foreach_is_called_in_one_place(path):
    assert path.name == "_foreach.py" or "torch._foreach" not in path.read_text()


def test_docstring_examples():
    for name in ("functional", "methods"):
        module = sys.modules[f"bisam.{name}"]
        results = doctest.testmod(module, extraglobs={"torch": torch})
        assert results.attempted > 0
        assert results.failed == 0


@pytest.mark.parametrize("document", ["README.md", "docs/guide.md", "docs/rho-range.md"])
def test_the_code_in_the_documents_runs(document, tmp_path, monkeypatch):
    """All Python blocks of a page run in order, in one namespace that holds the reader's ``model`` and ``loader``."""
    monkeypatch.chdir(tmp_path)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(12, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 3)
    )
    data = torch.utils.data.TensorDataset(torch.randn(32, 3, 2, 2), torch.randint(0, 3, (32,)))
    namespace: dict[str, object] = {"torch": torch, "model": model, "loader": torch.utils.data.DataLoader(data, 8)}
    before = copy.deepcopy(model.state_dict())
    run_page(document, namespace)
    assert any(not torch.equal(v, before[k]) for k, v in model.state_dict().items()), "the loops train nothing"


def test_files_stay_readable():
    for path in (ROOT / "src").rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 300, path


def test_every_public_name_of_bisam_is_documented():
    for name in bisam.__all__:
        assert getattr(bisam, name).__doc__, name
