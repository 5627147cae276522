"""Trains in two CPU processes; each writes what it ended with. Run by test_transformers.py.

It forks them itself, with accelerate's launcher for that, because importing transformers takes longer than all the
rest. By hand, and with the launchers that people use:

    torchrun --nproc_per_node 2 two_process_trainer.py FOLDER
    ACCELERATE_USE_CPU=true accelerate launch --multi_gpu --num_processes 2 two_process_trainer.py FOLDER
"""

import functools
import hashlib
import json
import os
import sys
from pathlib import Path

import torch
from accelerate import debug_launcher

from bisam.integrations.transformers import SharpnessAwareTrainer
from bisam.testing import bits
from tests.integrations.test_transformers import Rows, arguments, classifier
from tests.makers import MAKERS


def train(folder: Path, method: str) -> dict[str, object]:
    """Three steps of two micro-batches; the first of them is accumulated without communication."""
    model = classifier()
    before = bits(model)
    make = functools.partial(MAKERS[method], rho=0.2)
    args = arguments(folder / method, per_device_train_batch_size=2, gradient_accumulation_steps=2, max_grad_norm=0.5)
    trainer = SharpnessAwareTrainer(model, args, train_dataset=Rows(), sharpness=make)
    trainer.train()
    opt = trainer.sharpness_aware
    return {
        "digest": hashlib.sha256(b"".join(bits(model))).hexdigest(),
        "moved": bits(model) != before,
        "model": type(opt.model).__name__,
        "steps": opt.param_groups[0]["sharpness_steps"],
        "perturbed": opt.last.perturbed,
        "ascent": opt.last.ascent_value,
        "world": args.world_size,
    }


def work(folder: str) -> None:
    torch.set_num_threads(1)
    found = {method: train(Path(folder), method) for method in ("sam", "bisam")}
    (Path(folder) / f"rank{torch.distributed.get_rank()}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    if "RANK" in os.environ:
        work(sys.argv[1])
        torch.distributed.destroy_process_group()
    else:
        debug_launcher(work, (sys.argv[1],), num_processes=2)
