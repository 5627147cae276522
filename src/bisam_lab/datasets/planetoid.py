"""Citation graphs in Planetoid's files (Yang et al., arXiv 1603.08861), such as Cora: read without running code.

The files ``ind.NAME.x`` and so on are pickles of Python 2. A pickle may call any function, so these are read by an
unpickler that knows arrays, sparse matrices, lists and dictionaries, and refuses all else.
"""

import io
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from ..errors import RecipeError, one_line

__all__ = ["Citations", "read_planetoid"]

_PARTS = ("x", "y", "tx", "ty", "allx", "ally", "graph")
#: Nodes after the training nodes that everybody validates on.
VALIDATION = 500


@dataclass(frozen=True)
class Citations:
    """A graph whose nodes are papers.

    Attributes:
        x: words of each paper, (N, F).
        y: class of each, (N,); -1 where the files tell none.
        edges: pairs of nodes, (2, E), each once.
        train: numbers of the nodes to train on.
        validation: to validate on.
        test: to test on.
    """

    x: npt.NDArray[np.float32]
    y: npt.NDArray[np.int64]
    edges: npt.NDArray[np.int64]
    train: npt.NDArray[np.int64]
    validation: npt.NDArray[np.int64]
    test: npt.NDArray[np.int64]


def read_planetoid(folder: Path, name: str) -> Citations:
    """Read ``ind.NAME.{x,y,tx,ty,allx,ally,graph,test.index}`` of a folder, in the split that everybody uses.

    Raises:
        RecipeError: a file is missing, holds anything but such values, or does not fit the others.
    """
    parts = {part: _unpickled(folder / f"ind.{name}.{part}") for part in _PARTS}
    try:
        return _joined(parts, _test_index(folder / f"ind.{name}.test.index"))
    except (ValueError, TypeError, IndexError, KeyError, OverflowError) as error:
        said = error if isinstance(error, RecipeError) else f"do not fit together: {one_line(str(error), 80)}"
        raise RecipeError(f"{folder}/ind.{name}.*: {said}") from None


def _joined(parts: dict[str, Any], test: npt.NDArray[np.int64]) -> Citations:
    """Put the test nodes, which lie in another order and may have gaps (CiteSeer), behind the others."""
    head, tail = parts["allx"].dense(), parts["tx"].dense()
    labels = [_labels(parts[part]) for part in ("ally", "ty")]
    if len(tail) != len(test) or len(labels[1]) != len(test) or len(labels[0]) != len(head):
        raise RecipeError(f"{len(test)} test nodes, {len(tail)} rows of tx, {len(labels[1])} of ty")
    count = len(parts["graph"])
    if test.min() < len(head) or len(np.unique(test)) < len(test) or test.max() >= count:
        raise RecipeError(f"test.index names nodes from {test.min()} to {test.max()}, of {len(head)} to {count - 1}")
    x = np.zeros((count, head.shape[1]), np.float32)
    y = np.full(count, -1, np.int64)
    x[: len(head)], x[test] = head, tail
    y[: len(head)], y[test] = labels
    train = np.arange(len(_labels(parts["y"])))
    validation = np.arange(len(train), min(len(train) + VALIDATION, len(head)))
    return Citations(x, y, _edges(parts["graph"], count), train, validation, np.sort(test))


def _edges(graph: Any, count: int) -> npt.NDArray[np.int64]:
    pairs = {(min(a, b), max(a, b)) for a, near in graph.items() for b in near if a != b}
    if any(type(node) is not int or not 0 <= node < count for pair in pairs for node in pair):
        raise RecipeError(f"graph names a node that is no number from 0 to {count - 1}")
    return np.array(sorted(pairs), np.int64).reshape(-1, 2).T


def _labels(one_hot: Any) -> npt.NDArray[np.int64]:
    if not isinstance(one_hot, np.ndarray) or one_hot.dtype.kind not in "iufb" or one_hot.ndim != 2:
        raise RecipeError("labels are no table of a column a class")
    return np.where(one_hot.any(1), one_hot.argmax(1), -1).astype(np.int64)


def _test_index(path: Path) -> npt.NDArray[np.int64]:
    if not path.is_file():
        raise RecipeError(f"{path.name} is missing")
    return np.array([int(line) for line in path.read_text().split()], np.int64)


class _Matrix:
    """Stands in for scipy's sparse matrix while it is read."""

    state: dict[str, Any]

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def dense(self) -> npt.NDArray[np.float32]:
        """Return its values, (N, F)."""
        state = self.state
        shape = state.get("_shape", state.get("shape"))
        made = sparse.csr_matrix((state["data"], state["indices"], state["indptr"]), shape=shape)
        made.check_format()
        return np.asarray(made.toarray(), np.float32)


class _Graph(dict[Any, Any]):
    """Stands in for a defaultdict of lists."""

    def __init__(self, *_: Any) -> None:
        super().__init__()


class _Known(pickle.Unpickler):
    """Builds arrays, sparse matrices, lists and dictionaries, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("scipy.sparse") and name == "csr_matrix":
            return _Matrix
        array = np.empty(0).__reduce__()[0]
        known = {
            ("numpy.core.multiarray", "_reconstruct"): array,
            ("numpy._core.multiarray", "_reconstruct"): array,
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("collections", "defaultdict"): _Graph,
            ("__builtin__", "list"): list,
            ("builtins", "list"): list,
            ("__builtin__", "object"): object,
            ("builtins", "object"): object,
            ("copy_reg", "_reconstructor"): _new_matrix,
            ("copyreg", "_reconstructor"): _new_matrix,
            ("_codecs", "encode"): _latin1,
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"it would call {module}.{name}")
        return known[module, name]


def _new_matrix(kind: Any, *_: Any) -> _Matrix:
    """Make the stand-in where Python 2's protocol 0 or 1 would make any object."""
    if kind is not _Matrix:
        raise pickle.UnpicklingError("it would make another object than a sparse matrix")
    return _Matrix()


def _latin1(text: str, encoding: str) -> bytes:
    """Return the bytes that Python 3 writes into a pickle of protocol 2 as text."""
    return text.encode("latin1")


def _unpickled(path: Path) -> Any:
    kind = {"graph": _Graph, "y": np.ndarray, "ty": np.ndarray, "ally": np.ndarray}.get(path.suffix[1:], _Matrix)
    if not path.is_file():
        raise RecipeError(f"{path} is missing: a graph of Planetoid has ind.NAME.{{{','.join(_PARTS)},test.index}}")
    try:
        found = _Known(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except Exception as error:  # noqa: BLE001 - a damaged pickle raises anything
        raise RecipeError(f"{path} is cut or no file of Planetoid: {one_line(str(error), 80)}") from None
    if not isinstance(found, kind) or (isinstance(found, _Matrix) and not _is_state(getattr(found, "state", None))):
        raise RecipeError(f"{path} is no file of Planetoid: it holds a {type(found).__name__.lstrip('_').lower()}")
    return found


def _is_state(state: Any, needed: Sequence[str] = ("data", "indices", "indptr")) -> bool:
    arrays = [state.get(key) for key in needed] if isinstance(state, dict) else [None]
    return all(isinstance(array, np.ndarray) and array.dtype.kind in "iufb" for array in arrays)
