"""CausalLMLoss: the next token's loss is transformers' own, and a plain loop of BiSAM over a small language model."""

import doctest

import pytest
import torch
from torch import nn

import bisam.losses.language
from bisam import SAM, BiSAM, CausalLMLoss, LowerBoundLoss

V = 17


def data(shape=(3, 6), ignored=True):
    labels = torch.randint(0, V, shape)
    if ignored:
        labels[0, :2] = -100
        labels[-1, -1] = -100
    return torch.randn(*shape, V), labels


def gpt2():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=V, n_positions=8, n_embd=8, n_layer=1, n_head=2, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0
    )
    config.bos_token_id = config.eos_token_id = 0
    return transformers.GPT2LMHeadModel(config)


def test_it_shifts_and_ignores():
    logits, labels = data()
    found = CausalLMLoss(nn.CrossEntropyLoss())(logits, labels)
    kept = [(b, t) for b in range(3) for t in range(5) if labels[b, t + 1] != -100]
    losses = [nn.functional.cross_entropy(logits[b, t], labels[b, t + 1]) for b, t in kept]
    assert 0 < len(kept) < 15
    torch.testing.assert_close(found, torch.stack(losses).mean())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_the_loss_of_transformers_bit_for_bit(dtype):
    loss_utils = pytest.importorskip("transformers.loss.loss_utils")
    logits, labels = data()
    ours, theirs = logits.to(dtype).requires_grad_(), logits.to(dtype).requires_grad_()
    loss = CausalLMLoss(nn.CrossEntropyLoss())(ours, labels)
    reference = loss_utils.ForCausalLMLoss(theirs, labels, vocab_size=V)
    assert torch.equal(loss, reference)
    loss.backward()
    reference.backward()
    assert torch.equal(ours.grad, theirs.grad)


def test_a_models_own_loss_and_output():
    model, labels = gpt2(), torch.randint(0, V, (2, 7))
    output = model(input_ids=labels, labels=labels)
    loss = CausalLMLoss(nn.CrossEntropyLoss())
    assert torch.equal(loss(output, labels), output.loss)
    assert torch.equal(loss(output.logits, labels), output.loss)


def test_doubles_stay_doubles():
    logits, labels = data()
    assert CausalLMLoss(nn.CrossEntropyLoss())(logits.double(), labels).dtype == torch.float64


def test_the_lower_bound_of_the_next_token():
    logits, labels = data()
    found = CausalLMLoss(LowerBoundLoss())(logits, labels)
    flat, target = logits[:, :-1].reshape(-1, V), labels[:, 1:].reshape(-1)
    torch.testing.assert_close(found, LowerBoundLoss()(flat, target))
    assert not torch.allclose(found, LowerBoundLoss()(logits.reshape(-1, V), labels.reshape(-1)))


def test_another_ignore_index_is_mirrored():
    logits, labels = data(ignored=False)
    labels[:, 3] = 5
    loss = CausalLMLoss(nn.CrossEntropyLoss(ignore_index=5))
    assert loss.ignore_index == 5
    marked = labels.masked_fill(labels == 5, -100)
    assert torch.equal(loss(logits, labels), CausalLMLoss(nn.CrossEntropyLoss())(logits, marked))
    loss.loss.ignore_index = 7
    assert loss.ignore_index == 7


def test_bisam_in_the_plain_loop():
    """Against two backward passes written out; the perturbation is large, so that either objective shows."""
    one, two = gpt2(), gpt2()
    two.load_state_dict(one.state_dict())
    x, rho = torch.randint(0, V, (4, 8)), 0.5
    opt = BiSAM(
        torch.optim.SGD(one.parameters(), lr=0.1),
        model=one,
        rho=rho,
        ascent=CausalLMLoss(LowerBoundLoss()),
        descent=CausalLMLoss(nn.CrossEntropyLoss()),
    )
    for objective in opt.passes():
        objective(one(x), x).backward()
    flat = two(x).logits[:, :-1].reshape(-1, V)
    params = list(two.parameters())
    g = torch.autograd.grad(LowerBoundLoss()(flat, x[:, 1:].reshape(-1)), params)
    norm = torch.cat([gi.flatten() for gi in g]).norm()
    with torch.no_grad():
        for p, gi in zip(params, g, strict=True):
            p += rho * gi / norm
    two(input_ids=x, labels=x).loss.backward()
    for a, b in zip(one.parameters(), params, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6)


def test_sam_learns_a_sequence():
    model = gpt2()
    opt = SAM(torch.optim.Adam(model.parameters(), lr=0.02), model=model, descent=CausalLMLoss(nn.CrossEntropyLoss()))
    x = torch.arange(8).expand(4, 8)
    values = []
    for _ in range(30):
        for objective in opt.passes():
            objective(model(x), x).backward()
        values.append(objective.value.item())
        opt.step()
        opt.zero_grad()
    assert values[-1] < 0.2 * values[0]


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss, "ce"])
def test_what_cannot_be_called_is_refused(loss):
    with pytest.raises(TypeError, match="can be called"):
        CausalLMLoss(loss)


def test_a_loss_that_ignores_nothing_is_refused():
    with pytest.raises(TypeError, match="ignore_index"):
        CausalLMLoss(nn.MSELoss())


@pytest.mark.parametrize("labels", [(3, 5), (18,), (3, 6, 1)])
def test_labels_of_another_shape_are_refused(labels):
    with pytest.raises(ValueError, match="not shifted"):
        CausalLMLoss(nn.CrossEntropyLoss())(torch.randn(3, 6, V), torch.zeros(labels, dtype=torch.long))


def test_an_output_without_logits_is_refused():
    logits, labels = data()
    with pytest.raises(TypeError, match="return_dict=True"):
        CausalLMLoss(nn.CrossEntropyLoss())((logits,), labels)


def test_docstring_example():
    found = doctest.testmod(bisam.losses.language, extraglobs={"torch": torch, "nn": nn})
    assert found.attempted > 0
    assert found.failed == 0
