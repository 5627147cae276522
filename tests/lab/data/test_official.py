"""Official sets in their official layouts, made small; got from a server, checked, unpacked, listed."""

import gzip
import hashlib
import http.server
import io
import json
import struct
import tarfile
import threading

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from torchvision import datasets
from torchvision.datasets import imagenet
from typer.testing import CliRunner

from bisam_lab.cli.data import data
from bisam_lab.data import load_splits, whole
from bisam_lab.data.official import download, fetch, prepare
from bisam_lab.data.verify import verify
from bisam_lab.datasets.checks import md5
from bisam_lab.datasets.registry import SETS
from bisam_lab.recipe import DataRecipe, RecipeError

PIXELS = np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3), dtype=np.uint8)


def jpeg(k=0):
    buffer = io.BytesIO()
    Image.fromarray(PIXELS[k]).save(buffer, "jpeg")
    return buffer.getvalue()


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


def command(*words):
    return CliRunner().invoke(data, [str(word) for word in words])


def test_the_list_names_every_set_of_a_recipe(tmp_path):
    (tmp_path / "flowers-102").mkdir()
    rows = json.loads(command("list", "--json", "--data-dir", tmp_path).stdout)
    assert [list(row) for row in rows] == [["name", "what", "examples", "licence", "where", "here"]] * len(rows)
    here = {row["name"]: row["here"] for row in rows}
    assert set(SETS) < set(here)
    assert (here["flowers"], here["pets"], here["digits"]) == (True, False, None)
    assert "Oxford flowers" in command("list").stdout
    for name in here:
        assert name == "cifar-n" or DataRecipe(name=name).name == name


@pytest.mark.parametrize("name", [name for name in SETS if ":" not in name and name != "digits"])
def test_an_empty_folder_is_said_to_lack_every_set(name, tmp_path):
    found = command("verify", name, "--data-dir", tmp_path)
    assert found.exit_code == 1
    assert "missing" in found.stdout
    assert "ok" not in found.stdout.split()


def test_the_packed_cifar_sets_are_told_apart_file_by_file(real_data):
    found = command("verify", "cifar10", "--data-dir", real_data("cifar10"), "--json")
    rows = {row["path"].rsplit("/", 1)[1]: row for row in json.loads(found.stdout)}
    assert found.exit_code == 1
    assert rows["data_batch_2.bin"]["state"] == "missing"
    assert rows["test_batch.bin"]["note"] == "not the official file: 20 images differ, by lossy_indices.json"
    found = command("verify", "cifar100", "--data-dir", real_data("cifar100"))
    assert found.exit_code == 0
    assert found.stdout.split()[::2] == ["ok"] * 3


def test_a_changed_byte_is_found(real_data, tmp_path):
    inner = tmp_path / "cifar-100-python"
    inner.mkdir()
    for name in ("train", "test"):
        (inner / name).symlink_to(real_data("cifar100") / "cifar-100-python" / name)
    content = bytearray((real_data("cifar100") / "cifar-100-python" / "meta").read_bytes())
    content[1000] ^= 1
    (inner / "meta").write_bytes(content)
    found = command("verify", "cifar100", "--data-dir", tmp_path)
    assert found.exit_code == 1
    assert f"broken  {inner / 'meta'}: MD5" in found.stdout
    assert f"Delete {inner}" in found.stderr
    assert f"bisam data fetch cifar100 --data-dir {tmp_path}" in found.stderr


def test_the_way_out_never_leads_through_the_data_dir_itself(tmp_path):
    """What is deleted is the set's own folder, and no folder that may hold anything else."""
    assert "Delete" not in command("verify", "pets", "--data-dir", tmp_path).stderr
    assert f"bisam data fetch pets --data-dir {tmp_path}" in command("verify", "pets", "--data-dir", tmp_path).stderr
    (tmp_path / "oxford-iiit-pet").mkdir()
    assert f"Delete {tmp_path / 'oxford-iiit-pet'}," in command("verify", "pets", "--data-dir", tmp_path).stderr
    (tmp_path / "train").mkdir()
    (tmp_path / "val").mkdir()
    assert "Delete" not in command("verify", "imagenet", "--data-dir", tmp_path).stderr


def test_folders_and_texts_are_verified_by_reading_them(tmp_path):
    for k in range(6):
        path = tmp_path / "own" / "ab"[k % 2] / f"{k}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg(k))
    name = f"folder:{tmp_path / 'own'}"
    assert command("verify", name).exit_code == 0
    assert "4 + 2 pictures of 2 classes, at 32 pixels" in command("prepare", name).stdout
    (tmp_path / "own" / "a" / "0.jpg").write_bytes(jpeg()[:400])
    for verb in ("verify", "prepare"):
        found = command(verb, name)
        assert found.exit_code == 1
        assert "0.jpg is broken or no picture" in found.stdout
    assert command("verify", f"text:{tmp_path / 'none'}").exit_code == 1


@pytest.mark.parametrize("verb", ["verify", "fetch", "prepare"])
def test_an_unknown_set_is_named(verb, tmp_path):
    found = command(verb, "flower", "--data-dir", tmp_path)
    assert isinstance(found.exception, RecipeError)
    assert "did you mean flowers?" in str(found.exception)
