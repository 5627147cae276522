"""The Hugging Face Trainer with chunked_head=True: the plain path's training, without its logits; what is refused."""

import copy
import functools

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bisam import ASAM, GSAM, SAM, BinaryLowerBoundLoss, BiSAM, CausalLMLoss, LowerBoundLoss
from bisam.losses import head as chunks

transformers = pytest.importorskip("transformers")
from bisam.integrations.transformers import SharpnessAwareTrainer  # noqa: E402
from tests.integrations.test_transformers import Rows, V, adamw, arguments, classifier, language_model, sgd  # noqa: E402

SMALL = {
    "vocab_size": V,
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 4,
    "max_position_embeddings": 8,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
}


def tokens(n=16):
    def labels(ids):
        ids = ids.clone()
        ids[1] = -100
        return ids

    return Rows(n, labels=labels, length=7)


def llama():
    torch.manual_seed(3)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL, tie_word_embeddings=True))


def capped():
    return transformers.Gemma2ForCausalLM(transformers.Gemma2Config(**SMALL, final_logit_softcapping=5.0))


def uncapped():
    torch.manual_seed(3)
    return transformers.Gemma2ForCausalLM(transformers.Gemma2Config(**SMALL, final_logit_softcapping=None))


def scaled():
    return transformers.CohereForCausalLM(transformers.CohereConfig(**SMALL, logit_scale=0.1))


def trained(model, path, opt=None, chunked=True, sharpness=None, rows=None, **choices):
    args = arguments(path, **choices)
    optimizers = {} if opt is None else {"optimizers": (opt, None)}
    trainer = SharpnessAwareTrainer(
        model, args, train_dataset=rows or tokens(), sharpness=sharpness, chunked_head=chunked, **optimizers
    )
    trainer.train()
    return trainer


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(chunks, "_CHUNK", 3 * V)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("make", [language_model, llama, uncapped])
@pytest.mark.parametrize(
    ("method", "choices"),
    [
        (SAM, {}),
        (ASAM, {}),
        (BiSAM, {}),
        (BiSAM, {"ascent": LowerBoundLoss("tanh")}),
        (BiSAM, {"ascent": CausalLMLoss(LowerBoundLoss("softsign"))}),
        (GSAM, {"ascent": LowerBoundLoss(), "third_pass": True}),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_training_is_that_of_all_logits(tmp_path, make, method, choices, accumulate):
    found = []
    for chunked in (True, False):
        model = make()
        opt = method(sgd(model), model=model, rho=0.2, **choices)
        before = copy.deepcopy(model.state_dict())
        trainer = trained(model, tmp_path, opt, chunked, gradient_accumulation_steps=accumulate)
        found.append(
            (model.state_dict(), opt.last.loss, opt.last.ascent_value, trainer.state.log_history[-1]["train_loss"])
        )
    for name, weight in found[0][0].items():
        torch.testing.assert_close(weight, found[1][0][name], rtol=1e-4, atol=1e-5)
    assert any(not torch.equal(weight, before[name]) for name, weight in found[1][0].items())
    for ours, theirs in zip(found[0][1:], found[1][1:], strict=True):
        torch.testing.assert_close(torch.as_tensor(ours), torch.as_tensor(theirs), rtol=1e-5, atol=1e-6)


class Largest(TorchDispatchMode):
    """The most classes by tokens that a result has had."""

    def __init__(self):
        super().__init__()
        self.logits = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.shape[-1:] == (V,):
                self.logits = max(self.logits, leaf.numel())
        return result


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("method", [SAM, BiSAM])
def test_the_logits_of_all_tokens_never_stand_in_memory(tmp_path, method):
    found = {}
    for chunked in (True, False):
        with Largest() as seen:
            trained(llama(), tmp_path, None, chunked, functools.partial(method, rho=0.1), max_steps=2)
        found[chunked] = seen.logits
    assert found[False] == 4 * 7 * V
    assert found[True] <= 8 * V  # the head's weight, transposed; three tokens a chunk


def test_evaluation_and_the_model_are_as_before(tmp_path):
    model, rows = llama(), tokens(8)
    forward = model.lm_head.forward
    trainer = trained(model, tmp_path, None, True, functools.partial(BiSAM, rho=0.1), max_steps=1)
    assert model.lm_head.forward == forward
    assert model.loss_function is transformers.loss.loss_utils.ForCausalLMLoss
    assert trainer.predict(rows).predictions.shape == (8, 7, V)


def test_mixed_precision(tmp_path):
    found = []
    for chunked in (True, False):
        model = llama()
        trained(model, tmp_path, BiSAM(sgd(model), model=model, rho=0.2), chunked, bf16=True, max_steps=2)
        found.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert (found[0] - found[1]).norm() < 1e-2 * (
        found[1] - torch.cat([p.flatten() for p in llama().parameters()])
    ).norm()


@pytest.mark.parametrize("make", [capped, scaled])
@pytest.mark.parametrize("method", [SAM, BiSAM])
def test_models_that_change_their_logits_are_refused_and_left_whole(tmp_path, make, method):
    model = make()
    with pytest.raises(ValueError, match=rf"{type(model).__name__}.*soft-capping.*leave out chunked_head"):
        trained(model, tmp_path, None, True, functools.partial(method, rho=0.1))
    assert "forward" not in vars(model.lm_head)
    assert model(torch.ones(1, 3, dtype=torch.long)).logits.shape == (1, 3, V)


class OwnLoss(SharpnessAwareTrainer):
    def compute_loss(self, *args, **kwargs):
        return super().compute_loss(*args, **kwargs)


def adapted():
    model = llama()
    model.lm_head = nn.Sequential(model.lm_head)
    return model


def hooked():
    model = llama()
    model.lm_head.register_forward_hook(lambda module, args, output: 2 * output)
    return model


@pytest.mark.parametrize(
    ("words", "make", "trainer", "choices"),
    [
        ("BertForSequenceClassification", classifier, SharpnessAwareTrainer, {}),
        ("label_smoothing_factor", llama, SharpnessAwareTrainer, {"label_smoothing_factor": 0.1}),
        (r"OwnLoss.compute_loss\(\)", llama, OwnLoss, {}),
        ("torch_compile", llama, SharpnessAwareTrainer, {"torch_compile": True}),
        ("no plain nn.Linear", adapted, SharpnessAwareTrainer, {}),
        ("no plain nn.Linear", hooked, SharpnessAwareTrainer, {}),
    ],
)
def test_what_is_refused_at_once(tmp_path, words, make, trainer, choices):
    with pytest.raises(ValueError, match=words):
        trainer(make(), arguments(tmp_path, **choices), sharpness=SAM, chunked_head=True)


def test_a_loss_function_of_ones_own_is_refused(tmp_path):
    args = arguments(tmp_path)
    with pytest.raises(ValueError, match="compute_loss_func"):
        SharpnessAwareTrainer(llama(), args, sharpness=SAM, chunked_head=True, compute_loss_func=lambda *a, **k: 0)


@pytest.mark.parametrize("ascent", [BinaryLowerBoundLoss(), lambda logits, labels: logits.sum()])
def test_an_ascent_that_takes_the_logits_is_refused(tmp_path, ascent):
    model = llama()
    with pytest.raises(ValueError, match=r"chunked_head=True climbs bisam.LowerBoundLoss"):
        trained(model, tmp_path, BiSAM(adamw(model), model=model, ascent=ascent))
