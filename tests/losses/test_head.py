"""The loss of a linear head in chunks: values and gradients of the plain path, and a fraction of its memory."""

import doctest

import pytest
import torch
from torch import nn

import bisam.losses.head
from bisam import SAM, BiSAM, CausalLMLoss, ChunkedHeadLoss, LowerBoundLoss
from bisam.functional import linear_cross_entropy, linear_lower_bound_loss, lower_bound_loss
from bisam.losses.descents import lower_bound_for

LOSSES = [
    nn.CrossEntropyLoss(),
    nn.CrossEntropyLoss(label_smoothing=0.1, reduction="sum", ignore_index=3),
    LowerBoundLoss(),
    LowerBoundLoss("tanh", reduction="sum", ignore_index=3),
]
every_loss = pytest.mark.parametrize("loss", LOSSES, ids=repr)


def problem(dtype=torch.float64, bias=True, n=11, d=5, k=7):
    torch.manual_seed(0)
    head = nn.Linear(d, k, bias=bias).to(dtype)
    target = torch.randint(k, (n,))
    target[2], target[5] = -100, 3
    return head, torch.randn(n, d, dtype=dtype, requires_grad=True), target


def gradients(value, head, features):
    inputs = [features, *(p for p in head.parameters() if p.requires_grad)]
    return torch.autograd.grad(value, [x for x in inputs if x.requires_grad])


def without_ignored(loss, target):
    return target.where(target >= 0, torch.as_tensor(loss.ignore_index))


@every_loss
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("samples", [1, 4, None])
def test_equals_the_loss_of_all_logits(loss, bias, samples):
    head, features, target = problem(bias=bias)
    target = without_ignored(loss, target)
    value = ChunkedHeadLoss(head, loss, samples)(features, target)
    expected = loss(head(features), target)
    torch.testing.assert_close(value, expected)
    for ours, theirs in zip(
        gradients(2.5 * value, head, features), gradients(2.5 * expected, head, features), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


@every_loss
def test_first_and_second_derivatives(loss):
    head, features, target = problem(n=6)
    target = without_ignored(loss, target)
    weight, bias = head.weight.detach().requires_grad_(), head.bias.detach().requires_grad_()
    chunked = ChunkedHeadLoss(head, loss, samples=2)

    def of(f, w, b):
        return torch.func.functional_call(chunked, {"head.weight": w, "head.bias": b}, (f, target))

    assert torch.autograd.gradcheck(of, (features, weight, bias))
    assert torch.autograd.gradgradcheck(of, (features, weight, bias))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("autocast", [False, True])
def test_precision_is_that_of_the_widened_logits(dtype, autocast):
    """The sums over the chunks are taken in float32, so that 16 bits lose no more than on the plain path."""
    head, features, target = problem(dtype, n=300)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        value = ChunkedHeadLoss(head, nn.CrossEntropyLoss(), samples=7)(features, target)
        expected = nn.functional.cross_entropy(head(features).float(), target)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected)
    exact_head, exact = head.double(), features.detach().double().requires_grad_()
    right = gradients(nn.functional.cross_entropy(exact_head(exact), target), exact_head, exact)
    head.to(dtype)
    value.backward()
    for ours, theirs in zip((features.grad, head.weight.grad, head.bias.grad), right, strict=True):
        assert (ours.double() - theirs).norm() < (
            1e-5 if dtype == torch.float32 and not autocast else 1e-2
        ) * theirs.norm()


def test_functions_are_the_same_losses():
    head, features, target = problem()
    value = linear_cross_entropy(features, head.weight, target, head.bias, samples=3, label_smoothing=0.1)
    torch.testing.assert_close(value, nn.functional.cross_entropy(head(features), target, label_smoothing=0.1))
    value = linear_lower_bound_loss(features, head.weight, target, samples=3, bound="tanh", alpha=0.3, reduction="sum")
    expected = lower_bound_loss(features @ head.weight.t(), target, bound="tanh", alpha=0.3, reduction="sum")
    torch.testing.assert_close(value, expected)


def test_only_what_is_trained_gets_a_gradient():
    head, features, target = problem()
    head.requires_grad_(False)
    ChunkedHeadLoss(head, LowerBoundLoss(), 4)(features, target).backward()
    assert head.weight.grad is None
    assert features.grad is not None
    with torch.no_grad():
        assert not ChunkedHeadLoss(head, LowerBoundLoss(), 4)(features, target).requires_grad


def test_nothing_but_ignored_samples_and_no_sample_at_all():
    head, features, target = problem()
    for some in (slice(0, 0), slice(0, 3)):
        value = ChunkedHeadLoss(head, nn.CrossEntropyLoss(), 2)(features[some], torch.full_like(target[some], -100))
        assert value == 0
        assert all((g == 0).all() for g in gradients(value, head, features))


@pytest.mark.filterwarnings("ignore:.*should not be instantiated")  # Dynamo itself, in torch 2.6
def test_compiles_on_the_plain_path():
    head, features, target = problem()
    chunked = ChunkedHeadLoss(head, LowerBoundLoss(), 4)
    value = torch.compile(chunked, fullgraph=True, backend="aot_eager")(features, target)
    torch.testing.assert_close(value, chunked(features, target))


# -- in BiSAM ----------------------------------------------------------------------------------------------------------


def test_bisam_climbs_the_lower_bound_through_the_same_head():
    head, _, _ = problem()
    descent = CausalLMLoss(ChunkedHeadLoss(head, nn.CrossEntropyLoss(ignore_index=-1), 4))
    ascent = lower_bound_for("tanh", descent=descent)
    assert isinstance(ascent, CausalLMLoss)
    assert ascent.loss.head is head
    assert ascent.loss.samples == 4
    assert ascent.loss.loss.ignore_index == -1
    assert isinstance(ascent.loss.loss, LowerBoundLoss)


@pytest.mark.parametrize("method", [SAM, BiSAM])
def test_a_step_equals_that_of_the_plain_path(method):
    tokens = torch.randint(7, (3, 6))
    found = []
    for chunked in (True, False):
        torch.manual_seed(1)
        body, head = nn.Embedding(7, 5).double(), nn.Linear(5, 7).double()
        model = nn.ModuleList([body, head])
        inner = nn.CrossEntropyLoss()
        descent = CausalLMLoss(ChunkedHeadLoss(head, inner, 4) if chunked else inner)
        opt = method(torch.optim.SGD(model.parameters(), lr=0.1), model=model, rho=0.5, descent=descent)
        for objective in opt.passes():
            features = body(tokens)
            objective(features if chunked else head(features), tokens).backward()
        opt.step()
        found.append([p.detach() for p in model.parameters()])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


# -- memory, errors ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), LowerBoundLoss(), LowerBoundLoss("tanh")], ids=repr)
def test_peak_memory_is_below_a_quarter_of_the_plain_path(loss, monkeypatch):
    metered = pytest.importorskip("bisam_lab.bench.memory").metered  # the laboratory is not there on the oldest torch
    monkeypatch.setattr(bisam.losses.head, "_CHUNK", 2**18)  # as 2^24 is to 8192 x 50k
    head, target = nn.Linear(16, 3000), torch.randint(3000, (2048,))
    peaks = []
    for make in (lambda: ChunkedHeadLoss(head, loss), lambda: lambda f, y: loss(head(f), y)):
        features = torch.randn(2048, 16, requires_grad=True)
        head.zero_grad()
        with metered(features.device) as meter:
            make()(features, target).backward()
            peaks.append(meter.peak)
    assert peaks[0] < peaks[1] / 4


HEAD, FEATURES, TARGET = problem(torch.float32)


@pytest.mark.parametrize(
    ("error", "words", "call"),
    [
        (TypeError, ["head", "nn.Linear"], lambda: ChunkedHeadLoss(nn.Conv1d(5, 7, 1), nn.CrossEntropyLoss())),
        (TypeError, ["loss", "NLLLoss"], lambda: ChunkedHeadLoss(HEAD, nn.NLLLoss())),
        (ValueError, ["reduction='none'"], lambda: ChunkedHeadLoss(HEAD, LowerBoundLoss(reduction="none"))),
        (ValueError, ["weight"], lambda: ChunkedHeadLoss(HEAD, nn.CrossEntropyLoss(weight=torch.ones(7)))),
        (ValueError, ["samples=0"], lambda: ChunkedHeadLoss(HEAD, LowerBoundLoss(), samples=0)),
        (ValueError, ["features", "(11, 7)"], lambda: ChunkedHeadLoss(HEAD, LowerBoundLoss())(HEAD(FEATURES), TARGET)),
        (ValueError, ["target", "(3,)"], lambda: ChunkedHeadLoss(HEAD, LowerBoundLoss())(FEATURES, TARGET[:3])),
        (TypeError, ["target", "long()"], lambda: ChunkedHeadLoss(HEAD, LowerBoundLoss())(FEATURES, TARGET.float())),
        (TypeError, ["features", "int64"], lambda: linear_cross_entropy(FEATURES.long(), HEAD.weight, TARGET)),
        (ValueError, ["='none'"], lambda: linear_cross_entropy(FEATURES, HEAD.weight, TARGET, reduction="none")),
        (ValueError, ["samples=-1"], lambda: linear_cross_entropy(FEATURES, HEAD.weight, TARGET, samples=-1)),
        (ValueError, ["one device", "meta"], lambda: linear_cross_entropy(FEATURES, HEAD.weight, TARGET.to("meta"))),
        (ValueError, ["0..6"], lambda: ChunkedHeadLoss(HEAD, LowerBoundLoss())(FEATURES, TARGET + 7)),
    ],
)  # fmt: skip
def test_errors_name_the_argument_the_value_and_the_remedy(error, words, call):
    with pytest.raises(error) as caught:
        call()
    for word in words:
        assert word in str(caught.value)


def test_the_example_runs():
    assert doctest.testmod(bisam.losses.head, extraglobs={"torch": torch, "nn": nn}).failed == 0


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), LowerBoundLoss()], ids=repr)
def test_an_evaluation_computes_no_gradient(mode, loss, monkeypatch):
    head, features, target = problem()
    want = loss(head(features), target).detach()
    monkeypatch.setattr(torch.autograd, "grad", None)
    with mode():
        value = ChunkedHeadLoss(head, loss, 4)(features.detach(), target)
    torch.testing.assert_close(value, want)
    assert not value.requires_grad


def test_shapes_alone():
    head = nn.Linear(4, 5, device="meta")
    target = torch.zeros(6, dtype=torch.long, device="meta")
    ChunkedHeadLoss(head, LowerBoundLoss(), 2)(torch.randn(6, 4, device="meta"), target).backward()
    assert head.weight.grad.shape == (5, 4)
