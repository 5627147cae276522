"""What a step moves beside its passes: counted, so that no noise of the machine is in it.

    python benchmarks/traffic.py [--methods sam,gsam] [--dtype bfloat16] [--list]

For each method: the operations dispatched before, between and after the passes of a step, and how many vectors as large
as the weights they write and read. Of a method whose steps differ in their passes each kind is a row. The first step,
which furnishes the memory, does not count.
"""

import argparse
import warnings
from collections import Counter

import torch
from contestants import CONTESTANTS
from torch import nn
from workloads import base

from bisam.testing import count_around_passes, count_operations

#: Steps that are counted: a cycle of LookSAM's, and one on which no mask is redrawn.
STEPS = 6


def network(dtype: torch.dtype) -> nn.Module:
    """Eight layers of 128 x 128 with their normalisation."""
    torch.manual_seed(0)
    layers = [part for _ in range(8) for part in (nn.Linear(128, 128), nn.LayerNorm(128))]
    return nn.Sequential(*layers).to(dtype)


def count(name: str, dtype: torch.dtype = torch.float32) -> dict[int, list[count_operations]]:
    """Count one method's steps, and return for each number of passes the first step's gaps."""
    model = network(dtype)
    opt = CONTESTANTS[name](base(model), model=model)
    x, y = torch.randn(16, 128, dtype=dtype), torch.randint(0, 128, (16,))
    seen = {}
    for number in range(STEPS + 1):
        gaps = count_around_passes(model, opt, x, y)
        opt.step()
        opt.zero_grad()
        if number:
            seen[len(gaps) - 1] = gaps
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default=",".join(CONTESTANTS))
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--list", action="store_true", help="name the operations too")
    args = parser.parse_args()
    dtype = getattr(torch, args.dtype)
    warnings.simplefilter("ignore")  # of coarse weights
    size = sum(p.numel() * p.itemsize for p in network(dtype).parameters())
    print(f"torch {torch.__version__}, {args.dtype}\n  {'method':16} passes  operations  written   read")
    for name in args.methods.split(","):
        for passes, gaps in sorted(count(name, dtype).items()):
            names = [operation for gap in gaps for operation in gap.names]
            written, read = sum(gap.written for gap in gaps), sum(gap.read for gap in gaps)
            print(f"  {name:16} {passes:6} {len(names):11} {written / size:8.2f} {read / size:6.2f}")
            if args.list:
                print("   ", ", ".join(f"{n} {operation}" for operation, n in Counter(names).most_common()))


if __name__ == "__main__":
    main()
