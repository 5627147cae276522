"""The layout of a study's folder: its version, and what is said of it in README.txt."""

from pathlib import Path

from ..recipe import RecipeError
from ..untrusted import parse_json, read_text

__all__ = ["README", "SCHEMA", "check_schema"]

#: Version of the folder's layout. A folder with a newer layout is refused.
SCHEMA = 2


def check_schema(folder: Path) -> None:
    """Refuse a folder with a newer layout.

    Raises:
        RecipeError: the layout is newer, or its version cannot be read.
    """
    path = folder / "study.json"
    try:
        schema = parse_json(read_text(path))["schema"]
        if type(schema) is not int:
            raise TypeError
    except FileNotFoundError:
        schema = 1
    except (ValueError, KeyError, TypeError, OverflowError):
        raise RecipeError(f'{path} is damaged: it should say {{"schema": {SCHEMA}}}') from None
    if schema > SCHEMA:
        raise RecipeError(f"{folder} has the layout {schema}, and this bisam knows {SCHEMA}: update it")


README = f"""\
A study of bisam, layout {SCHEMA}. All files are plain; copy the folder to move the study.

recipe.yaml           what was run; `bisam compare recipe.yaml --out THIS_FOLDER` continues the study
study.json            the version of this layout
budget.json           with --budget: what each method may spend, and what a step of it costs
look.json             with --seeds auto: the last look; its level is that of the tables
runs/[VARIANT/]METHOD/seed-N/
    result.json       of a finished run: scores, learning curve, hardware, versions
    csv/, tensorboard/    the learning curve (tensorboard --logdir runs)
    checkpoints/      of a run that is not finished; with --keep-weights, best.pt of one that is
    .lock, .holder    held by the process that trains the run; several machines may work on one folder
                      (.holders/ in object storage)
equal-cost/           the same for runs whose epochs spend the budget
.slurm/               with --engine slurm: files of its jobs
.at-work/             locks of the processes that are at work on the study
.id                   in object storage: tells the study from one that was there before
quarantine/           runs whose files were damaged, each with the reason
results.csv           one line per run; results.jsonl: the same, with learning curves
table.md, figure.png  the comparison; `bisam report THIS_FOLDER` makes a page of it, report.html
"""
