"""The page of an audit: of one checkpoint, or of several along a training."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..study.files import write_text
from . import svg_audit, words
from .page import asset, environment_of_pages, palette, rounded

__all__ = ["render_audits", "write_audits"]

#: Columns of the table: heading, key, digits.
COLUMNS = (
    ("rho", "rho", 3),
    ("n", "n", 0),
    ("batch error rises (points)", "rise_error_batch", 2),
    ("held-out error rises (points)", "rise_error_held_out", 2),
    ("batch loss rises (nats)", "rise_loss_batch", 3),
    ("held-out loss rises (nats)", "rise_loss_held_out", 3),
    ("points a nat", "error_per_nat", 1),
    ("cosine of gradients, median", "cosine_median", 4),
    ("least", "cosine_least", 4),
    ("cosine of eps", "eps_cosine_median", 4),
    ("norm of eps", "eps_norm", 3),
    ("over SAM's", "eps_norm_ratio", 2),
    ("effective samples", "effective_samples", 1),
    ("no gradient (share)", "no_gradient", 2),
)
#: What is compared with SAM: heading, key, whether there is a p-value.
DIFFERENCES = (
    ("batch", "difference_batch", True),
    ("held-out", "difference_held_out", True),
    ("batch, at equal rise of the loss", "equal_loss_batch", False),
)
WEIGHTS = (
    ("wrong", "weight_wrong"),
    ("right within 2", "weight_within_2"),
    ("2 to 5", "weight_within_5"),
    ("beyond 5", "weight_beyond"),
)


def render_audits(audits: Sequence[Mapping[str, Any]], command: str) -> str:
    """Return the page as HTML. It needs no other file and no network.

    Args:
        audits: as :meth:`bisam_lab.auditing.Audit.to_dict` returns them.
        command: that made them.
    """
    environment = environment_of_pages()
    names = list(dict.fromkeys(row["adversary"] for audit in audits for row in audit["rows"]))
    environment.filters["told"] = _told
    environment.filters["difference"] = _difference
    environment.globals |= {
        "style": lambda name: svg_audit.style_of(names, name),
        "rises": svg_audit.draw_rises,
        "margins": svg_audit.draw_margins,
        "batches_of": svg_audit.draw_batches,
        "course": svg_audit.draw_course,
        "around": svg_audit.draw_around,
        "plane_of": svg_audit.draw_plane,
        "columns": COLUMNS,
        "differences": DIFFERENCES,
        "weights": WEIGHTS,
    }
    return environment.get_template("audit.html").render(
        audits=audits,
        names=names,
        title=audits[0]["name"] if len(audits) == 1 else f"{len(audits)} checkpoints",
        middle=_middle(audits),
        command=command,
        palette=palette(),
        css=asset("style.css"),
        script=asset("script.js"),
        data=rounded({"audits": audits}),
    )


def write_audits(audits: Sequence[Mapping[str, Any]], command: str, path: Path) -> None:
    """Write the page. A reader who opens ``path`` at that moment sees the old page or the new one, whole."""
    write_text(path, render_audits(audits, command))


def _middle(audits: Sequence[Mapping[str, Any]]) -> float:
    """Return the radius in the middle, which single figures show."""
    rhos = sorted({row["rho"] for audit in audits for row in audit["rows"]})
    return float(rhos[len(rhos) // 2])


def _told(value: float | None, digits: int) -> str:
    return words.number(math.nan if value is None else value, digits)


def _difference(row: Mapping[str, Any], key: str) -> str:
    value, low, high = (row[name] for name in (key, f"{key}_low", f"{key}_high"))
    if value is None:
        return words.NONE
    interval = "" if low is None else f" [{words.signed(low)}, {words.signed(high)}]"
    return f"{words.signed(value)}{interval}"
