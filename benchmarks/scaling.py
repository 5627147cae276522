"""What methods need at scale: counted and timed in small, and multiplied out for a large model and a large study.

    python benchmarks/scaling.py [--out results/scaling.json]

Counted: the vectors as large as the weights that a step keeps while its last pass runs, and what a step sends. Timed:
how long a folder of finished runs takes to be read and reported. The rest of this file is arithmetic on these numbers.
"""

import argparse
import gc
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from bench import machine
from contestants import CONTESTANTS
from torch import nn
from torch._C._distributed_c10d import HashStore  # torch.distributed has it under no exported name
from torch.distributed.fsdp import fully_shard

from bisam import METHODS
from bisam_lab.results import Study
from bisam_lab.study.files import read_results

ROOT = Path(__file__).parent.parent
#: Runs in a folder that are read and reported.
SIZES = (100, 300, 1000)

# -- arithmetic --------------------------------------------------------------------------------------------------------

#: Vectors as large as the weights beside weights, gradient and the base optimizer's state, while the last pass runs: w
#: itself; the gradient at w where it is combined; what is remembered, and its next value until the step is over.
VECTORS = {
    **dict.fromkeys(METHODS, 1),
    **dict.fromkeys(("gsam", "wsam", "stablesam", "asyncsam", "ssam"), 2),
    **dict.fromkeys(("friendlysam", "vasso", "looksam"), 3),
    "samon": 0,
}
#: Of these the ones that a checkpoint holds, beside the weights and the base optimizer's state.
REMEMBERED = {**dict.fromkeys(METHODS, 0), **dict.fromkeys(("friendlysam", "vasso", "looksam", "asyncsam", "ssam"), 1)}


class Layout(NamedTuple):
    """How a training is spread.

    Attributes:
        sharding: ``"replicas"`` (DDP), ``"zero"`` (ZeroRedundancyOptimizer) or ``"fsdp"`` (fully_shard).
        devices: how many.
        units: modules of equal size that FSDP2 gathers one by one.
        gathered: bytes of a gathered weight: 4, or 2 with ``MixedPrecisionPolicy(param_dtype=torch.bfloat16)``.
        state: vectors of the base optimizer: 1 for SGD with momentum, 2 for AdamW.
    """

    sharding: str
    devices: int
    units: int = 1
    gathered: int = 4
    state: int = 2


def memory(weights: float, vectors: float, layout: Layout) -> float:
    """Bytes on a device, activations not counted: weights, gradient, optimizer state and the method's, in float32.

    FSDP2 holds two gathered units besides, the one at work and the next.
    """
    if layout.sharding == "fsdp":
        gathered = 2 * weights / layout.units * layout.gathered
        return 4 * weights * (2 + layout.state + vectors) / layout.devices + gathered
    shared = layout.devices if layout.sharding == "zero" else 1
    return 4 * weights * (2 + layout.state / shared + vectors)


def checkpoint(weights: float, remembered: int, state: int = 2) -> float:
    """Bytes of a checkpoint in float32: the weights, the base optimizer's state and what the method remembers."""
    return 4 * weights * (1 + state + remembered)


def sent_by_ddp(weights: float, passes: int, *, local: bool, word: int = 4) -> float:
    """Bytes that are averaged in a step: the gradient of each pass, but for an ascent that each worker climbs alone."""
    return weights * word * (passes - 1 if local else passes)


def sent_by_fsdp(inner: float, outer: float, passes: int, word: int = 4, reduced: int = 4) -> tuple[float, float]:
    """Bytes that are gathered and scattered in a step, numbers for norms not counted.

    Args:
        inner: weights of the units that are gathered again in backward().
        outer: weights of the root, which stay gathered from forward to backward.
        passes: of the step.
        word: bytes of a gathered weight.
        reduced: bytes of an entry of a gradient that is scattered.
    """
    return passes * word * (2 * inner + outer), passes * reduced * (inner + outer)


def gpu_hours(weights: float, tokens: float, passes: float, *, peak: float = 989e12, used: float = 0.4) -> float:
    """Hours of a device for a training: 6 FLOPs a weight and token in each pass, at a share ``used`` of the peak."""
    return 6 * weights * tokens * passes / (peak * used) / 3600


def exponent(sizes: list[int], values: list[float]) -> float:
    """The power of the size with which a value grows: the slope through logarithms, by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def extrapolated(sizes: list[int], values: list[float], to: float) -> float:
    """The last value, grown with the measured power, but at least in proportion to the size."""
    return float(values[-1] * (to / sizes[-1]) ** max(1.0, exponent(sizes, values)))


# -- memory, counted ---------------------------------------------------------------------------------------------------


def network() -> nn.Module:
    """One large matrix, and a norm layer for SAM-ON."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(300, 300), nn.LayerNorm(300))


def _live() -> int:
    """Bytes of all tensors that are alive and were made since ``gc.freeze()``."""
    gc.collect()
    storages = {}
    for tensor in [one for one in gc.get_objects() if type(one) in (torch.Tensor, nn.Parameter)]:
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
    return sum(storages.values())


def kept_vectors(name: str, *, sharded: bool = False) -> float:
    """Vectors beside the weights and the momentum of SGD that are alive when the last pass of a step begins."""
    gc.freeze()  # what is alive now does not count, and need not be looked through
    model = network()
    if sharded:
        fully_shard(model)
    size = sum(p.numel() * p.itemsize for p in model.parameters())
    always = {"lambda_1": -9.0, "lambda_2": -9.0} if name == "aesam" else {}  # every step perturbs
    opt = CONTESTANTS[name](torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9), model=model, **always)
    x, y = torch.randn(4, 300), torch.randint(0, 300, (4,))
    steps = 6 if "looksam" in name else 3  # the last one perturbs and has a memory
    for step in range(steps):
        for objective in opt.passes():
            alive = _live() if step == steps - 1 else 0
            objective(model(x), y).backward()
        opt.step()
        opt.zero_grad()
    gc.unfreeze()
    return alive / size - 2


def _of_one_process() -> Iterator[tuple[str, float]]:
    """The vectors of each method under fully_shard, in a group of one process."""
    dist.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    try:
        for name in METHODS:
            yield name, round(kept_vectors(name, sharded=True), 2)
    finally:
        dist.destroy_process_group()


# -- communication, counted by the worker of the tests -----------------------------------------------------------------


def communication() -> dict[str, Any]:
    """What a step of each method sends, between two processes."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.distributed.mesh_worker", f"{folder}/meet", f"{folder}/seen"]
        subprocess.run(command, cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
        seen = torch.load(f"{folder}/seen.0", weights_only=False)["communication"]
    return {name: [_told(seen["ddp", name][n], seen["fsdp", name][n]) for n in _kinds(seen, name)] for name in METHODS}


def _kinds(seen: dict[Any, Any], name: str) -> range:
    return range(len(seen["ddp", name]))


def _told(ddp: Any, fsdp: Any) -> dict[str, Any]:
    numbers = [nbytes for what, nbytes in fsdp[1] if what == "all_reduce"]
    weights = [nbytes for what, nbytes in fsdp[1] if what != "all_reduce"]
    return {
        "passes": ddp[0],
        "ddp": [len(ddp[1]), sum(nbytes for _, nbytes in ddp[1])],
        "fsdp": [len(weights), sum(weights)],
        "norms": [len(numbers), sum(numbers)],
    }


# -- the folder of a study ---------------------------------------------------------------------------------------------


def storage(folder: Path) -> dict[str, Any]:
    """Files and bytes of a run of digits and of the study around it; the run's seconds."""
    from bisam_lab import compare  # as a notebook does

    compare("digits", methods=("sgd", "sam"), seeds=2, out=folder)
    run = [path for path in (folder / "runs" / "sam" / "seed-0").rglob("*") if path.is_file()]
    every = [path for path in folder.rglob("*") if path.is_file() and "runs" not in path.relative_to(folder).parts]
    seconds = [result.seconds for result in read_results(folder)[0]]
    return {
        "run": {"files": len(run), "bytes": sum(path.stat().st_size for path in run)},
        "study": {"files": len(every), "bytes": sum(path.stat().st_size for path in every)},
        "seconds": sum(seconds) / len(seconds),
    }


def many(source: Path, folder: Path, runs: int) -> Path:
    """Write a study of so many finished runs: copies of the results of ``source`` under other seeds."""
    folder.mkdir(parents=True)
    recipe = (source / "recipe.yaml").read_text()
    (folder / "recipe.yaml").write_text(recipe.replace("\nseeds: 2\n", f"\nseeds: {runs // 2}\n", 1))
    (folder / "study.json").write_text((source / "study.json").read_text())
    for method in ("sgd", "sam"):
        results = [json.loads((source / f"runs/{method}/seed-{n}/result.json").read_text()) for n in (0, 1)]
        for seed in range(runs // 2):
            place = folder / "runs" / method / f"seed-{seed}"
            place.mkdir(parents=True)
            (place / "result.json").write_text(json.dumps(results[seed % 2] | {"seed": seed}))
    return folder


def driver(source: Path, folder: Path) -> dict[str, Any]:
    """Seconds that a study's folder takes to be read and to be reported, and the bytes of its page."""
    seen: dict[str, list[float]] = {"runs": [], "read": [], "table": [], "report": [], "page": []}
    for runs in SIZES:
        place = many(source, folder / str(runs), runs)
        study = Study(place)
        seen["runs"].append(runs)
        seen["read"].append(_timed(read_results, place))
        seen["table"].append(_timed(study.table, "sgd"))
        seen["report"].append(_timed(study.report, place / "report.html"))
        seen["page"].append((place / "report.html").stat().st_size)
    return seen


def _timed(call: Callable[..., Any], *args: Any) -> float:
    """Seconds of the processor, the least of three: one thread works, and the machine may be busy."""
    seconds = []
    for _ in range(3):
        start = time.process_time()
        call(*args)
        seconds.append(time.process_time() - start)
    return min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "scaling.json")
    parser.add_argument(
        "--only", choices=("memory", "communication", "folders"), help="measure that, and keep the rest"
    )
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    kept = json.loads(args.out.read_text()) if args.out.is_file() else {}
    kept |= {"date": time.strftime("%Y-%m-%d"), "machine": machine()}
    if args.only in (None, "memory"):
        kept["vectors"] = dict(_of_one_process())
    if args.only in (None, "communication"):
        kept["communication"] = communication()
    if args.only in (None, "folders"):
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "source"
            kept |= {"storage": storage(source), "driver": driver(source, Path(folder))}
    args.out.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
