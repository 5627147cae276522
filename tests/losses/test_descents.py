"""Which lower bound BiSAM climbs under a descent objective, and which descents have none."""

import functools
import inspect
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import bisam
from bisam import SAM, BinaryLowerBoundLoss, BiSAM, CausalLMLoss, LowerBoundLoss
from bisam.functional import binary_lower_bound_loss
from bisam.losses import descents
from bisam.losses.descents import lower_bound_for
from bisam.testing import bits

TWO = nn.BCEWithLogitsLoss()


class Focal(nn.BCEWithLogitsLoss):
    def forward(self, z, y):
        return (
            torch.sigmoid(-z * (2 * y - 1)).square() * F.binary_cross_entropy_with_logits(z, y, reduction="none")
        ).mean()


class Age(nn.MSELoss):
    pass


def decorated(function):
    """As ``torch.compile`` and timers wrap a function."""

    @functools.wraps(function)
    def call(*args, **kwargs):
        return function(*args, **kwargs)

    return call


def problem(outputs, seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, outputs)).double()
    return model, torch.randn(8, 6).double()


def sgd(model):
    return torch.optim.SGD(model.parameters(), lr=0.1)


def train(opt, forward, target):
    """Two steps; return the values of both objectives."""
    values = []
    for _ in range(2):
        for objective in opt.passes():
            objective(forward(), target).backward()
            values.append(objective.value)
        opt.step()
        opt.zero_grad()
    return values


# -- binary problems just work -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "descent",
    [
        nn.BCEWithLogitsLoss(),
        nn.BCEWithLogitsLoss(pos_weight=torch.tensor(3.0)),
        nn.MultiLabelSoftMarginLoss(),
        Focal(),
        F.binary_cross_entropy_with_logits,
        torch.binary_cross_entropy_with_logits,
        F.multilabel_soft_margin_loss,
        functools.partial(F.binary_cross_entropy_with_logits, pos_weight=torch.tensor(3.0)),
        functools.partial(functools.partial(F.binary_cross_entropy_with_logits), reduction="sum"),
        TWO.forward,
        TWO.__call__,
        torch.compile(nn.BCEWithLogitsLoss()),
        decorated(F.binary_cross_entropy_with_logits),
    ],
)
def test_binary_cross_entropy_climbs_the_binary_bound(descent):
    ascent = lower_bound_for("tanh", 3.0, 0.2, descent=descent)
    assert type(ascent) is BinaryLowerBoundLoss
    assert (ascent.bound.alpha, ascent.mu, ascent.reduction) == (0.2, 3.0, "mean")


@pytest.mark.parametrize("shape", ["(B,)", "(B, 1)", "(B, 5)"])
def test_the_step_is_the_one_written_by_hand(shape):
    """Perturbed along the binary bound's gradient, to the bit as with an ascent objective of one's own."""
    weights = []
    for ascent in (None, lambda z, y: binary_lower_bound_loss(z, y, bound="tanh")):
        model, x = problem(5 if shape == "(B, 5)" else 1)
        y = (torch.rand(8, 5 if shape == "(B, 5)" else 1) > 0.5).double()
        forward = (lambda model=model, x=x: model(x).squeeze(-1)) if shape == "(B,)" else (lambda m=model, x=x: m(x))
        target = y[:, 0] if shape == "(B,)" else y
        choices = {"bound": "tanh"} if ascent is None else {"ascent": ascent}
        opt = BiSAM(sgd(model), model=model, rho=0.1, descent=nn.BCEWithLogitsLoss(), **choices)
        wrong = ((forward() > 0) != (target > 0.5)).double().mean().item()
        values = train(opt, forward, target)
        assert opt.last.perturbed
        assert values[0] <= wrong, "the value in the log is a lower bound of the share of wrong labels"
        weights.append(bits(model))
    assert weights[0] == weights[1]


def test_one_logit_perturbs_like_two():
    """A head of two logits under cross-entropy, and their difference under binary cross-entropy, climb one function."""
    model, x = problem(2)
    y = torch.randint(2, (8,))
    eps = []
    for binary in (False, True):
        opt = BiSAM(sgd(model), model=model, rho=0.1, **({"descent": nn.BCEWithLogitsLoss()} if binary else {}))
        before = [p.detach().clone() for p in model.parameters()]
        for objective in opt.passes():
            if not objective.is_ascent:
                eps.append([p.detach() - q for p, q in zip(model.parameters(), before, strict=True)])
            out = model(x)
            (objective(out[:, 1] - out[:, 0], y.double()) if binary else objective(out, y)).backward()
        model.zero_grad()
        opt.unwrap()
    for one, two in zip(*eps, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)


def test_integers_are_refused_in_the_first_pass_where_the_descent_refuses_them():
    model, x = problem(3)
    for descent, target, words in (
        (nn.BCEWithLogitsLoss(), torch.ones(8, 3, dtype=torch.long), r"int64.*target\.float\(\)"),
        (nn.BCEWithLogitsLoss(), torch.ones(8, 3, dtype=torch.bool), r"bool.*target\.float\(\)"),
        (nn.MultiLabelSoftMarginLoss(), torch.ones(8, 3, dtype=torch.bool), r"bool.*target\.float\(\)"),
        (nn.CrossEntropyLoss(), torch.ones(8, dtype=torch.int32), r"int32.*target\.long\(\)"),
        (nn.MultiMarginLoss(), torch.ones(8, dtype=torch.uint8), r"uint8.*target\.long\(\)"),
        (CausalLMLoss(nn.CrossEntropyLoss()), torch.ones(8, dtype=torch.int32), r"int32.*target\.long\(\)"),
    ):
        opt = BiSAM(sgd(model), model=model, descent=descent)
        with pytest.raises(TypeError, match=words):
            for objective in opt.passes():
                assert objective.index == 0
                objective(model(x), target).backward()
        with pytest.raises(RuntimeError, match=r"can't be cast|Subtraction|expected (target dtype|scalar type)"):
            descent(model(x), target)  # so the next pass would have failed
        opt.unwrap()
    opt = BiSAM(sgd(model), model=model, descent=nn.MultiLabelSoftMarginLoss())
    train(opt, lambda: model(x), torch.ones(8, 3, dtype=torch.long))


# -- losses of classes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "descent",
    [
        nn.CrossEntropyLoss(label_smoothing=0.1),
        nn.NLLLoss(),
        nn.MultiMarginLoss(),
        nn.KLDivLoss(reduction="batchmean"),
        F.cross_entropy,
        lambda output, y: F.cross_entropy(output, y),
    ],
)
def test_losses_of_classes_climb_the_bound_of_classes(descent):
    ascent = lower_bound_for("tanh", 3.0, 0.2, descent=descent)
    assert type(ascent) is LowerBoundLoss
    assert (ascent.bound.alpha, ascent.mu, ascent.ignore_index) == (0.2, 3.0, -100)


@pytest.mark.parametrize(
    "descent",
    [
        nn.CrossEntropyLoss(ignore_index=2),
        nn.NLLLoss(ignore_index=2),
        functools.partial(F.cross_entropy, ignore_index=2),
        functools.partial(nn.CrossEntropyLoss(ignore_index=2)),
        torch.compile(nn.CrossEntropyLoss(ignore_index=2)),
        CausalLMLoss(nn.CrossEntropyLoss(ignore_index=2)),
    ],
)
def test_what_the_descent_ignores_is_ignored(descent):
    assert BiSAM(sgd(problem(3)[0]), descent=descent).estimator.ascent.ignore_index == 2


@pytest.mark.parametrize(
    ("descent", "outputs"),
    [
        (nn.CrossEntropyLoss(reduction="none"), 3),
        (functools.partial(F.cross_entropy, reduction="none"), 3),
        (nn.BCEWithLogitsLoss(reduction="none"), 1),
    ],
)
def test_weights_of_samples_reach_the_ascent(descent, outputs):
    """A sample of weight 0 has no part in the perturbation; the mean of the bound would have kept it."""
    model, x = problem(outputs)
    y = torch.randint(3, (8,)) if outputs == 3 else (torch.rand(8, 1) > 0.5).double()
    keep = torch.arange(8) < 5
    moves = []
    for weighted in (True, False):
        opt = BiSAM(sgd(model), model=model, rho=0.1, descent=descent)
        before = [p.detach().clone() for p in model.parameters()]
        for objective in opt.passes():
            if not objective.is_ascent:
                moves.append([p.detach() - q for p, q in zip(model.parameters(), before, strict=True)])
            if weighted:
                (objective(model(x), y).reshape(8) * keep).sum().backward()
            else:
                objective(model(x[keep]), y[keep]).sum().backward()
        assert isinstance(opt.last.ascent_value, float)
        model.zero_grad()
        opt.unwrap()
    for one, two in zip(*moves, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("square", [False, True], ids=["T != V", "T == V"])
def test_a_language_models_descent_climbs_the_next_token(square):
    """Where T == V the labels (B, T) fit logits (B, V, T) as well, and the unshifted bound said nothing."""
    torch.manual_seed(0)
    words = 5 if square else 7
    model = nn.Sequential(nn.Embedding(words, 8), nn.Linear(8, words)).double()
    tokens = torch.randint(words, (2, 5))
    descent = CausalLMLoss(nn.CrossEntropyLoss())
    opt = BiSAM(sgd(model), model=model, bound="tanh", descent=descent)
    for objective in opt.passes():
        objective(model(tokens), tokens).backward()
    flat, target = model(tokens)[:, :-1].reshape(-1, words), tokens[:, 1:].reshape(-1)
    assert opt.last.ascent_value == pytest.approx(LowerBoundLoss("tanh")(flat, target).item(), rel=1e-12)
    assert isinstance(opt.estimator.ascent, CausalLMLoss)


# -- what has no classes -------------------------------------------------------------------------------------------

REFUSED = [
    (nn.MSELoss(), "SAM or ASAM.*bisam.LowerBoundLoss()"),
    (Age(), "SAM or ASAM"),
    (nn.MSELoss(reduction="none"), "SAM or ASAM"),
    (nn.L1Loss(), "SAM or ASAM"),
    (nn.SmoothL1Loss(), "SAM or ASAM"),
    (nn.HuberLoss(), "SAM or ASAM"),
    (nn.PoissonNLLLoss(), "SAM or ASAM"),
    (nn.GaussianNLLLoss(), "SAM or ASAM"),
    (nn.CosineEmbeddingLoss(), "SAM or ASAM"),
    (nn.HingeEmbeddingLoss(), "SAM or ASAM"),
    (nn.MarginRankingLoss(), "SAM or ASAM"),
    (nn.TripletMarginLoss(), "SAM or ASAM"),
    (nn.TripletMarginWithDistanceLoss(), "SAM or ASAM"),
    (nn.CTCLoss(), "SAM or ASAM"),
    (nn.BCELoss(), "descent=nn.BCEWithLogitsLoss()"),
    (F.binary_cross_entropy, "descent=nn.BCEWithLogitsLoss()"),
    (nn.SoftMarginLoss(), "(y + 1) / 2"),
    (F.soft_margin_loss, "(y + 1) / 2"),
    (nn.MultiLabelMarginLoss(), "nn.MultiLabelSoftMarginLoss()"),
    (nn.KLDivLoss(log_target=True), "target.exp()"),
    (functools.partial(F.kl_div, log_target=True), "target.exp()"),
    (F.mse_loss, "SAM or ASAM"),
    (F.l1_loss, "SAM or ASAM"),
    (F.smooth_l1_loss, "SAM or ASAM"),
    (F.huber_loss, "SAM or ASAM"),
    (functools.partial(F.mse_loss, reduction="sum"), "SAM or ASAM"),
    (torch.compile(nn.MSELoss()), "SAM or ASAM"),
    (decorated(F.mse_loss), "SAM or ASAM"),
    (nn.MSELoss().forward, "SAM or ASAM"),
]  # fmt: skip


@pytest.mark.parametrize(("descent", "remedy"), REFUSED, ids=map(str, range(len(REFUSED))))  # repr() has addresses
def test_a_descent_without_classes_is_refused_at_construction(descent, remedy):
    model, _ = problem(3)
    with pytest.raises(ValueError, match=r"(?s)^descent=.*( gives BiSAM no lower bound|logarithms)") as caught:
        BiSAM(sgd(model), model=model, descent=descent)
    for part in remedy.split(".*"):
        assert part in str(caught.value)
    SAM(sgd(model), model=model, descent=descent)  # the base is as it was, and SAM asks for no classes


def test_an_ascent_of_ones_own_is_not_questioned():
    model, x = problem(3)
    y = F.one_hot(torch.randint(3, (8,)), 3).double()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opt = BiSAM(sgd(model), model=model, ascent=LowerBoundLoss(), descent=nn.MSELoss())  # one-hot rows are classes
        train(opt, lambda: model(x), y)
    assert opt.last.perturbed
    opt.unwrap()
    model, x = problem(2)
    opt = BiSAM(sgd(model), model=model, ascent=nn.L1Loss(), descent=nn.MSELoss())
    train(opt, lambda: model(x), torch.randn(8, 2).double())
    assert opt.last.perturbed


@pytest.mark.parametrize(
    ("descent", "outputs", "target"),
    [
        (lambda o, y: F.mse_loss(o, y), 3, torch.randn(8, 3).double()),
        (lambda o, y: F.mse_loss(o, y), 1, torch.randn(8, 1).double()),
        (lambda o, y: F.binary_cross_entropy_with_logits(o, y), 1, torch.ones(8, 1).double()),
        (lambda o, y: F.binary_cross_entropy_with_logits(o, y), 5, torch.ones(8, 5).double()),
        (lambda o, y: F.binary_cross_entropy_with_logits(o[:, 0], y.double()), 1, torch.ones(8, dtype=torch.long)),
    ],
    ids=["regression", "one number", "one logit", "several labels", "one logit under indices"],
)
@pytest.mark.parametrize("method", [BiSAM, functools.partial(bisam.ASAM, ascent=LowerBoundLoss())])
def test_a_callable_of_ones_own_is_found_out_in_the_first_pass(descent, outputs, target, method):
    model, x = problem(outputs)
    before = [p.detach().clone() for p in model.parameters()]
    opt = method(sgd(model), model=model, descent=descent)
    with pytest.raises(ValueError, match="BinaryLowerBoundLoss"):
        train(opt, lambda: model(x), target)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
    assert all(p.grad is None for p in model.parameters())


def test_classes_and_names_are_still_answered_as_such():
    for descent in (nn.MSELoss, nn.BCEWithLogitsLoss, "ce"):
        with pytest.raises(TypeError, match="must be an objective"):
            BiSAM(sgd(problem(3)[0]), descent=descent)


def test_every_loss_of_torch_is_known():
    """A loss that a later torch brings belongs into one of the tables."""
    known = {*descents._BINARY, *descents._CLASSES, *descents._REFUSED}
    public = {
        name
        for name, kind in inspect.getmembers(nn, inspect.isclass)
        if kind.__module__ == "torch.nn.modules.loss" and name.endswith(("Loss", "Loss2d"))
    }
    assert public - known <= {"AdaptiveLogSoftmaxWithLoss", "NLLLoss2d"}
    functions = {row[0] for row in (*descents._BINARY.values(), *descents._REFUSED.values())}
    functions |= set(descents._CLASSES.values())
    losses = {name for name in dir(F) if name.endswith("_loss") or "cross_entropy" in name}
    assert {name for name in losses if not name.startswith("_")} - functions == set()
