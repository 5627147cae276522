"""Texts with labels: GLUE's tasks and one's own, from TSV or parquet files, or through Hugging Face datasets."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..recipe import RecipeError

__all__ = ["TASKS", "Sample", "Task", "Texts", "read_glue", "read_own", "read_tsv"]


class Sample(NamedTuple):
    """One text or two, and the number of their class."""

    texts: tuple[str, ...]
    label: int


class Texts(NamedTuple):
    """A set of texts: what training and validation are drawn from, the test set, the classes' names by label."""

    train: list[Sample]
    test: list[Sample]
    classes: tuple[str, ...]


class Task(NamedTuple):
    """Where a task keeps what.

    Attributes:
        folder: of its official files.
        texts: columns of the texts, by number, on which its files agree more than on their names.
        label: column of the label, by number.
        names: columns of the texts in Hugging Face's tables; their column of the label is ``label``.
        classes: by label, in Hugging Face's order.
        header: whether a file's first line names the columns.
        dev: the file of labelled examples that are not for training.
        cut: whether the official files have lines that end too early, which everybody leaves out.
    """

    folder: str
    texts: tuple[int, ...]
    label: int
    names: tuple[str, ...]
    classes: tuple[str, ...] = ("0", "1")
    header: bool = True
    dev: str = "dev"
    cut: bool = False


_ENTAILMENT = ("entailment", "not_entailment")
_PAIR = ("sentence1", "sentence2")
#: The tasks that are classifications. The labels of GLUE's own test sets are secret: dev is the test set here.
TASKS = {
    "cola": Task("CoLA", (3,), 1, ("sentence",), header=False),
    "sst2": Task("SST-2", (0,), 1, ("sentence",)),
    "mrpc": Task("MRPC", (3, 4), 0, _PAIR),
    "qqp": Task("QQP", (3, 4), 5, ("question1", "question2"), cut=True),
    "mnli": Task(
        *("MNLI", (8, 9), -1, ("premise", "hypothesis"), ("entailment", "neutral", "contradiction")),
        dev="dev_matched",
    ),
    "qnli": Task("QNLI", (1, 2), 3, ("question", "sentence"), _ENTAILMENT),
    "rte": Task("RTE", (1, 2), 3, _PAIR, _ENTAILMENT),
    "wnli": Task("WNLI", (1, 2), 3, _PAIR),
}
_HUB = "nyu-mll/glue"


def read_glue(name: str, data_dir: Path | None) -> Texts:
    """Read a task from ``glue/TASK/{train,dev}.tsv`` or ``.parquet``, or else through Hugging Face datasets.

    Raises:
        RecipeError: no such files and no way to get them, or a line without text or label.
    """
    task = TASKS[name]
    root = Path(data_dir or ".") / "glue"
    folder = next((root / inner for inner in (task.folder, name) if (root / inner).is_dir()), None)
    if folder is None:
        train, test = (_table(rows, task.names, task.classes, name) for rows in _from_hub(name, root))
    else:
        train, test = (_from_file(folder, task, split) for split in ("train", task.dev))
    return Texts(train, test, task.classes)


def _from_file(folder: Path, task: Task, split: str) -> list[Sample]:
    if (folder / f"{split}.tsv").is_file():
        return read_tsv(folder / f"{split}.tsv", task)
    for path in (folder / f"{split}.parquet", folder / "dev.parquet"):
        if path.is_file():
            return _table(_parquet(path), task.names, task.classes, str(path))
    raise RecipeError(f"{folder} holds neither {split}.tsv nor {split}.parquet")


def read_tsv(path: Path, task: Task) -> list[Sample]:
    """Read a task's official file; quotation marks are text in it, so no csv reader.

    Raises:
        RecipeError: a line without a text or a label where they should be.
    """
    samples, classes = [], {name: label for label, name in enumerate(task.classes)}
    for number, cells in _lines(path, skip=int(task.header)):
        enough = len(cells) > max(*task.texts, task.label)
        if task.cut and not enough:
            continue
        if not enough or cells[task.label] not in classes:
            raise RecipeError(
                f"{path}, line {number}: no label {' or '.join(classes)} where it should be: {chr(9).join(cells)!r}"
            )
        samples.append(Sample(tuple(cells[i] for i in task.texts), classes[cells[task.label]]))
    return samples


def _lines(path: Path, skip: int) -> Iterator[tuple[int, list[str]]]:
    lines = path.read_text(encoding="utf-8-sig").rstrip("\n").split("\n")
    for number, line in enumerate(lines[skip:], start=1 + skip):
        yield number, line.rstrip("\r").split("\t")


def _from_hub(name: str, root: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    try:
        from datasets import load_dataset
    except ImportError:
        raise RecipeError(
            f"no {root / TASKS[name].folder}: put train.tsv and dev.tsv there, or let Hugging Face datasets get them "
            "(pip install 'bisam[transformers]')"
        ) from None
    try:
        parts = load_dataset(_HUB, name)
    except (OSError, ValueError, RuntimeError) as error:
        raise RecipeError(
            f"no {root / TASKS[name].folder}, and Hugging Face datasets cannot get {_HUB} {name}: {error}"
        ) from None
    train, test = (parts[split][:] for split in ("train", "validation_matched" if name == "mnli" else "validation"))
    return train, test


def _parquet(path: Path) -> dict[str, Any]:
    try:
        import pyarrow.parquet
    except ImportError:
        raise RecipeError(f"{path} needs pyarrow: pip install 'bisam[transformers]'") from None
    try:
        columns: dict[str, Any] = pyarrow.parquet.read_table(path).to_pydict()
    except (OSError, pyarrow.ArrowException) as error:
        raise RecipeError(f"{path} cannot be read: {error}") from None
    return columns


def _table(columns: dict[str, Any], names: Sequence[str], classes: Sequence[str], where: str) -> list[Sample]:
    """Turn a table of columns into samples; its labels are numbers, or names of classes."""
    lacking = [name for name in (*names, "label") if name not in columns]
    if lacking:
        raise RecipeError(f"{where} has no column {lacking[0]}; it has {', '.join(columns)}")
    known = {name: label for label, name in enumerate(classes)} | {k: k for k in range(len(classes))}
    samples = []
    for number, (*texts, label) in enumerate(zip(*(columns[n] for n in (*names, "label")), strict=True), start=1):
        if label not in known or any(not isinstance(text, str) for text in texts):
            raise RecipeError(f"{where}, example {number}: label {label!r} is none of {', '.join(classes)}, or no text")
        samples.append(Sample(tuple(texts), known[label]))
    return samples


def read_own(folder: Path) -> Texts:
    """Read ``train`` and ``test``, each ``.tsv`` with a header or ``.parquet``: columns text, or text1, text2; label.

    Raises:
        RecipeError: no such files or columns, a label that training never had, or fewer than two classes.
    """
    train, test = (_own_columns(folder, split) for split in ("train", "test"))
    names = ("text1", "text2") if "text1" in train else ("text",)
    if "label" not in train:
        raise RecipeError(f"{folder / 'train'} has no column label; it has {', '.join(train)}")
    labels = [str(label) for label in train["label"]]
    found = sorted(set(labels), key=lambda label: (not label.isdigit(), int(label) if label.isdigit() else 0, label))
    if len(found) < 2:
        raise RecipeError(f"{folder}: a classification needs two labels or more, and train has {', '.join(found)}")
    columns = train | {"label": labels}, test | {"label": [str(label) for label in test.get("label", [])]}
    parts = [_table(c, names, found, str(folder / s)) for c, s in zip(columns, ("train", "test"), strict=True)]
    return Texts(parts[0], parts[1], tuple(found))


def _own_columns(folder: Path, split: str) -> dict[str, Any]:
    if (folder / f"{split}.parquet").is_file():
        return _parquet(folder / f"{split}.parquet")
    path = folder / f"{split}.tsv"
    if not path.is_file():
        raise RecipeError(f"no {path} and no {split}.parquet: text:PATH reads train and test from PATH")
    (_, header), *rows = _lines(path, skip=0)
    for number, cells in rows:
        if len(cells) != len(header):
            raise RecipeError(f"{path}, line {number}: {len(cells)} columns where its header has {len(header)}")
    return {name: [cells[i] for _, cells in rows] for i, name in enumerate(header)}
