"""The small charts of a page: which quantities are shown of a study and of single runs, and along what."""

from dataclasses import dataclass

from .block import Block
from .charts import CurveChart, block_chart, curve_chart, known, left_out
from .collect import RunsData
from .quantities import Along

__all__ = ["Panel", "panels", "run_panels"]


@dataclass(frozen=True)
class Panel:
    """A small chart.

    Attributes:
        key: unique in its section.
        short: what it shows, in a list.
        chart: what is drawn.
        hint: beside its caption.
    """

    key: str
    short: str
    chart: CurveChart
    hint: str = ""


_SHOWN: tuple[tuple[str, Along, str], ...] = (
    ("validation_score", "epoch", "score by epoch"),
    ("validation_score", "passes", "score by passes"),
    ("validation_score", "seconds", "score by seconds"),
    ("train_loss", "epoch", "training loss"),
    ("gap", "epoch", "generalisation gap"),
    ("perturbed_error", "epoch", "misclassified at w + eps"),
    ("error_rise", "epoch", "rise of the error at w + eps"),
    ("gradient_norm", "epoch", "gradient norm"),
    ("learning_rate", "epoch", "learning rate"),
    ("rho", "epoch", "radius"),
    ("eps_norm", "epoch", "‖eps‖"),
)


def panels(block: Block) -> list[Panel]:
    """Return the small charts of a block: what its two large ones do not show."""
    large = {
        (chart.quantity, chart.axis)
        for chart in (block_chart(block, key) for key in ("validation_score", "train_loss"))
    }
    return [
        Panel(f"{quantity}-{axis}", words, block_chart(block, quantity, axis))
        for quantity, axis, words in _SHOWN
        if (quantity, axis) not in large and quantity != "train_loss" and known(block.runs, quantity, axis)
    ]


def run_panels(group: RunsData) -> list[Panel]:
    """Return the charts of single runs. Runs of one method differ in their seeds; each has a line of its own."""
    runs = [run.result for run in group.runs]
    out = left_out(runs)
    found = []
    for quantity, axis, words in _SHOWN:
        loss = quantity == "train_loss"
        shown = [run for run in runs if not (loss and run.method in out)]
        if known(shown, quantity, axis):
            chart = curve_chart(shown, quantity, group.metric, axis, each=True)
            hint = f"left out, because theirs is at w + eps: {', '.join(out)}" if loss and out else ""
            found.append(Panel(f"{quantity}-{axis}", words, chart, hint))
    return found
