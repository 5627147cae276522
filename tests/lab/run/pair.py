"""One of two processes that train together: takes every run of this file, and leaves each in a folder of its own.

``python -m tests.lab.run.pair FOLDER``, with the variables that torchrun sets.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import traceback
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent.parent.parent
#: 96 examples in batches of 33: 17 and 16 of them, and in the last batch 15 and 15.
SMALL = (
    *("data.train_size=96", "data.validation_size=51", "data.test_size=101", "train.batch_size=33"),
    *("model.options.width=8", "model.options.norm=group", "train.epochs=2", "engine.accelerator=cpu"),
    *("train.clip=1", "sharpness.rho=0.5"),
)
DOUBLE = (*SMALL, "engine.precision=64-true")
#: Batches of three, of which one process has nothing, and a last one of four.
FEW = (*DOUBLE, "data.train_size=10", "train.batch_size=3")
FROZEN = (*SMALL, f"model.name={__file__}:Frozen")
SYNC = ("sharpness.sync_ascent=true",)
DDP, FSDP = (("engine.devices=2", f"engine.strategy={name}") for name in ("ddp", "fsdp"))
#: Name of the run: what is trained by two, what by one that it is to equal.
SAME = {
    "ddp-sam": ("sam", (*DOUBLE, *SYNC, *DDP)),
    "ddp-bisam": ("bisam-log", (*DOUBLE, *SYNC, *DDP)),
    "ddp-looksam": ("looksam", (*DOUBLE, *DDP)),
    "ddp-gsam": ("gsam", (*DOUBLE, *DDP)),
    "ddp-adamw": ("sam", (*DOUBLE, *SYNC, *DDP, "train.optimizer=adamw", "train.lr=0.01", "train.momentum=0.9")),
    "ddp-few": ("sam", (*FEW, *SYNC, *DDP)),
    "fsdp-sam": ("sam", (*SMALL, *FSDP)),
    "fsdp-bisam": ("bisam-log", (*SMALL, *FSDP)),
    "fsdp-frozen": ("looksam", (*FROZEN, *FSDP, "train.epochs=12")),
    "fsdp-few": ("sam", (*SMALL, *FEW[-2:], *FSDP)),
}
#: Each climbs its own gradient: that is mSAM's, with as many micro-batches as processes.
LOCAL = ("sam", (*DOUBLE, *DDP))
NORMS = ("sam", (*SMALL, *DDP, "model.options.norm=batch"))
#: Long enough to be killed in, by a test of the command.
LONG = (LOCAL[0], (*LOCAL[1], "train.epochs=20"))
#: Begun by one process, and gone on with by two.
BEGUN = {"begun-ddp": SAME["ddp-sam"], "begun-fsdp": SAME["fsdp-bisam"]}
#: The second process is told to leave in the middle of the second epoch.
STOPPED = {"ddp": LOCAL, "fsdp": SAME["fsdp-bisam"], "ddp-noise": ("sam", (*DOUBLE, *SYNC, *DDP))}


class Frozen(torch.nn.Module):
    """A layer outside of blocks, of which FSDP keeps the gathered weights after a pass that has no backward one."""

    def __init__(self, num_classes, width, norm):
        super().__init__()
        self.first = torch.nn.Linear(64, width).requires_grad_(False)
        layers = (
            torch.nn.LayerNorm(width),
            torch.nn.Linear(width, 256),
            torch.nn.ReLU(),
            torch.nn.Linear(256, num_classes),
        )
        self.body = torch.nn.Sequential(*layers)

    def forward(self, x):
        return self.body(self.first(x.flatten(1)))


def start(folder):
    """Start two processes that find each other, and return them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    env = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(
            [sys.executable, "-m", "tests.lab.run.pair", str(folder)],
            cwd=ROOT,
            env={**env, "RANK": str(r), "LOCAL_RANK": str(r)},
        )
        for r in range(2)
    ]


def train(name, kind, folder, observer=None):
    from bisam_lab.recipe import load
    from bisam_lab.run.result import Run
    from bisam_lab.study.spread import run_spread

    method, fields = kind
    recipe = load("digits", [*fields, f"methods=[{method}]"])
    return run_spread(recipe, Run("", 0, method), folder / name, observer=observer, keep=True)


def stopped(name, kind, folder):
    """Train until SIGTERM comes to the second process alone; both must leave, with the exit code of a signal."""
    from rich.console import Console

    from bisam_lab.cli.watch import Watch

    class Told(Watch):
        left = 5 if os.environ["RANK"] == "1" else -1

        def step(self, *place):
            self.left -= 1
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGTERM)
                os.kill(os.getpid(), signal.SIGTERM)  # the launcher's, beside the scheduler's

    try:
        with Told(2, Console(quiet=True), patient=True) as watch:
            train(name, kind, folder, watch)
    except KeyboardInterrupt:
        return
    raise AssertionError("it has not stopped")


def main(folder):
    torch.set_num_threads(1)
    rank = int(os.environ["RANK"])
    whole = {**SAME, **BEGUN, "ddp-local": LOCAL, "ddp-norms": NORMS, "long": LONG}
    for name, kind in whole.items():
        result = train(name, kind, folder)
        (folder / f"{name}.{rank}").write_text(repr((result.test_score, [e.train_loss for e in result.history])))
    for name, kind in STOPPED.items():
        stopped(f"stopped-{name}", kind, folder)
        if rank == 0:
            shutil.copytree(folder / f"stopped-{name}", folder / f"kept-{name}")
        train(f"stopped-{name}", kind, folder)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
        os._exit(1)
