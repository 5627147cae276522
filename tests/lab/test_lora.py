"""Low-rank adapters of a recipe: what is trained, what is perturbed, and where none can be put."""

import pytest
import torch

from bisam import SAM
from bisam_lab.models import build_model
from bisam_lab.recipe import ModelRecipe, RecipeError

BERT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 30}
VIT = {"patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}


def build(name, options, shape=(3, 5), **lora):
    torch.manual_seed(0)
    return build_model(ModelRecipe(name=name, options=options, lora=lora), shape, 3)


def trained(model):
    return {key for key, parameter in model.named_parameters() if parameter.requires_grad}


def test_adapters_and_head_alone_are_trained_and_perturbed():
    pytest.importorskip("peft")
    plain, model = build("hf:bert", BERT), build("hf:bert", BERT, r=4)
    x = torch.stack([torch.randint(30, (4, 5)), torch.ones(4, 5).long(), torch.zeros(4, 5).long()], 1)
    torch.testing.assert_close(model.eval()(x), plain.eval()(x))  # the adapters' product is zero at first
    assert {key.partition(".lora_")[0].rpartition(".")[2] for key in trained(model) if "lora_" in key} == {
        "query",
        "value",
    }
    assert {key for key in trained(model) if "lora_" not in key} == {"model.classifier.weight", "model.classifier.bias"}
    layer = model.model.bert.encoder.layer[0].attention.self.query
    assert layer.r["default"] == 4
    assert layer.scaling["default"] == 2.0
    before = {key: p.clone() for key, p in model.named_parameters()}
    opt = SAM(torch.optim.AdamW(model.parameters(), lr=0.01), model=model, rho=0.5)
    seen = []
    for objective in opt.passes():
        seen.append({key for key, p in model.named_parameters() if not torch.equal(p, before[key])})
        objective(model(x), torch.tensor([0, 1, 2, 0])).backward()
    opt.step()
    moved = {key for key, p in model.named_parameters() if not torch.equal(p, before[key])}
    assert seen[1] <= trained(model)
    assert seen[1]
    assert moved <= trained(model)
    assert any("lora_B" in key for key in moved)


def test_a_vit_has_adapters_where_it_is_told():
    pytest.importorskip("peft")
    pytest.importorskip("timm")
    model = build("timm:vit_tiny_patch16_224", VIT, (3, 16, 16), r=2, alpha=6.0, targets=["qkv"])
    assert {key for key in trained(model) if "lora_" not in key} == {"head.weight", "head.bias"}
    assert model.blocks[0].attn.qkv.scaling["default"] == 3.0
    with pytest.raises(RecipeError, match=r"peft knows no usual layers .*such as \[qkv, proj, fc1, fc2\]"):
        build("timm:vit_tiny_patch16_224", VIT, (3, 16, 16), r=2)
    with pytest.raises(RecipeError, match=r"peft raised .*model\.lora\.targets names layers") as error:
        build("timm:vit_tiny_patch16_224", VIT, (3, 16, 16), r=2, targets=["nothing"])
    assert "\n" not in str(error.value)


def test_settings_of_adapters_that_are_off_are_refused():
    with pytest.raises(ValueError, match=r"alpha=8\.0 has no effect without adapters: set model\.lora\.r=8"):
        ModelRecipe(name="hf:bert", lora={"alpha": 8})
