"""Fine-tuning MiniLM-L6 on GLUE through the Hugging Face Trainer: AdamW, SAM and BiSAM on paired seeds, tuned alike.

    bisam data fetch minilm-l6 --data-dir data
    python benchmarks/finetuning.py sst2 sst2-lora rte --data-dir data     # and mrpc, cola, each also with -lora

A seed draws the training examples, the head, the dropout and the order. Each contestant tries three values on another
seed: AdamW its rate, the others their radius at the rate that AdamW has chosen. Other examples of the training file
choose; GLUE's dev sets are read in the comparison alone. Every run is kept in OUT, so the same command goes on where it
stopped. The numbers are written to ``results/finetune.json``, from which ``docs/tables.py`` draws the page.
"""

import argparse
import functools
import json
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.utils import logging

from bisam import METHODS, SharpnessAware
from bisam.integrations.transformers import SharpnessAwareTrainer
from bisam_lab.datasets import Sample
from bisam_lab.datasets.sets.glue import TASKS, read_tsv
from bisam_lab.registry.metrics import METRICS
from bisam_lab.statistics.tuned import markdown, tuned

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results" / "finetune.json"
#: Rates of AdamW that a whole network and adapters try, and radii.
RATES = {"": (3e-5, 1e-4, 3e-4), "lora": (3e-4, 1e-3, 3e-3)}
RADII = (0.02, 0.05, 0.2)
SHARP = ("sam", "bisam-log", "bisam-tanh")
SCORES = {"cola": "matthews", "mrpc": "f1"}
TRAINED, VALIDATED, TESTED, EPOCHS, BATCH, LENGTH = 256, 100, 300, 2, 16, 64


class Task:
    """A task of GLUE with the pretrained weights, and what of it has been trained in a file."""

    def __init__(self, name: str, data_dir: Path, kept: Path) -> None:
        self.task, _, self.adapters = name.partition("-")
        self.weights, self.kept = data_dir / "minilm-l6", kept
        self.tokenizer = AutoTokenizer.from_pretrained(self.weights)
        given = TASKS[self.task]
        folder = data_dir / "glue" / given.folder
        self.train, dev = (read_tsv(folder / f"{part}.tsv", given) for part in ("train", given.dev))
        self.dev = self.encoded(dev[:TESTED])
        self.metric = METRICS[SCORES.get(self.task, "accuracy")]
        self.scores: dict[str, list[float]] = json.loads(kept.read_text()) if kept.exists() else {}

    def encoded(self, samples: list[Sample]) -> list[dict[str, Any]]:
        """Turn texts into what the Trainer takes."""
        return [{**self.tokenizer(*s.texts, truncation=True, max_length=LENGTH), "labels": s.label} for s in samples]

    def trained(self, method: str, rate: float, rho: float, seed: int) -> list[float]:
        """Train once, and return the scores on other training examples and on the dev set."""
        key = f"{method} {rate:g} {rho:g} {seed}"
        if key not in self.scores:
            begun = time.perf_counter()
            self.scores[key] = self._trained(method, rate, rho, seed)
            fresh = self.kept.with_suffix(".new")
            fresh.write_text(json.dumps(self.scores, indent=0))
            fresh.replace(self.kept)
            print(f"{self.kept.stem}, {key}: {self.scores[key]} in {time.perf_counter() - begun:.0f} s", flush=True)
        return self.scores[key]

    def _trained(self, method: str, rate: float, rho: float, seed: int) -> list[float]:
        set_seed(seed)
        drawn = torch.randperm(len(self.train))[: TRAINED + VALIDATED]
        train, validation = (
            self.encoded([self.train[i] for i in part]) for part in drawn.split([TRAINED, len(drawn) - TRAINED])
        )
        model = AutoModelForSequenceClassification.from_pretrained(self.weights, num_labels=2)
        if self.adapters:
            from peft import LoraConfig, get_peft_model

            model = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", r=8, lora_alpha=16))
        with tempfile.TemporaryDirectory() as out:
            given: dict[str, Any] = {
                "model": model,
                "args": _arguments(out, rate, seed),
                "train_dataset": train,
                "data_collator": DataCollatorWithPadding(self.tokenizer),
            }
            if method == "adamw":
                trainer = Trainer(**given)
            else:
                trainer = SharpnessAwareTrainer(**given, sharpness=functools.partial(_factory(method), rho=rho))
            trainer.train()
            return [self._score(trainer, part) for part in (validation, self.dev)]

    def _score(self, trainer: Trainer, samples: list[dict[str, Any]]) -> float:
        logits = torch.as_tensor(trainer.predict(samples).predictions)  # type: ignore[arg-type]
        return round(self.metric.score(logits.argmax(-1), torch.tensor([sample["labels"] for sample in samples])), 6)


def _factory(method: str) -> Callable[..., SharpnessAware]:
    name, _, bound = method.partition("-")
    return functools.partial(METHODS[name], bound=bound) if bound else METHODS[name]


def _arguments(out: str, rate: float, seed: int) -> TrainingArguments:
    return TrainingArguments(
        output_dir=out,
        per_device_train_batch_size=BATCH,
        per_device_eval_batch_size=100,
        num_train_epochs=EPOCHS,
        learning_rate=rate,
        weight_decay=0.01,
        warmup_steps=0.1,  # a share of all steps
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=seed,
        use_cpu=not torch.cuda.is_available(),
    )


def rows_of(task: Task, seeds: int) -> list[dict[str, Any]]:
    """Tune and compare the contestants."""

    def of_rate(part: int, method: str, rate: float, seed: int) -> float:
        return task.trained(method, rate, 0.0, seed)[part]

    def of_radius(part: int, method: str, rho: float, seed: int) -> float:
        return task.trained(method, rows[0]["chosen"], rho, seed)[part]

    rows: list[dict[str, Any]] = []
    for number, grids in ((of_rate, {"adamw": RATES[task.adapters]}), (of_radius, dict.fromkeys(SHARP, RADII))):
        validation, test = (functools.partial(number, part) for part in (0, 1))
        rows += tuned(test, grids, tuning=[0], seeds=range(1000, 1000 + seeds), validation=validation, tell=print)
    return rows


def main() -> None:
    """Tune, compare, print the table, and keep the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "tasks", nargs="+", choices=[t + end for t in ("sst2", "mrpc", "rte", "cola") for end in ("", "-lora")]
    )
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("studies/finetuning"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.tasks:
        task = Task(name, args.data_dir, args.out / f"{name}.json")
        rows = rows_of(task, args.seeds)
        print(markdown(rows, ["adamw", "sam"], f"{task.metric.label} %"))
        kept = json.loads(args.results.read_text()) if args.results.exists() else {}
        kept[f"finetune-{name}"] = {
            "date": time.strftime("%Y-%m-%d"),
            "command": f"python benchmarks/finetuning.py {name} --data-dir data --seeds {args.seeds}",
            "machine": f"{platform.machine()}, one thread, torch {torch.__version__.partition('+')[0]}",
            "metric": task.metric.label,
            "sizes": {"trained": TRAINED, "validation": VALIDATED, "test": len(task.dev), "epochs": EPOCHS},
            "tuning": {"values": len(RADII), "seeds": 1},
            "rows": rows,
        }
        args.results.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
