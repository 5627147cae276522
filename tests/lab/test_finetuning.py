"""``benchmarks/finetuning.py``: every contestant through a real Trainer, with weights and texts made on the spot."""

import json
import sys
from pathlib import Path

import pytest
import transformers

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import finetuning


@pytest.fixture
def weights(sst2):
    """The data folder of the fixture ``sst2``, with a BERT of one layer in place of MiniLM."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "fine", "dull", "film", "number", "thing"]
    (sst2 / "vocab.txt").write_text("\n".join(words))
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.BertConfig(vocab_size=len(words), num_labels=2, **sizes)
    transformers.BertForSequenceClassification(config).save_pretrained(sst2 / "minilm-l6")
    transformers.BertTokenizerFast(vocab_file=str(sst2 / "vocab.txt")).save_pretrained(sst2 / "minilm-l6")
    return sst2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft's call
@pytest.mark.parametrize("task", ["sst2", "sst2-lora"])
def test_contestants_choose_on_other_examples_and_go_on_where_they_stopped(weights, tmp_path, monkeypatch, task):
    for name, value in {"TRAINED": 16, "VALIDATED": 8, "EPOCHS": 1, "RADII": (0.05,)}.items():
        monkeypatch.setattr(finetuning, name, value)
    monkeypatch.setattr(finetuning, "RATES", {"": (1e-2,), "lora": (1e-2,)})
    kept = tmp_path / f"{task}.json"
    rows = finetuning.rows_of(finetuning.Task(task, weights, kept), seeds=2)
    assert [row["method"] for row in rows] == ["adamw", "sam", "bisam-log", "bisam-tanh"]
    assert all({8 * score for score in row["tried"]} <= {*range(9)} for row in rows), "shares of eight examples"
    assert all({2 * score for score in row["scores"]} <= {0, 1, 2} for row in rows), "shares of the two dev texts"
    assert len(json.loads(kept.read_text())) == 4 * 3

    monkeypatch.setattr(finetuning.Task, "_trained", lambda *args: pytest.fail("it was trained before"))
    assert finetuning.rows_of(finetuning.Task(task, weights, kept), seeds=2) == rows
