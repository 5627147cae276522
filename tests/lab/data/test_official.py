"""Official sets in their official layouts, made small: fetched from a server, checked, unpacked, and read."""

import gzip
import hashlib
import http.server
import io
import struct
import tarfile
import threading

import numpy as np
import pytest
from scipy.io import savemat
from torchvision import datasets
from torchvision.datasets import imagenet

from bisam_lab.data import load_splits, whole
from bisam_lab.data.official import download, fetch, prepare
from bisam_lab.data.verify import verify
from bisam_lab.datasets.checks import md5
from bisam_lab.datasets.registry import SETS
from bisam_lab.recipe import DataRecipe, RecipeError
from tests.lab.painting import PIXELS, jpeg


def digest(content):
    return hashlib.md5(content).hexdigest()


def packed(members, mode="w:gz"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def mat(**columns):
    buffer = io.BytesIO()
    savemat(buffer, columns)
    return buffer.getvalue()


@pytest.fixture
def server(tmp_path):
    """A folder that a web server of this machine serves: (folder, its address)."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield folder, f"http://127.0.0.1:{running.server_port}/"
        running.shutdown()
        thread.join()


def serve_svhn(monkeypatch, server):
    folder, home = server
    table = {}
    for split, count in (("train", 40), ("test", 20)):
        labels = np.arange(count)[:, None] % 10 + 1
        content = mat(X=PIXELS[:count].transpose(1, 2, 3, 0), y=labels)
        (folder / f"{split}_32x32.mat").write_bytes(content)
        table[split] = [f"{home}{split}_32x32.mat", f"{split}_32x32.mat", digest(content)]
    monkeypatch.setattr(datasets.SVHN, "split_list", table)


def serve_flowers(monkeypatch, server):
    folder, home = server
    files = {
        "image": ("102flowers.tgz", packed({f"jpg/image_{k:05}.jpg": jpeg(k) for k in range(1, 31)})),
        "label": ("imagelabels.mat", mat(labels=np.arange(30) % 3 + 1)),
        "setid": ("setid.mat", mat(trnid=np.arange(1, 10), valid=np.arange(10, 19), tstid=np.arange(19, 31))),
    }
    for name, content in files.values():
        (folder / name).write_bytes(content)
    monkeypatch.setattr(datasets.Flowers102, "_download_url_prefix", home)
    table = {key: (name, digest(content)) for key, (name, content) in files.items()}
    monkeypatch.setattr(datasets.Flowers102, "_file_dict", table)


def serve_pets(monkeypatch, server):
    folder, home = server
    names = [f"{('Abyssinian', 'boxer')[k % 2]}_{k}" for k in range(30)]
    lists = {
        f"annotations/{split}.txt": "".join(f"{name} {1 + k % 2} 1 1\n" for k, name in enumerate(part)).encode()
        for split, part in (("trainval", names[:20]), ("test", names[20:]))
    }
    files = {
        "images.tar.gz": packed({f"images/{name}.jpg": jpeg(k) for k, name in enumerate(names)}),
        "annotations.tar.gz": packed(lists),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    table = tuple((home + name, digest(content)) for name, content in files.items())
    monkeypatch.setattr(datasets.OxfordIIITPet, "_RESOURCES", table)


def serve_fashion(monkeypatch, server):
    folder, home = server
    table = []
    for part, count in (("train", 40), ("t10k", 20)):
        labels = (np.arange(count) % 10).astype(np.uint8)
        for what, content in (
            ("images-idx3", struct.pack(">4i", 2051, count, 28, 28) + PIXELS[:count, :28, :28, 0].tobytes()),
            ("labels-idx1", struct.pack(">2i", 2049, count) + labels.tobytes()),
        ):
            name = f"{part}-{what}-ubyte.gz"
            (folder / name).write_bytes(gzip.compress(content))
            table.append((name, md5(folder / name)))
    monkeypatch.setattr(datasets.FashionMNIST, "mirrors", [home])
    monkeypatch.setattr(datasets.FashionMNIST, "resources", table)


@pytest.mark.parametrize(
    ("serve", "name", "shape", "sizes", "classes"),
    [
        (serve_svhn, "svhn", (3, 32, 32), (36, 4, 20), 10),
        (serve_flowers, "flowers", (3, 224, 224), (15, 3, 12), 3),
        (serve_pets, "pets", (3, 224, 224), (18, 2, 10), 2),
        (serve_fashion, "fashion-mnist", (1, 28, 28), (36, 4, 20), 10),
    ],
)
def test_a_set_is_fetched_and_read(serve, name, shape, sizes, classes, server, tmp_path, monkeypatch):
    serve(monkeypatch, server)
    root, told = tmp_path / "data", []
    fetch(name, root, told.append)
    splits = load_splits(DataRecipe(name=name), root, 0)
    assert tuple(map(len, (splits.train, splits.validation, splits.test))) == sizes
    assert splits.shape == shape
    assert whole(splits.test).y.bincount().tolist() == [sizes[2] // classes] * classes
    got = sum(" from " in line for line in told)
    assert got == len(SETS[name].archives())
    told.clear()
    fetch(name, root, told.append)
    assert not any("from" in line or "unpacking" in line for line in told)
    assert not list(root.rglob(".*"))
    states = {row.state for row in verify(name, root) if "tar" in row.path.suffixes or row.path.suffix == ".mat"}
    assert states <= {"ok"}


def test_svhns_ten_is_a_nought_and_its_pixels_are_in_place(server, tmp_path, monkeypatch):
    serve_svhn(monkeypatch, server)
    fetch("svhn", tmp_path)
    splits = load_splits(DataRecipe(name="svhn"), tmp_path, 0)
    assert whole(splits.test).y.tolist() == [(k + 1) % 10 for k in range(20)]
    assert np.array_equal(splits.test.examples.x.numpy(), PIXELS[:20].transpose(0, 3, 1, 2))


def test_a_download_is_whole_and_right_or_not_there(server, tmp_path):
    folder, home = server
    (folder / "a.bin").write_bytes(b"official")
    path = tmp_path / "inner" / "a.bin"
    with pytest.raises(RecipeError, match="not the official file"):
        download(f"{home}a.bin", path, digest(b"other"))
    with pytest.raises(RecipeError, match="cannot be downloaded"):
        download(f"{home}b.bin", path, None)
    assert list(path.parent.iterdir()) == []
    download(f"{home}a.bin", path, digest(b"official"))
    assert [file.read_bytes() for file in path.parent.iterdir()] == [b"official"]


def test_an_archive_that_is_not_the_official_one_is_not_unpacked(server, tmp_path, monkeypatch):
    serve_pets(monkeypatch, server)
    (tmp_path / "oxford-iiit-pet").mkdir()
    (tmp_path / "oxford-iiit-pet" / "images.tar.gz").write_bytes(packed({"images/a.jpg": jpeg()}))
    with pytest.raises(RecipeError, match=r"images\.tar\.gz is not the official file"):
        prepare("pets", tmp_path)
    assert not (tmp_path / "oxford-iiit-pet" / "images").exists()


def synsets(names):
    """What the devkit's meta.mat holds."""
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O")]
    rows = [(k + 1, name, f"word {k}", "gloss", 0) for k, name in enumerate(names)]
    return mat(synsets=np.array([*rows, (9, "n9", "thing", "gloss", 2)], dtype=kinds))


def test_imagenet_is_sorted_into_classes(tmp_path, monkeypatch):
    names, root = ["n02", "n01"], tmp_path / "imagenet"
    truth = [1, 2, 2, 1]
    kit = "ILSVRC2012_devkit_t12/data"
    contents = {
        "devkit": packed(
            {
                f"{kit}/meta.mat": synsets(names),
                f"{kit}/ILSVRC2012_validation_ground_truth.txt": "".join(f"{k}\n" for k in truth).encode(),
            }
        ),
        "train": packed(
            {f"{name}.tar": packed({f"{name}_{k}.JPEG": jpeg(k) for k in range(6)}, "w:") for name in names},
            "w:",
        ),
        "val": packed({f"ILSVRC2012_val_{k}.JPEG": jpeg(k) for k in range(4)}, "w:"),
    }
    root.mkdir()
    table = {key: (imagenet.ARCHIVE_META[key][0], digest(content)) for key, content in contents.items()}
    monkeypatch.setattr(imagenet, "ARCHIVE_META", table)
    with pytest.raises(RecipeError, match="registered researchers"):
        fetch("imagenet", tmp_path)
    for key, content in contents.items():
        (root / table[key][0]).write_bytes(content)
    prepare("imagenet", tmp_path)
    assert sorted(path.name for path in (root / "val" / "n01").iterdir()) == [
        "ILSVRC2012_val_1.JPEG",
        "ILSVRC2012_val_2.JPEG",
    ]
    splits = load_splits(DataRecipe(name="imagenet", image_size=16), tmp_path, 0)
    assert (len(splits.train), len(splits.validation), splits.test.labels.tolist()) == (10, 2, [0, 0, 1, 1])
    rows = verify("imagenet", tmp_path)
    assert [row.state for row in rows] == ["ok"] * 3 + ["broken"]
    assert "12 + 4 pictures of 2 classes, not 1281167 + 50000" in rows[-1].note
    prepare("imagenet", tmp_path)
