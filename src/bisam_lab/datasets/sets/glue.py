"""The tasks of GLUE that are classifications (Wang et al., arXiv 1804.07461).

The labels of the official test sets are secret: the dev set is the test set.
"""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import RecipeError
from ..contents import Sample, Texts
from ..entry import DataSet, Tell
from ..table_files import read_lines, read_parquet
from ..tables import as_samples

__all__ = ["ENTRIES", "TASKS", "Task", "read_glue", "read_tsv"]

_HUB = "nyu-mll/glue"


class Task(NamedTuple):
    """The layout of a task's files.

    Attributes:
        folder: of its official files.
        counts: numbers of training examples and of dev examples.
        texts: columns of the texts, by number: the names differ from file to file.
        label: column of the label, by number.
        names: columns of the texts in Hugging Face's tables, where the label's column is ``label``.
        classes: by label, in Hugging Face's order.
        header: whether the first line of a file names the columns.
        dev: name of the dev file.
        cut: whether the official files have lines that end too early. They are left out, as everybody does.
    """

    folder: str
    counts: tuple[int, int]
    texts: tuple[int, ...]
    label: int
    names: tuple[str, ...]
    classes: tuple[str, ...] = ("0", "1")
    header: bool = True
    dev: str = "dev"
    cut: bool = False


_ENTAILMENT = ("entailment", "not_entailment")
_PAIR = ("sentence1", "sentence2")
#: The tasks by name.
TASKS = {
    "cola": Task("CoLA", (8551, 1043), (3,), 1, ("sentence",), header=False),
    "sst2": Task("SST-2", (67_349, 872), (0,), 1, ("sentence",)),
    "mrpc": Task("MRPC", (3668, 408), (3, 4), 0, _PAIR),
    "qqp": Task("QQP", (363_846, 40_430), (3, 4), 5, ("question1", "question2"), cut=True),
    "mnli": Task(
        *("MNLI", (392_702, 9815), (8, 9), -1, ("premise", "hypothesis"), ("entailment", "neutral", "contradiction")),
        dev="dev_matched",
    ),
    "qnli": Task("QNLI", (104_743, 5463), (1, 2), 3, ("question", "sentence"), _ENTAILMENT),
    "rte": Task("RTE", (2490, 277), (1, 2), 3, _PAIR, _ENTAILMENT),
    "wnli": Task("WNLI", (635, 71), (1, 2), 3, _PAIR),
}


def read_glue(name: str, data_dir: Path) -> Texts:
    """Read a task from ``glue/TASK/{train,dev}.tsv`` or ``.parquet``, or else through Hugging Face datasets.

    Raises:
        RecipeError: no such files and no way to get them, or a line without text or label.
    """
    task, root = TASKS[name], data_dir / "glue"
    folder = next((root / inner for inner in (task.folder, name) if (root / inner).is_dir()), None)
    if folder is None:
        train, test = (as_samples(rows, task.names, task.classes, name) for rows in _from_hub(name, root))
    else:
        train, test = (_from_file(folder, task, split) for split in ("train", task.dev))
    return Texts(train, test, task.classes)


def _from_file(folder: Path, task: Task, split: str) -> list[Sample]:
    if (folder / f"{split}.tsv").is_file():
        return read_tsv(folder / f"{split}.tsv", task)
    for path in (folder / f"{split}.parquet", folder / "dev.parquet"):
        if path.is_file():
            return as_samples(read_parquet(path), task.names, task.classes, str(path))
    raise RecipeError(f"{folder} holds neither {split}.tsv nor {split}.parquet")


def read_tsv(path: Path, task: Task) -> list[Sample]:
    """Read a task's official file. Quotation marks are text in it: a csv reader would drop them.

    Raises:
        RecipeError: a line without a text or a label where they should be.
    """
    samples, classes = [], {name: label for label, name in enumerate(task.classes)}
    for number, cells in read_lines(path, skip=int(task.header)):
        enough = len(cells) > max(*task.texts, task.label)
        if task.cut and not enough:
            continue
        if not enough or cells[task.label] not in classes:
            raise RecipeError(
                f"{path}, line {number}: no label {' or '.join(classes)} where it should be: {chr(9).join(cells)!r}"
            )
        samples.append(Sample(tuple(cells[i] for i in task.texts), classes[cells[task.label]]))
    return samples


def _from_hub(name: str, root: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    folder = root / TASKS[name].folder
    try:
        train, test = _hub_splits(name)
    except ImportError:
        raise RecipeError(
            f"no {folder}: put train.tsv and dev.tsv there, or let Hugging Face datasets get them "
            "(pip install 'bisam[transformers]')"
        ) from None
    except (OSError, ValueError, RuntimeError) as error:
        raise RecipeError(f"no {folder}, and Hugging Face datasets cannot get {_HUB} {name}: {error}") from None
    return train[:], test[:]


def _hub_splits(name: str) -> tuple[Any, Any]:
    """Return the training set and the dev set from Hugging Face's hub."""
    from datasets import load_dataset

    parts = load_dataset(_HUB, name)
    return parts["train"], parts["validation_matched" if name == "mnli" else "validation"]


def _fetch(name: str, data_dir: Path, tell: Tell) -> None:
    """Write a task's parquet files, with the help of Hugging Face datasets."""
    try:
        splits = _hub_splits(name)
    except (OSError, ValueError, RuntimeError) as error:
        raise RecipeError(f"Hugging Face datasets cannot get {_HUB} {name}: {error}") from None
    folder = data_dir / "glue" / TASKS[name].folder
    folder.mkdir(parents=True, exist_ok=True)
    for split, table in zip(("train", "dev"), splits, strict=True):
        table.to_parquet(folder / f"{split}.parquet")
        tell(f"{folder / split}.parquet: {len(table)} examples")


ENTRIES = tuple(
    DataSet(
        name=f"glue:{name}",
        read=partial(read_glue, name),
        what=f"GLUE {task.folder}; dev is the test set",
        counts=(*task.counts, len(task.classes)),
        licence="see its authors",
        home="https://gluebenchmark.com",
        inside=(f"glue/{task.folder}", f"glue/{name}"),
        remote=True,
        fetch=partial(_fetch, name),
    )
    for name, task in TASKS.items()
)
