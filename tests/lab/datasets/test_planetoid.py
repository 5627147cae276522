"""Planetoid's files, made small in their layout: read as everybody reads them, and never run."""

import collections
import os
import pickle

import numpy as np
import pytest
from scipy import sparse

from bisam_lab.datasets import planetoid
from bisam_lab.datasets.planetoid import read_planetoid
from bisam_lab.errors import RecipeError

#: 4 nodes with and 2 without a label to train on, test nodes 7 and 9 in this order, and 6 and 8 that no file describes.
HEAD = np.eye(6, 3)
TAIL = np.array([[0.0, 0, 7], [0, 9, 0]])
GRAPH = {0: [1, 1, 0], 1: [0, 7], 7: [1], 9: [5], 5: [9], 2: [], 3: [], 4: [], 6: [], 8: []}


def python2(value):
    """Return a pickle of protocol 2 with the names of Python 2 and of the scipy of that time."""
    content = pickle.dumps(value, protocol=2)
    for ours, theirs in ((b"scipy.sparse._csr", b"scipy.sparse.csr"), (b"numpy._core", b"numpy.core")):
        content = content.replace(b"c" + ours, b"c" + theirs)
    return content


@pytest.fixture
def folder(tmp_path):
    graph = collections.defaultdict(list, GRAPH)
    parts = {
        "x": sparse.csr_matrix(HEAD[:4]),
        "allx": sparse.csr_matrix(HEAD),
        "tx": sparse.csr_matrix(TAIL),
        "y": np.eye(2, dtype=int)[[0, 1, 0, 1]],
        "ty": np.eye(2, dtype=int)[[0, 1]],
        "ally": np.eye(2, dtype=int)[[0, 1, 0, 1, 1, 0]],
        "graph": graph,
    }
    for part, value in parts.items():
        (tmp_path / f"ind.small.{part}").write_bytes(python2(value))
    (tmp_path / "ind.small.test.index").write_text("9\n7\n")
    return tmp_path


def test_nodes_labels_edges_and_split(folder):
    found = read_planetoid(folder, "small")
    np.testing.assert_array_equal(found.x[:6], HEAD)
    np.testing.assert_array_equal(found.x[[9, 7]], TAIL)
    np.testing.assert_array_equal(found.x[[6, 8]], 0)
    assert found.y.tolist() == [0, 1, 0, 1, 1, 0, -1, 1, -1, 0]
    assert found.edges.T.tolist() == [[0, 1], [1, 7], [5, 9]]
    assert found.train.tolist() == [0, 1, 2, 3]
    assert found.validation.tolist() == [4, 5]
    assert found.test.tolist() == [7, 9]


def test_the_oldest_protocol_makes_matrices_through_copy_reg(folder):
    text = pickle.dumps(sparse.csr_matrix(HEAD), protocol=0)
    assert b"copy_reg\n_reconstructor" in text
    (folder / "ind.small.allx").write_bytes(text)
    np.testing.assert_array_equal(read_planetoid(folder, "small").x[:6], HEAD)


class Calls:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("part", ["x", "y", "graph"])
@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("function", [os.system, eval, getattr, np.save, sparse.load_npz])
def test_a_pickle_that_calls_something_is_refused(function, inside, part, folder, tmp_path):
    evil = Calls(function, "touch " + str(tmp_path / "done"))
    (folder / f"ind.small.{part}").write_bytes(pickle.dumps([evil] if inside else evil, protocol=2))
    with pytest.raises(RecipeError, match=rf"ind\.small\.{part} is cut or no file .*: it would call ") as error:
        read_planetoid(folder, "small")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "done").exists()


def test_copy_reg_makes_no_other_object(folder):
    (folder / "ind.small.x").write_bytes(b"ccopy_reg\n_reconstructor\n(c__builtin__\nlist\nc__builtin__\nobject\nNtR.")
    with pytest.raises(RecipeError, match=r"it would make another object than a sparse matrix"):
        read_planetoid(folder, "small")


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("x", [1, 2], "it holds a list"),
        ("graph", np.eye(2), "it holds a ndarray"),
        ("y", np.array([["a"]], object), r"labels are no table of a column a class"),
        ("ty", np.eye(2, dtype=int), None),
        ("ty", np.eye(3, dtype=int), r"2 test nodes, 2 rows of tx, 3 of ty"),
        ("graph", collections.defaultdict(list, {**GRAPH, 0: [99]}), r"graph names a node that is no number from 0"),
        ("graph", collections.defaultdict(list, {**GRAPH, 0: ["1"]}), r"do not fit together|no number"),
        ("graph", collections.defaultdict(list, {0: [1]}), r"test\.index names nodes from 7 to 9, of 6 to 0"),
    ],
)
def test_files_that_do_not_fit(part, value, message, folder):
    (folder / f"ind.small.{part}").write_bytes(python2(value))
    if message is None:
        assert len(read_planetoid(folder, "small").test) == 2
        return
    with pytest.raises(RecipeError, match=message):
        read_planetoid(folder, "small")


def test_a_matrix_that_points_outside_of_itself(folder):
    matrix = sparse.csr_matrix(HEAD)
    matrix.indices[:] = 99
    (folder / "ind.small.allx").write_bytes(python2(matrix))
    with pytest.raises(RecipeError, match=r"do not fit together"):
        read_planetoid(folder, "small")


@pytest.mark.parametrize("part", [*planetoid._PARTS, "test.index"])
def test_files_that_are_missing_or_cut(part, folder):
    path = folder / f"ind.small.{part}"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2] if part != "test.index" else b"7\nnine\n")
    with pytest.raises(RecipeError, match=r"ind\.small\."):
        read_planetoid(folder, "small")
    path.unlink()
    with pytest.raises(RecipeError, match=rf"{part} is missing"):
        read_planetoid(folder, "small")
