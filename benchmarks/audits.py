"""Keeps what audits found, small, for the pages: results/audit.json, from which docs/tables.py draws.

bisam audit resnet20-12fca82f.th --recipe cifar10 model.name=benchmarks/public_resnet.py:PublicResNet ...
python benchmarks/audits.py audits/resnet20 audits/resnet56
"""

import argparse
import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent.parent / "results" / "audit.json"
#: What is kept of a row.
KEPT = (
    *("adversary", "rho", "statistics", "n", "cosine_median", "cosine_least", "effective_samples", "no_gradient"),
    *("rise_error_batch", "rise_error_held_out", "rise_loss_batch"),
    *("difference_batch", "difference_batch_low", "difference_batch_high", "difference_batch_p"),
    *("difference_held_out", "difference_held_out_low", "difference_held_out_high", "difference_held_out_p"),
    *("equal_loss_batch", "equal_loss_batch_low", "equal_loss_batch_high"),
)


def kept(folder: Path) -> dict[str, Any]:
    """Return a folder's audits with the rows' numbers to five digits, the command that made them, when and where."""
    stored = json.loads((folder / "audit.json").read_text())
    audits = [
        {
            **{key: audit[key] for key in ("name", "epoch", "batches", "size", "headers", "verdict")},
            "rows": [{key: _short(row[key]) for key in KEPT} for row in audit["rows"]],
        }
        for audit in stored["audits"]
    ]
    place = stored["audits"][0]["environment"]
    return {
        "command": stored["command"],
        "audits": audits,
        "date": place["started"][:10],
        "processor": place["processor"],
        "torch": place["packages"]["torch"],
    }


def _short(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="of audits")
    parser.add_argument("--results", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    known = json.loads(chosen.results.read_text()) if chosen.results.exists() else {}
    for folder in chosen.folders:
        known[folder.name] = kept(folder)
    chosen.results.write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main()
