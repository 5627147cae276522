"""What a reader walks through in one step: files, functions, calls and frames of the library, counted.

    python benchmarks/anatomy.py [--method bisam]

One step of the loop on the digits network, whose passes do not count: a call counts where its code lies in the library.
The first step prepares what later ones reuse, so the third is counted. *Frames* are the library's own between the
user's loop and the first write to a weight. *Functions* are distinct ones; generator expressions and comprehensions are
functions of their own here where the Python version makes them so.
"""

import argparse
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn

import bisam

#: Where a call must lie to be counted.
LIBRARY = str(Path(bisam.__file__).parent)


class Anatomy:
    """Counts the library's calls while it is the profiler, and its frames at the first write to a weight."""

    def __init__(self, weight: torch.Tensor) -> None:
        self.calls = 0
        self.functions: set[tuple[str, str, int]] = set()
        self.frames: int | None = None
        self._weight, self._version = weight, weight._version

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(LIBRARY):
            self.calls += 1
            self.functions.add(
                (
                    code.co_filename,
                    code.co_qualname if sys.version_info >= (3, 11) else code.co_name,
                    code.co_firstlineno,
                )
            )
        elif event == "c_return" and self.frames is None and self._weight._version != self._version:
            self.frames = sum(name.startswith(LIBRARY) for name in _files(frame))

    @property
    def files(self) -> int:
        """Number of distinct files."""
        return len({file for file, _, _ in self.functions})


def _files(frame: FrameType | None) -> list[str]:
    names = []
    while frame is not None:
        names.append(frame.f_code.co_filename)
        frame = frame.f_back
    return names


def digits_network() -> nn.Module:
    """Return the network of the digits recipe: three convolutions with BatchNorm and a head."""
    from bisam_lab.models import build_model
    from bisam_lab.recipe import load

    torch.manual_seed(0)
    return build_model(load("digits").model, (1, 8, 8), 10)


def step(
    opt: Any, model: Callable[..., torch.Tensor], x: torch.Tensor, y: torch.Tensor, profiler: Anatomy | None
) -> None:
    """Take one step; the library alone is profiled, not the passes."""
    loop = opt.passes()
    while True:
        sys.setprofile(profiler)
        objective = next(loop, None)
        sys.setprofile(None)
        if objective is None:
            break
        output = model(x)
        sys.setprofile(profiler)
        loss = objective(output, y)
        sys.setprofile(None)
        loss.backward()
    sys.setprofile(profiler)
    opt.step()
    opt.zero_grad()
    sys.setprofile(None)


def main() -> None:
    """Count one step of a method, and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="bisam", help="a key of bisam.METHODS")
    args = parser.parse_args()
    model = digits_network()
    opt = bisam.METHODS[args.method](torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9), model=model)
    x, y = torch.randn(64, 1, 8, 8), torch.randint(0, 10, (64,))
    for _ in range(2):
        step(opt, model, x, y, None)
    seen = Anatomy(next(model.parameters()))
    step(opt, model, x, y, seen)
    tensors = sum(1 for _ in model.parameters())
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    print(f"a step of {args.method}, a network of {tensors} tensors, {versions}")
    print(
        f"files {seen.files}, functions {len(seen.functions)}, calls {seen.calls}, "
        f"frames to the first write {seen.frames}"
    )


if __name__ == "__main__":
    main()
