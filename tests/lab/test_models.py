"""The networks: as many weights as published, the published error with published weights, and what may be brought."""

import re
import sys
import textwrap

import numpy as np
import pytest
import torch
from torch import nn

from bisam import SAM
from bisam_lab.models import TextClassifier, build_model
from bisam_lab.models.trial import try_out
from bisam_lab.recipe import ModelRecipe, RecipeError, load

BERT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 30}
BERT |= {"max_position_embeddings": 12}
VIT = {"patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}

OWN = """
    import torch
    from torch import nn
    from beside import WIDTH

    class Net(nn.Module):
        def __init__(self, num_classes, in_channels, width=WIDTH):
            super().__init__()
            self.body = nn.Sequential(nn.Flatten(), nn.LazyLinear(width), nn.BatchNorm1d(width), nn.ReLU())
            self.head = nn.Linear(width, num_classes)
            self.channels = in_channels
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x):
            self.calls = self.calls + 1
            return self.head(torch.dropout(self.body(x), 0.5, True))

    def flat(num_classes):
        return nn.Flatten()

    def pair(num_classes):
        return Pair()

    class Pair(nn.Module):
        def forward(self, x):
            return x, x

    def broken(num_classes):
        raise KeyError("nothing here")

    def wants(num_classes, size):
        return size

    built = nn.Linear(2, 2)
    number = 3
"""


def build(name, shape=(3, 32, 32), classes=10, **fields):
    return build_model(ModelRecipe(name=name, **fields), shape, classes)


def count(model):
    return sum(p.numel() for p in model.parameters())


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder with a model of the user's, as the working directory."""
    (tmp_path / "mine.py").write_text(textwrap.dedent(OWN))
    (tmp_path / "beside.py").write_text("WIDTH = 6\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in [n for n in sys.modules if n in ("mine", "beside") or n.startswith("_bisam_recipe_")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("name", "classes", "millions"),
    [
        ("resnet-20", 10, 0.27),  # He et al., arXiv 1512.03385, Table 6
        ("resnet-56", 10, 0.85),
        ("resnet-110", 10, 1.7),
        ("wrn-16-8", 10, 11.0),  # Zagoruyko & Komodakis, arXiv 1605.07146, tables of results
        ("wrn-40-4", 10, 8.9),
        ("wrn-28-10", 10, 36.5),
        ("wrn-28-2", 10, 1.5),  # Oliver et al., arXiv 1804.09170, Section 4
        ("densenet-121", 10, 6.96),  # da2so/DA2Lite, model_zoo/README.md
        ("vgg19-bn", 100, 20.09),  # the same
        ("vgg19-bn", 10, 20.04),  # that less 90 x 513 weights of the head
    ],
)
def test_parameter_counts_are_those_of_the_literature(name, classes, millions):
    with torch.device("meta"):
        counted = count(build(name, classes=classes)) / 1e6
    digits = len(str(millions).partition(".")[2])
    assert round(counted, digits) == millions


@pytest.mark.parametrize(
    ("name", "weights", "convolutions", "head"),
    [
        ("wrn-28-2-as-code", 1_855_578, 31, 0.0),  # 1.86 M
        ("wrn-28-10-as-code", 46_160_474, 31, 0.0),  # 46.16 M
        ("vgg19-bn-as-code", 20_565_834, 16, 3**-0.5 / 512**0.5),  # 20.57 M
        ("densenet-121-as-code", 6_956_298, 59, 3**-0.5 / 1024**0.5),
        ("resnet-56-as-code", 853_018, 55, (2 / 64) ** 0.5),
    ],
)
def test_the_networks_of_the_authors_code(name, weights, convolutions, head):
    """As many weights and 3 x 3 convolutions as there, and a head whose weights have the deviation that they have."""
    torch.manual_seed(0)
    with torch.device("meta" if name == "wrn-28-10-as-code" else "cpu"):  # 46 M weights are not drawn for nothing
        model = build(name)
    assert count(model) == weights
    assert sum(getattr(part, "kernel_size", None) == (3, 3) for part in model.modules()) == convolutions
    if not model.head.weight.is_meta:
        assert abs(model.head.weight.std() - head) < 0.05 * head + 1e-9


def variances(model):
    """How many times the variance of torch's own initialisation that of each large convolution is."""
    large = [part for part in model.modules() if isinstance(part, nn.Conv2d) and part.weight.numel() > 20_000]
    return [round(float(part.weight.detach().var() * 3 * part.weight[0].numel()), 1) for part in large]


def test_initial_weights_of_the_authors_code():
    """The variance is 2 over the inputs; torch's own is 1/3 over them, a sixth."""
    assert all(abs(each - 6) < 0.2 for each in variances(build("wrn-28-2-as-code")))
    assert min(variances(build("wrn-28-2"))) < 3.2  # 2 over the outputs, which are twice as many
    assert all(abs(each - 1) < 0.1 for each in variances(build("densenet-121-as-code", options={"growth": 16})))
    assert min(variances(build("densenet-121", options={"growth": 16}))) > 5.8
    biases = [build(f"resnet-56{end}").head.bias.abs().max() for end in ("", "-as-code")]
    assert biases[0] == 0 < biases[1] <= 64**-0.5


def test_dropout_and_hidden_layers_of_vgg():
    model = build("vgg19-bn-as-code", options={"width": 4})
    assert [type(part).__name__ for part in model.hidden] == ["Linear", "ReLU", "Dropout", "Linear", "ReLU"]
    assert (model.dropout.p, model.hidden[2].p) == (0.5, 0.5)
    assert len(build("vgg19-bn", options={"width": 4, "dropout": 0.2}).hidden) == 0


def renamed(theirs, depth):
    """Give the weights of github.com/akamaster/pytorch_resnet_cifar10 our names."""
    blocks, names = (depth - 2) // 6, {}
    for key in theirs:
        name = re.sub(r"^module\.(conv|bn)1", r"\1", key).replace("module.linear", "head")
        names[key] = re.sub(
            r"module\.layer(\d)\.(\d+)", lambda m: f"blocks.{(int(m[1]) - 1) * blocks + int(m[2])}", name
        )
    return {names[key]: value for key, value in theirs.items()}


@pytest.mark.slow
@pytest.mark.parametrize(("depth", "images", "right"), [(20, 10_000, 9173), (56, 2000, 1859)])
@torch.inference_mode()
def test_published_weights_reach_their_published_error(depth, images, right, real_data, tmp_path):
    """On CIFAR-10's test set, to the last image: the network is the one that they were trained in.

    On all images ResNet-56 has its published 93.39 %, too, in half a minute.
    """
    (file,) = (real_data("checkpoints") / "checkpoints").glob(f"resnet{depth}-*.th")
    theirs = torch.load(file, map_location="cpu", weights_only=True)["state_dict"]
    torch.save(renamed(theirs, depth), tmp_path / "ours.pt")
    model = build(f"resnet-{depth}", checkpoint=str(tmp_path / "ours.pt")).eval().to(memory_format=torch.channels_last)
    rows = np.fromfile(real_data("cifar10") / "cifar-10-batches-bin" / "test_batch.bin", np.uint8).reshape(-1, 3073)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    assert len(rows) == 10_000
    found = 0
    for part in torch.from_numpy(rows[:images]).split(50):
        x = (part[:, 1:].reshape(-1, 3, 32, 32) / 255 - mean) / std
        found += int((model(x.to(memory_format=torch.channels_last)).argmax(1) == part[:, 0]).sum())
    assert found == right


TRAINED = {
    "resnet-8": {"width": 4},
    "wrn-10-1": {"dropout": 0.1},
    "densenet-121": {"growth": 4},
    "vgg19-bn": {"width": 4},
    "timm:vit_tiny_patch16_224": VIT,
    "mine.py:Net": {},
}


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 12, 12)])
def test_sam_trains_them(name, shape, own):
    if name.startswith("timm:"):
        pytest.importorskip("timm")
    model = build(name, shape, 3, options=TRAINED[name])
    shades = (torch.arange(12) % 3 - 1.0).view(12, 1, 1, 1)
    train(model, shades + 0.3 * torch.randn(12, *shape))


def train(model, x, lr=0.02):
    y = torch.arange(len(x)) % 3
    opt = SAM(torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9), model=model, rho=0.01)
    losses = []
    for _ in range(12):
        for loss in opt.passes():
            value = loss(model(x), y)
            value.backward()
        losses.append(value.item())
        opt.step()
        opt.zero_grad()
    assert min(losses[-4:]) < 0.9 * losses[0]


@pytest.mark.parametrize("name", ["densenet-121", "vgg19-bn", "vgg19-bn-as-code", "wrn-10-1", "resnet-8"])
@pytest.mark.parametrize("side", [4, 28, 33])
def test_images_of_any_size(name, side):
    small = {"densenet-121": {"growth": 2}, "vgg19-bn": {"width": 2}, "vgg19-bn-as-code": {"width": 2}}.get(name, {})
    assert build(name, (1, side, side), 5, options=small).eval()(torch.randn(2, 1, side, side)).shape == (2, 5)


@pytest.mark.parametrize(
    ("name", "shape", "options"),
    [(name, (3, 12, 12), options) for name, options in TRAINED.items()] + [("hf:bert", (3, 6), BERT)],
)
def test_weights_depend_on_the_seed_alone(name, shape, options, own):
    """And of a network that is tried out, neither buffers nor mode nor random numbers tell of it."""
    states = []
    for _ in range(2):
        torch.manual_seed(5)
        model = build(name, shape, 3, options=options)
        assert all(module.training for module in model.modules())
        states.append(model.state_dict())
        torch.rand(7)
    assert all(torch.equal(a, b) for a, b in zip(*(s.values() for s in states), strict=True))


def test_trying_out_changes_nothing():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.BatchNorm1d(3, momentum=1.0), nn.Dropout()).train()
    model[2].eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    random = torch.get_rng_state()

    @model.register_forward_hook
    def _(module, args, out):
        module[2].running_mean.fill_(torch.rand(()).item())

    try_out(model, "mine:net", (1, 2, 2), 3)
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in model] == [True, True, False, True]
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_text_goes_in_as_one_tensor():
    pytest.importorskip("transformers")
    model = build("hf:bert", (3, 6), 3, options=BERT)
    assert isinstance(model, TextClassifier)
    x = torch.stack((torch.randint(30, (12, 6)), torch.ones(12, 6).long(), torch.zeros(12, 6).long()), dim=1)
    x[:, 1, 4:] = 0
    other, typed = x.clone(), x.clone()
    other[:, 0, 4:] = 0  # behind the mask
    typed[:, 2] = 1
    model.eval()
    torch.testing.assert_close(model(x), model(other))
    torch.testing.assert_close(model(x), model.model(x[:, 0], attention_mask=x[:, 1]).logits)
    assert not torch.allclose(model(x), model(typed))
    x[:, 0, 0] = torch.arange(12) % 3
    train(model.train(), x, lr=0.1)


def test_text_classifiers_without_token_types():
    pytest.importorskip("transformers")
    options = {"dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 16, "vocab_size": 30}
    assert not build("hf:distilbert", (3, 6), 3, options=options).typed


@pytest.mark.filterwarnings("default:model.name")
def test_pretrained_text_classifier_from_a_folder(tmp_path):
    pytest.importorskip("transformers")
    name = f"hf:{tmp_path}"
    first = build("hf:bert", (3, 6), 3, options=BERT)
    first.model.save_pretrained(tmp_path)
    same = build(name, (3, 6), 3, pretrained=True)
    assert all(torch.equal(a, b) for a, b in zip(same.state_dict().values(), first.state_dict().values(), strict=True))
    assert all(module.training for module in same.modules())
    with pytest.warns(UserWarning, match=r"not pretrained are classifier\.bias, classifier\.weight$"):
        other = build(name, (3, 6), 4, pretrained=True)
    assert torch.equal(other.model.bert.pooler.dense.weight, first.model.bert.pooler.dense.weight)
    fresh = build(name, (3, 6), 3, options={"hidden_dropout_prob": 0.3})
    assert fresh.model.config.hidden_dropout_prob == 0.3
    assert not torch.equal(fresh.model.bert.pooler.dense.weight, first.model.bert.pooler.dense.weight)
    with pytest.raises(RecipeError, match=r"other shapes .*word_embeddings"):
        build(name, (3, 6), 3, pretrained=True, options={"vocab_size": 31})
    with pytest.raises(RecipeError, match=r"hiden_size .*did you mean hidden_size"):
        build(name, (3, 6), 3, options={"hiden_size": 3})


def test_timm_is_told_the_size_of_the_images():
    pytest.importorskip("timm")
    model = build("timm:vit_tiny_patch16_224", (1, 12, 12), 3, options=VIT)
    assert model.patch_embed.num_patches == 9
    assert build("timm:test_resnet", (1, 12, 12), 3)(torch.randn(2, 1, 12, 12)).shape == (2, 3)


def test_own_models_are_found_anew_when_their_file_changes(own):
    assert build("mine.py:Net", classes=4).head.weight.shape == (4, 6)
    assert build(f"{own}/mine.py:Net", options={"width": 5}).channels == 3
    assert build("mine.py:Net", (1, 8, 8)).channels == 1
    assert type(build("mine.py:Net")) is type(build("mine.py:Net"))
    assert build("mine:Net").head.in_features == 6  # as a module of the working directory
    (own / "mine.py").write_text(textwrap.dedent(OWN).replace("width=WIDTH", "width=9"))
    assert build("mine.py:Net").head.in_features == 9


@pytest.mark.parametrize(
    ("name", "fields", "words"),
    [
        ("resnet-9", {}, ["depth=9", "nearest is 8"]),
        ("wrn-28-0", {}, ["widen=0"]),
        ("wrn-27-2", {}, ["depth=27", "nearest is 28"]),
        ("wrn-28-2", {"options": {"units": 0}}, ["units=0", "leave it out for 4"]),
        ("vgg19-bn", {"options": {"hidden": -1}}, ["hidden=-1", "has 2"]),
        ("resnet-8", {"options": {"init": "as_code"}}, ["init='as_code'", "usual, as-code"]),
        ("densenet-121", {"options": {"blocks": []}}, ["blocks=[]"]),
        ("vgg19-bn", {"options": {"width": 0}}, ["width=0"]),
        ("vgg19-bn", {"options": {"widht": 2}}, ["widht"]),
        ("hf:bert", {"options": BERT}, ["reads texts", "(3, 32, 32)"]),
        ("other.py:Net", {}, ["there is no file", "other.py", "working directory"]),
        ("other.thing:Net", {}, ["no module other", "other/thing.py:Net"]),
        ("mine.py:Nett", {}, ["has no Nett", "did you mean Net?"]),
        ("mine.py:number", {}, ["is a int, not a class or function"]),
        ("mine.py:built", {}, ["is a network already"]),
        ("mine.py:broken", {}, ["raised KeyError at", "mine.py:29", "nothing here"]),
        ("mine.py:wants", {}, ["missing a required argument: 'size'", "model.options"]),
        ("mine.py:wants", {"options": {"size": 3}}, ["returned a int", "torch.nn.Module"]),
        ("mine.py:flat", {}, ["returns shape (2, 3072)", "(2, 10)"]),
        ("mine.py:pair", {}, ["returns a tuple", "logits alone"]),
        ("mine.py:Net", {"options": {"num_classes": 3}}, ["model.options.num_classes", "leave it out"]),
        ("bad.py:Net", {}, ["importing", "bad.py", "SyntaxError"]),
        ("quits.py:Net", {}, ["raised SystemExit", "quits.py:2"]),
    ],
)
def test_what_is_wrong_is_said(name, fields, words, own):
    (own / "bad.py").write_text("def Net(:\n")
    (own / "quits.py").write_text("import sys\nsys.exit('usage: me')\n")
    with pytest.raises(RecipeError) as caught:
        build(name, **fields)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("library", "name", "shape", "fields", "words"),
    [
        ("timm", "timm:vit_tiny_patch16_225", (3, 32, 32), {}, ["timm has no", "did you mean vit_tiny_patch16_224?"]),
        ("timm", "timm:vit_tiny_patch16_224", (3, 32, 32), {"options": {"depht": 1}}, ["raised TypeError", "depht"]),
        ("timm", "timm:vit_tiny_patch16_224", (3, 6), {}, ["reads images"]),
        ("transformers", "hf:bert", (3, 6), {"options": {"hiden_size": 3}}, ["did you mean hidden_size?"]),
        ("transformers", "hf:bert", (3, 13), {"options": BERT}, ["a first pass raised", "(B, 3, 13)"]),
        ("transformers", "hf:bert", (3, 6), {"options": {**BERT, "num_attention_heads": 3}}, ["raised ValueError"]),
        ("transformers", "hf:vit", (3, 6), {}, ["raised ValueError", "ViTConfig"]),
        ("transformers", "hf:./no-such-folder", (3, 6), {}, ["model.options", "raised"]),
    ],
)
def test_what_is_wrong_with_libraries_is_said(library, name, shape, fields, words, monkeypatch):
    pytest.importorskip(library)
    with pytest.raises(RecipeError) as caught:
        build(name, shape, 3, **fields)
    for word in words:
        assert word in str(caught.value)
    monkeypatch.setitem(sys.modules, library, None)
    if "reads" not in words[0]:
        with pytest.raises(RecipeError, match=rf"needs {library} .*pip install"):
            build(name, shape, 3, **fields)


def test_only_published_networks_are_pretrained():
    with pytest.raises(RecipeError, match=r"resnet-8 can start from a file of your own: model\.checkpoint"):
        load("digits", ["model.pretrained=true"])
    assert load("digits", ["model.name=hf:bert", "model.pretrained=true"]).model.pretrained


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"model": s, "epoch": 3}, lambda s: {"state_dict": s}])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_weights_from_a_file(wrap, prefix, tmp_path):
    first = build("wrn-10-1")
    torch.save(wrap({prefix + key: value for key, value in first.state_dict().items()}), tmp_path / "w.pt")
    second = build("wrn-10-1", checkpoint=str(tmp_path / "w.pt"))
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def test_weights_but_for_the_head(tmp_path):
    first, file = build("wrn-10-1", classes=10), str(tmp_path / "w.safetensors")
    pytest.importorskip("safetensors.torch").save_file(first.state_dict(), file)
    torch.manual_seed(1)
    fresh = build("wrn-10-1", classes=7)
    torch.manual_seed(1)
    with pytest.warns(UserWarning, match=r"head\.bias, head\.weight start at their initialisation"):
        tuned = build("wrn-10-1", classes=7, checkpoint=file)
    assert torch.equal(tuned.head.weight, fresh.head.weight)
    assert torch.equal(tuned.blocks[2].conv1.weight, first.blocks[2].conv1.weight)
    assert torch.equal(build("wrn-10-1", checkpoint=file).head.weight, first.head.weight)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            {"wrn": "vgg19-bn"},
            ["another network", "missing: conv.weight", "unexpected: blocks.", "of other shapes: head.weight"],
        ),
        ({"wrn": "wrn-10-2"}, ["of other shapes: blocks.0.conv1.weight (32, 16, 3, 3) for (16, 16, 3, 3)"]),
        ({"drop": "bn.weight"}, ["missing: bn.weight"]),
        ({"drop": "head.bias"}, ["missing: head.bias"]),
        ({"save": {"model": 3}}, ["holds no weights"]),
        ({"save": re.compile}, ["cannot be read"]),
        ({"bytes": b"hello"}, ["cannot be read"]),
        ({}, ["no such file"]),
    ],
)
def test_weights_that_do_not_fit(content, words, tmp_path):
    file = tmp_path / "w.pt"
    if "bytes" in content:
        file.write_bytes(content["bytes"])
    elif content:
        state = build(content.get("wrn", "wrn-10-1")).state_dict()
        state.pop(content.get("drop"), None)
        torch.save(content.get("save", state), file)
    with pytest.raises(RecipeError) as caught:
        build("wrn-10-1", checkpoint=str(file))
    for word in [*words, "model.checkpoint="]:
        assert word in str(caught.value)
