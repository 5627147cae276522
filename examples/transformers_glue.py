"""Train a small transformer from scratch on a GLUE task, or fine-tune one, with BiSAM in the Hugging Face Trainer.

    python examples/transformers_glue.py                                    # a built-in toy set, in seconds
    python examples/transformers_glue.py --data glue --task sst2            # glue/SST-2/train.tsv and dev.tsv
    python examples/transformers_glue.py --data glue --task sst2 --resume   # goes on from the last checkpoint
    python examples/transformers_glue.py --data glue --task rte --model data/minilm-l6 --lr 1e-4           # fine-tuning
    python examples/transformers_glue.py --data glue --task rte --model data/minilm-l6 --lora 8            # adapters

It needs ``bisam[lab,transformers]``. `bisam data fetch minilm-l6` gets weights for ``--model``. Without it nothing is
downloaded: the model starts at random and the vocabulary is that of the training text, so accuracies are those of a
small model, not those of the leaderboard. With ``--rho 0`` it is the plain Trainer, for comparison.
"""

import argparse
import functools
import itertools
import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    DataCollatorWithPadding,
    EvalPrediction,
    PreTrainedTokenizerFast,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_utils import get_last_checkpoint

from bisam import METHODS
from bisam.integrations.transformers import SharpnessAwareTrainer
from bisam_lab.datasets import Sample
from bisam_lab.datasets.sets.glue import TASKS, Task, read_tsv

SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}


def read(folder: Path, task: Task, split: str) -> list[Sample]:
    """Read ``train.tsv`` or ``dev.tsv`` from GLUE's folder, or from the task's."""
    inner = folder / task.folder
    return read_tsv((inner if inner.is_dir() else folder) / f"{split}.tsv", task)


def toy() -> tuple[list[Sample], list[Sample]]:
    """Opinions of films, one sentence for every choice of words, a fifth of them held out."""
    opinions = {0: ("dull", "bad", "boring", "awful"), 1: ("fine", "good", "moving", "great")}
    choices = itertools.product((0, 1), ("the", "this", "that"), ("film", "plot", "ending", "cast"), range(4))
    samples = [Sample((f"{the} {noun} is {opinions[label][i]} .",), label) for label, the, noun, i in choices]
    random.Random(0).shuffle(samples)
    return samples[len(samples) // 5 :], samples[: len(samples) // 5]


def tokenizer_of(samples: list[Sample], words: int = 20_000) -> PreTrainedTokenizerFast:
    """Make a tokenizer of the most frequent lower-case words, and [CLS] and [SEP] around one text or two."""
    made = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(vocab_size=words, special_tokens=list(SPECIAL.values()), show_progress=False)
    made.train_from_iterator((text for sample in samples for text in sample.texts), trainer)
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(mark, made.token_to_id(mark)) for mark in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(tokenizer_object=made, **SPECIAL)


def network(source: Path | None, rank: int | None, tokenizer: Any, classes: int) -> Any:
    """Return a small model at random, or that of a folder with a new head; with adapters where a rank is given."""
    if source is not None:
        model: Any = AutoModelForSequenceClassification.from_pretrained(source, num_labels=classes)
    else:
        sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
        places = {"vocab_size": len(tokenizer), "max_position_embeddings": 128, "pad_token_id": tokenizer.pad_token_id}
        model = BertForSequenceClassification(BertConfig(**sizes, **places, num_labels=classes))
    if rank is None:
        return model
    from peft import LoraConfig, get_peft_model

    return get_peft_model(model, LoraConfig(task_type="SEQ_CLS", r=rank, lora_alpha=2 * rank))


def encode(samples: list[Sample], tokenizer: PreTrainedTokenizerFast) -> list[dict[str, Any]]:
    """Turn texts into what the Trainer takes; batches are padded as they are made."""
    return [{**tokenizer(*s.texts, truncation=True, max_length=128), "labels": s.label} for s in samples]


def accuracy(prediction: EvalPrediction) -> dict[str, float]:
    """Count what is right."""
    logits, labels = prediction  # two arrays
    return {"accuracy": float((logits.argmax(-1) == labels).mean())}


class LogsLossAtW(SharpnessAwareTrainer):
    """Logs the loss at w beside the Trainer's own, which is that of the last pass, at w + eps."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.at_w: list[Tensor] = []

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """Train on a micro-batch, and keep its loss at w, where the method has a pass there."""
        loss = super().training_step(*args, **kwargs)
        at_w = self.sharpness_aware.last.loss
        if at_w is not None:
            self.at_w.append(at_w)
        return loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Add the mean over the steps since the last entry; a step's loss is the sum over its micro-batches."""
        if "loss" in logs and self.at_w:
            mean = torch.stack(self.at_w).mean()
            logs["loss_at_w"] = self.args.gradient_accumulation_steps * mean.item()
            self.at_w.clear()
        super().log(logs, *args, **kwargs)


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Train, evaluate, and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of GLUE, or of the task; without it, the toy set")
    parser.add_argument("--task", choices=sorted(TASKS), default="sst2")
    parser.add_argument("--method", choices=sorted(METHODS), default="bisam")
    parser.add_argument("--rho", type=float, default=0.05)
    parser.add_argument("--model", type=Path, help="folder of pretrained weights; without it, a small one from scratch")
    parser.add_argument("--lora", type=int, metavar="R", help="train adapters of this rank, and the head, alone")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--epochs", type=float, help="3 by default, and 20 of the toy set")
    parser.add_argument("--max-steps", type=int, default=-1, help="stop after so many steps")
    parser.add_argument("--save-steps", type=int, help="write a checkpoint every so many steps; default: every epoch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("glue-run"))
    parser.add_argument(
        "--resume", action="store_true", help="go on from the last checkpoint in --out, if there is one"
    )
    parser.add_argument("--cpu", action="store_true")
    options = parser.parse_args(argv)
    last = get_last_checkpoint(str(options.out)) if options.out.is_dir() else None
    if last is not None and not options.resume:
        parser.error(f"{last} is there from an earlier run: --resume goes on from it, another --out starts anew")
    if options.resume:
        print(f"going on from {last}" if last else f"no checkpoint in {options.out} yet: starting anew", flush=True)

    set_seed(options.seed)
    if options.data is None:
        train, dev = toy()
        options.epochs = options.epochs or 20
    else:
        task = TASKS[options.task]
        train, dev = (read(options.data, task, split) for split in ("train", task.dev))
    classes = 1 + max(sample.label for sample in train)
    tokenizer = tokenizer_of(train) if options.model is None else AutoTokenizer.from_pretrained(options.model)
    model = network(options.model, options.lora, tokenizer, classes)
    trainer = LogsLossAtW(
        model=model,
        args=TrainingArguments(
            output_dir=str(options.out),
            per_device_train_batch_size=32,
            per_device_eval_batch_size=128,
            num_train_epochs=options.epochs or 3,
            max_steps=options.max_steps,
            learning_rate=options.lr,
            weight_decay=0.01,
            warmup_steps=0.1,  # a share of all steps
            label_smoothing_factor=0.1,  # as in the BiSAM paper
            eval_strategy="epoch",
            save_strategy="steps" if options.save_steps else "epoch",
            save_steps=options.save_steps or 500,
            save_total_limit=1,
            logging_steps=50,
            report_to="none",
            seed=options.seed,
            use_cpu=options.cpu,
        ),
        train_dataset=encode(train, tokenizer),
        eval_dataset=encode(dev, tokenizer),
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=accuracy,
        sharpness=functools.partial(METHODS[options.method], rho=options.rho),
    )
    trainer.train(resume_from_checkpoint=last)
    found = trainer.evaluate()
    print(f"{options.method}, rho {options.rho}: {100 * found['eval_accuracy']:.1f} % of {len(dev)} right")
    return found


if __name__ == "__main__":
    main()
