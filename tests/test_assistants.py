"""The lines for assistants: each block of the page runs as it stands, behind those of the loop."""

import pytest
import torch
from torch import nn

from tests.pages import blocks

PAGE = "docs/assistants.md"
BLOCKS = [block.text for block in blocks(PAGE) if block.language == "python"]
ENGINES = {"transformers": "SharpnessAwareTrainer(", "lightning": "SharpnessAwareMixin,"}


def reader():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    data = torch.utils.data.TensorDataset(torch.randn(32, 3, 2, 2), torch.randint(0, 3, (32,)))
    return {"__name__": "page", "model": model, "loader": torch.utils.data.DataLoader(data, 8)}


def run(chosen, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = reader()
    for text in chosen:
        before = [p.detach().clone() for p in names["model"].parameters()]
        exec(compile(text, PAGE, "exec"), names)
        names["moved"] = not all(map(torch.equal, names["model"].parameters(), before))
        yield text, names


def test_the_lines_of_the_loop_run(tmp_path, monkeypatch):
    plain = [text for text in BLOCKS if not any(word in text for word in ENGINES.values())]
    assert len(plain) == 6
    for text, names in run(plain, tmp_path, monkeypatch):
        assert names["moved"] == (".step(" in text), text
    assert names["opt"].last.loss.isfinite()


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning", "ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:.*smaller than the logging interval")
@pytest.mark.parametrize("engine", ENGINES)
def test_the_lines_of_an_engine_run(engine, tmp_path, monkeypatch):
    pytest.importorskip(engine)
    (text,) = (text for text in BLOCKS if ENGINES[engine] in text)
    start = "import torch\n\nfrom bisam import SAM\n"
    *_, (_, names) = run([start, text], tmp_path, monkeypatch)
    trainer = names["trainer"]
    opt = trainer.sharpness_aware if engine == "transformers" else trainer.optimizers[0]
    assert opt.last.perturbed
    assert names["moved"] == (engine == "lightning")
