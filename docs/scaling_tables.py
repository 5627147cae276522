"""The tables of the page on scale, from ``results/scaling.json`` and the arithmetic of ``benchmarks/scaling.py``."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bisam import METHODS

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
from scaling import Layout, checkpoint, exponent, extrapolated, gpu_hours, memory, sent_by_ddp, sent_by_fsdp

__all__ = ["tables"]

ROOT = Path(__file__).resolve().parent.parent
#: The large model: weights, devices, units that FSDP2 gathers, tokens (20 a weight), bytes a second of a device's link.
WEIGHTS, DEVICES, UNITS, TOKENS, LINK = 1e11, 1024, 100, 2e12, 50e9
#: Kinds of methods by the vectors that they keep, with what a checkpoint holds of them.
KINDS = {
    "AdamW alone": (0, 0),
    "`SAM`, `BiSAM`, `ASAM`, ...: w": (1, 0),
    "`GSAM`, `WSAM`, `StableSAM`: w, gradient at w": (2, 0),
    "`VaSSO`, `FriendlySAM`: w, mean, next mean": (3, 1),
}
SHARDINGS = {"replicas": "DDP", "zero": "ZeRO-1", "fsdp": "FSDP2"}


def tables() -> dict[str, str]:
    """Return the page's tables by name."""
    kept: dict[str, Any] = json.loads((ROOT / "results" / "scaling.json").read_text())
    return {
        "scaling-sent": _sent(kept),
        "scaling-memory": _memory(),
        "scaling-step": _step(),
        "scaling-folder": _folder(kept),
        "scaling-cost": _cost(kept),
    }


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    rule = f"|---|{'---:|' * (len(head) - 1)}"
    return "\n".join([f"| {' | '.join(head)} |", rule, *(f"| {' | '.join(row)} |" for row in rows)])


def _sent(kept: Mapping[str, Any]) -> str:
    rows = []
    for name, kinds in kept["communication"].items():
        rows += [_counted(METHODS[name].name, kind, round(kept["vectors"][name])) for kind in kinds]
    head = [
        "method",
        "passes",
        "DDP: averages of the gradient",
        "FSDP2: passes' collectives",
        "numbers",
        "vectors kept",
    ]
    return f"{_where(kept)}\n\n{_table(head, rows)}"


def _counted(name: str, kind: Mapping[str, Any], vectors: int) -> list[str]:
    sharded = f"{kind['fsdp'][0]} = {kind['passes']} x {kind['fsdp'][0] // kind['passes']}"
    return [f"`{name}`", str(kind["passes"]), str(kind["ddp"][0]), sharded, str(kind["norms"][0]), str(vectors)]


def _where(kept: Mapping[str, Any]) -> str:
    return f"{kept['date']}, {kept['machine']}: `python benchmarks/scaling.py`."


def _memory() -> str:
    rows = []
    for words, (vectors, remembered) in KINDS.items():
        bytes_ = [memory(WEIGHTS, vectors, Layout(kind, DEVICES, UNITS, gathered=2)) for kind in SHARDINGS]
        rows.append([words, *map(_size, bytes_), _size(checkpoint(WEIGHTS, remembered))])
    return _table(["kept", *SHARDINGS.values(), "checkpoint"], rows)


def _step() -> str:
    """Bytes that a device of a ring sends: the whole tensor for each gather and scatter, twice that for an average."""
    rows = []
    for words, passes, local in (("base optimizer", 1, False), ("`SAM`", 2, True), ("`GSAM`, `VaSSO`, ...", 2, False)):
        averaged = 2 * sent_by_ddp(WEIGHTS, passes, local=local)
        sharded = sum(sent_by_fsdp(WEIGHTS, 0, passes, word=2))
        cells = [f"{_size(n)}, {n / LINK:.0f} s" for n in (averaged, sharded)]
        rows.append([words, str(passes), *cells])
    return _table(["step of", "passes", "DDP", "FSDP2"], rows)


def _folder(kept: Mapping[str, Any]) -> str:
    seen, storage = kept["driver"], kept["storage"]
    sizes, large = seen["runs"], 10_000
    run, study = storage["run"], storage["study"]
    rows = [
        [
            f"{n:,}",
            *_of_folder(run, study, n),
            *(f"{seen[key][i]:.2g} s" for key in ("read", "report")),
            _size(seen["page"][i]),
        ]
        for i, n in enumerate(sizes)
    ]
    told = [extrapolated(sizes, seen[key], large) for key in ("read", "report", "page")]
    powers = [exponent(sizes, seen[key]) for key in ("read", "report", "page")]
    rows.append(
        [f"{large:,}, extrapolated", *_of_folder(run, study, large), *(f"{s:.0f} s" for s in told[:2]), _size(told[2])]
    )
    rows.append(["power of the number of runs", "1", "1", *(f"{p:.2f}" for p in powers)])
    return f"{_where(kept)}\n\n{_table(['runs', 'files', 'bytes', 'read', 'report', 'its page'], rows)}"


def _of_folder(run: Mapping[str, int], study: Mapping[str, int], runs: int) -> list[str]:
    return [f"{run['files'] * runs + study['files']:,}", _size(run["bytes"] * runs + study["bytes"])]


def _cost(kept: Mapping[str, Any]) -> str:
    plain = gpu_hours(WEIGHTS, TOKENS, 1)
    rows = [
        [words, f"{passes:g}", f"{plain * passes:,.0f}", f"{plain * passes / DEVICES / 24:.0f} days"]
        for words, passes in (("base optimizer", 1.0), ("`LookSAM`, one step in five", 1.2), ("`SAM`, `BiSAM`", 2.0))
    ]
    seconds = kept["storage"]["seconds"]
    each = f"{seconds:.0f} s a run, n = 4, on a busy machine"
    small = f"{1e4 * seconds / 3600:,.0f} core hours for 10,000 runs of `digits` ({each})"
    return (
        f"{_table(['training of', 'passes a step', 'GPU hours', f'on {DEVICES} devices'], rows)}\n\nBeside it: {small}."
    )


def _size(nbytes: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if nbytes >= size:
            return f"{nbytes / size:.3g} {unit}"
    return f"{nbytes:.0f} B"
