"""All targets of cost: measured side by side in one run, printed as a table, and kept as JSON.

    python benchmarks/bench.py [--only objective,step] [--rounds 15] [--out results/targets.json]

Every number is a ratio to something timed in the same round of the same process: the median of the rounds, with
quartiles. glibc's thresholds are set high, so that large tensors reuse their pages: page faults of fresh allocations
take as long as the arithmetic, and differ from run to run.
"""

import argparse
import dataclasses
import importlib
import json
import os
import platform
import sys
from datetime import date
from pathlib import Path

#: glibc keeps what is freed, and takes small and large memory from one heap. Read when a process starts.
ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 32),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 36),
    "MALLOC_TOP_PAD_": str(1 << 28),
    "MALLOC_ARENA_MAX": "1",
}
#: Each is a file here with ``targets(rounds)``, which yields :class:`target.Target` objects.
SECTIONS = ("objective", "step", "startup", "stacking")


def main() -> int:
    """Measure, print and keep the targets of the chosen sections."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    there = [name for name in SECTIONS if (Path(__file__).parent / f"{name}.py").is_file()]
    parser.add_argument("--only", default=",".join(there), help=f"among {', '.join(there)}")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "results" / "targets.json")
    args = parser.parse_args()
    if any(os.environ.get(name) != value for name, value in ALLOCATOR.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ALLOCATOR})

    known = json.loads(args.out.read_text())["sections"] if args.out.is_file() else {}
    print(machine(), flush=True)
    for name in args.only.split(","):
        if name not in there:
            parser.error(f"--only {name}: choose among {', '.join(there)}")
        print(f"\n{name}\n{'':72} {'target':>7} {'median':>7}  quartiles", flush=True)
        rows = []
        for target in importlib.import_module(name).targets(args.rounds):
            low, middle, high = target.quartiles
            spread = f"[{low:.2f}, {high:.2f}]" if len(target.ratios) > 1 else "counted"
            print(
                f"{target.name[:72]:72} {target.at_most:7.2f} {middle:7.2f}  {spread:14} "
                f"{'holds' if target.holds else 'does not hold'}",
                flush=True,
            )
            if target.why and not target.holds:
                print(f"    {target.why}")
            rows.append(dataclasses.asdict(target) | {"ratios": [round(ratio, 4) for ratio in target.ratios]})
        known[name] = {"date": date.today().isoformat(), "machine": machine(), "rounds": args.rounds, "targets": rows}
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps({"sections": known}, indent=1) + "\n")
    return 0


def machine() -> str:
    """Name the processor, its cores and the versions."""
    import torch  # behind the environment variables that its allocator reads

    return f"{_processor()}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}"


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    sys.exit(main())
