"""What an audit measures, against plain textbook versions; and that it leaves the network alone."""

import copy
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn

import bisam
import bisam_lab
from bisam_lab.auditing import Row
from bisam_lab.auditing.measure import Climbed, Score
from bisam_lab.auditing.rows import _at_equal_loss
from bisam_lab.auditing.words import verdicts


def linear(classes=3, inputs=5):
    torch.manual_seed(1)
    return nn.Linear(inputs, classes).double()


def with_norm():
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(5, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3)).double()
    net.train()
    for _ in range(20):
        net(2 * torch.randn(64, 5).double() + 1)
    return net


def pairs(n=3, size=16, seed=2, classes=3):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, size, 5, generator=generator).double()
    y = torch.randint(0, classes, (n, size), generator=generator)
    return list(zip(x, y, strict=True))


def by(found, **wanted):
    (row,) = [row for row in found.rows() if all(row[key] == value for key, value in wanted.items())]
    return row


def gradient(net, x, y, loss):
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss(net(x), y), list(net.parameters()))])


def at(net, eps, x, y):
    """Error and cross-entropy at w + eps, without the library."""
    before = nn.utils.parameters_to_vector(net.parameters()).clone()
    with torch.no_grad():
        nn.utils.vector_to_parameters(before + eps, net.parameters())
        logits = net(x)
        nn.utils.vector_to_parameters(before, net.parameters())
    return float((logits.argmax(1) != y).double().mean()), float(F.cross_entropy(logits, y))


LOSSES = {
    "sam": F.cross_entropy,
    "smoothed": lambda z, y: F.cross_entropy(z, y, label_smoothing=0.1),
    "bisam-tanh": lambda z, y: bisam.functional.lower_bound_loss(z, y, bound="tanh"),
    "bisam-log": lambda z, y: bisam.functional.lower_bound_loss(z, y, bound="log"),
}


def test_rows_are_those_of_the_textbook():
    net, batches, others = linear(), pairs(), pairs(seed=3)
    found = bisam_lab.audit(net, batches, adversaries=list(LOSSES), rhos=[0.3, 0.9], held_out=others)
    for name, loss in LOSSES.items():
        gradients = [gradient(net, x, y, loss) for x, y in batches]
        of_sam = [gradient(net, x, y, F.cross_entropy) for x, y in batches]
        cosines = [float(F.cosine_similarity(g, s, 0)) for g, s in zip(gradients, of_sam, strict=True)]
        for rho in (0.3, 0.9):
            rises = []
            for (x, y), (u, v), g in zip(batches, others, gradients, strict=True):
                eps, nothing = rho * g / g.norm(), torch.zeros_like(g)
                rises.append([*np.subtract(at(net, eps, x, y), at(net, nothing, x, y)),
                              *np.subtract(at(net, eps, u, v), at(net, nothing, u, v))])  # fmt: skip
            error, nats, held_out, held_out_nats = np.mean(rises, axis=0)
            row = by(found, adversary=name, rho=rho, statistics="batch")
            assert row["rise_error_batch"] == pytest.approx(100 * error)
            assert row["rise_loss_batch"] == pytest.approx(nats)
            assert row["rise_error_held_out"] == pytest.approx(100 * held_out)
            assert row["rise_loss_held_out"] == pytest.approx(held_out_nats)
            assert row["error_per_nat"] == pytest.approx(100 * error / nats)
            assert row["cosine_median"] == pytest.approx(np.median(cosines))
            assert row["cosine_least"] == pytest.approx(min(cosines))
            assert row["eps_cosine_median"] == pytest.approx(np.median(cosines))
            assert row["eps_norm"] == pytest.approx(rho)
            assert (row["n"], row["no_gradient"]) == (3, 0)


def test_differences_are_paired_with_sam_and_corrected():
    found = bisam_lab.audit(
        linear(), pairs(6), adversaries=["sam", "bisam-log", "random"], rhos=[0.5, 1], held_out=pairs(6, seed=4)
    )
    p_values = {}
    for name in ("bisam-log", "random"):
        for rho in (0.5, 1.0):
            points = [p for p in found.points if p["statistics"] == "batch" and p["rho"] == rho]
            mine, sam = ([p["rise_error_batch"] for p in points if p["adversary"] == one] for one in (name, "sam"))
            row, test = by(found, adversary=name, rho=rho, statistics="batch"), stats.ttest_rel(mine, sam)
            assert row["difference_batch"] == pytest.approx(np.mean(mine) - np.mean(sam))
            assert [row["difference_batch_low"], row["difference_batch_high"]] == pytest.approx(
                test.confidence_interval()
            )
            p_values[name, rho] = test.pvalue, row["difference_batch_p"]
    plain, adjusted = zip(*sorted(p_values.values()), strict=True)
    holm = np.minimum(1, np.maximum.accumulate(np.array(plain) * [4, 3, 2, 1]))
    assert adjusted == pytest.approx(holm)
    assert math.isnan(by(found, adversary="sam", rho=1.0, statistics="batch")["difference_batch"])


def test_weights_are_the_gradients_at_the_logits():
    net, batches = linear(), pairs(2)
    found = bisam_lab.audit(net, batches, adversaries=["bisam-log"], rhos=[0.1])
    effective, shares = [], np.zeros(4)
    for x, y in batches:
        z = (4 * net(x)).detach() / 4
        z.requires_grad_()
        (g,) = torch.autograd.grad(LOSSES["bisam-log"](z, y), z)
        w = g.norm(dim=1).numpy()
        others = z.detach().clone()
        others[range(len(y)), y] = -math.inf
        margin = (z.detach()[range(len(y)), y] - others.amax(1)).numpy()
        effective.append(w.sum() ** 2 / (w**2).sum())
        kind = np.digitize(margin, [0, 2, 5], right=True)
        shares += np.bincount(kind, w / w.sum(), minlength=4) / 2
    row = by(found, adversary="bisam-log", rho=0.1, statistics="batch")
    assert row["effective_samples"] == pytest.approx(np.mean(effective))
    told = [row[key] for key in ("weight_wrong", "weight_within_2", "weight_within_5", "weight_beyond")]
    assert told == pytest.approx(shares)
    assert sum(told) == pytest.approx(1)
    assert sum(found.margins["batch"].weights["bisam-log"]) == pytest.approx(1)
    assert sum(found.margins["batch"].share) == pytest.approx(1)


def test_batch_statistics_are_those_of_training_and_running_ones_those_of_evaluation():
    net, batches = with_norm(), pairs(2, size=32)
    found = bisam_lab.audit(net, batches, adversaries=["sam"], rhos=[0.4], held_out=batches)
    whole = net
    for kind in ("batch", "running"):
        net = copy.deepcopy(whole).eval()
        net[1].train(kind == "batch")
        rises = []
        for x, y in batches:
            g = gradient(net, x, y, F.cross_entropy)
            rises.append(np.subtract(at(net, 0.4 * g / g.norm(), x, y), at(net, 0 * g, x, y)))
        row = by(found, adversary="sam", statistics=kind)
        assert [row["rise_error_batch"] / 100, row["rise_loss_batch"]] == pytest.approx(np.mean(rises, axis=0))
        assert row["rise_loss_held_out"] == pytest.approx(row["rise_loss_batch"])
    assert by(found, statistics="batch")["rise_loss_batch"] != by(found, statistics="running")["rise_loss_batch"]


def state(net):
    return [*(p.detach().clone() for p in net.parameters()), *(b.clone() for b in net.buffers())]


@pytest.mark.parametrize("names", [["sam", "bisam-log", "random"], ["projected", "msam", "subbatch", "esam+asam"]])
def test_the_network_is_left_as_it_was(names):
    net = with_norm()
    net[0].eval()
    net[4].weight.grad = torch.ones_like(net[4].weight)
    before, modes, random = state(net), [m.training for m in net.modules()], torch.get_rng_state()
    bisam_lab.audit(net, pairs(2), adversaries=names, rhos=[0.1, 0.5], held_out=pairs(2))
    assert all(torch.equal(a, b) for a, b in zip(before, state(net), strict=True))
    assert [m.training for m in net.modules()] == modes
    assert torch.equal(net[4].weight.grad, torch.ones_like(net[4].weight))
    assert net[0].weight.grad is None
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("calls", [3, 7, 12])
def test_it_is_left_as_it_was_after_an_exception_too(calls):
    net = with_norm()
    before, seen = state(net), []

    def fail(module, inputs):
        seen.append(1)
        if len(seen) > calls:
            raise MemoryError("out of memory")

    handle = net.register_forward_pre_hook(fail)
    with pytest.raises(MemoryError):
        bisam_lab.audit(net, pairs(2), adversaries=["sam", "projected"], rhos=[0.5], held_out=pairs(2))
    handle.remove()
    assert all(torch.equal(a, b) for a, b in zip(before, state(net), strict=True))
    assert net.training


def test_without_batchnorm_both_modes_are_one():
    found = bisam_lab.audit(linear(), pairs(2), adversaries=["sam"], rhos=[0.5])
    batch, running = (by(found, statistics=kind) for kind in ("batch", "running"))
    assert {k: v for k, v in batch.items() if k != "statistics" and v == v} == {
        k: v for k, v in running.items() if k != "statistics" and v == v
    }
    assert any("both modes are one" in note for note in found.notes)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), rho=st.floats(0.2, 2))
def test_ten_projected_steps_climb_as_high_as_one_and_stay_in_the_ball(seed, rho):
    found = bisam_lab.audit(linear(), pairs(2, seed=seed), adversaries=["sam", "projected", "random"], rhos=[rho])
    sam, projected, random = (by(found, adversary=name, statistics="batch") for name in ("sam", "projected", "random"))
    assert projected["rise_loss_batch"] >= sam["rise_loss_batch"] - 1e-9
    assert projected["eps_norm"] <= rho * (1 + 1e-9)
    assert random["eps_norm"] == pytest.approx(rho)
    assert random["rise_loss_batch"] < sam["rise_loss_batch"]
    assert math.isnan(random["effective_samples"])


@pytest.mark.filterwarnings("ignore:weights in torch.bfloat16 round small perturbations away")
def test_projected_steps_that_low_precision_swallows_are_no_error():
    net = linear().bfloat16()
    with torch.no_grad():
        for param in net.parameters():
            param.fill_(1.0)
    batches = [(x.bfloat16(), y) for x, y in pairs(2)]
    found = bisam_lab.audit(net, batches, adversaries=["projected"], rhos=[1e-6])
    assert by(found, statistics="batch")["eps_norm"] == 0


def test_msam_climbs_each_part_by_itself_and_subbatch_a_part():
    net, batches = linear(), pairs(2)
    found = bisam_lab.audit(net, batches, adversaries=["msam", "subbatch"], rhos=[0.5])
    rises, of_part = [], []
    for x, y in batches:
        for u, v in zip(x.tensor_split(4), y.tensor_split(4), strict=True):
            g = gradient(net, u, v, F.cross_entropy)
            rises.append(at(net, 0.5 * g / g.norm(), u, v)[1] - at(net, 0 * g, u, v)[1])
        g = gradient(net, x[:4], y[:4], F.cross_entropy)
        of_part.append(at(net, 0.5 * g / g.norm(), x, y)[1] - at(net, 0 * g, x, y)[1])
    assert by(found, adversary="msam", statistics="batch")["rise_loss_batch"] == pytest.approx(np.mean(rises))
    row = by(found, adversary="subbatch", statistics="batch")
    assert row["rise_loss_batch"] == pytest.approx(np.mean(of_part))
    assert row["eps_cosine_median"] < 0.99


def test_a_method_takes_rho_in_proportion_as_in_a_recipe():
    net, (x, y) = linear(), pairs(1)[0]
    found = bisam_lab.audit(net, [(x, y)] * 2, adversaries=["asam"], rhos=[0.05])
    opt = bisam.ASAM(torch.optim.SGD(net.parameters(), lr=0.1), model=net, rho=0.5)
    for loss in opt.passes():
        loss(net(x), y).backward()
    assert by(found, statistics="batch")["eps_norm"] == pytest.approx(opt.last.norm)


def test_where_the_gradient_vanishes_nothing_moves_and_that_is_told():
    net = linear(2)
    with torch.no_grad():
        net.weight.zero_()
        net.bias.copy_(torch.tensor([1e4, -1e4]))
    batches = [(x, torch.zeros(16, dtype=torch.int64)) for x, _ in pairs(2)]
    found = bisam_lab.audit(net, batches, adversaries=["sam", "bisam-tanh@mu=1"], rhos=[0.5])
    row = by(found, adversary="bisam-tanh@mu=1", statistics="batch")
    assert (row["no_gradient"], row["rise_error_batch"], row["eps_norm"]) == (1, 0, 0)
    assert math.isnan(row["cosine_median"])
    assert "has no gradient on any batch" in found.verdict[0]


def test_a_gradient_that_float32_cannot_square_still_counts():
    net = linear(2).float()
    with torch.no_grad():
        net.weight.zero_()
        net.bias.copy_(torch.tensor([60.0, 0.0]))
    batches = [(x.float(), torch.zeros(16, dtype=torch.int64)) for x, _ in pairs(2)]
    row = by(bisam_lab.audit(net, batches, adversaries=["sam"], rhos=[0.5]), statistics="batch")
    assert row["no_gradient"] == 0
    assert row["eps_norm"] == pytest.approx(0.5)
    assert row["effective_samples"] == pytest.approx(16)


def test_an_objective_of_ones_own_and_inputs_as_transformers_have_them():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = linear()

        def forward(self, features, scale=1.0):
            return SimpleNamespace(logits=scale * self.inner(features))

    batches = [{"features": x, "labels": y} for x, y in pairs(2)]
    own = {"sam": None, "worst": lambda z, y: F.cross_entropy(z, y, reduction="none").max()}
    found = bisam_lab.audit(Named(), batches, adversaries=own, rhos=[0.5])
    assert by(found, adversary="worst", statistics="batch")["effective_samples"] == pytest.approx(1)
    plain = bisam_lab.audit(linear(), pairs(2), adversaries=["sam"], rhos=[0.5])
    there, here = (by(one, adversary="sam", statistics="batch") for one in (plain, found))
    assert here["rise_loss_batch"] == pytest.approx(there["rise_loss_batch"])


def points(*scores):
    """A curve of one batch: rho -> loss and error."""
    return {
        rho: [Climbed("batch", 0, "x", rho, Score(error, loss), Score(0, 0), rho, 1.0)] for rho, loss, error in scores
    }


def test_at_equal_rise_of_the_loss_errors_are_read_off_between_the_radii():
    sam, mine = points((0.1, 0.2, 0.1), (0.2, 0.6, 0.3)), points((0.1, 0.1, 0.1), (0.2, 0.4, 0.2))
    assert _at_equal_loss(mine, sam, 0.1, 0) == pytest.approx(100 * (0.1 - 0.05))
    assert _at_equal_loss(mine, sam, 0.2, 0) == pytest.approx(100 * (0.2 - 0.2))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"model": lambda x: x}, r"model=function must be a torch.nn.Module"),
        ({"batches": []}, r"batches is empty"),
        ({"batches": torch.zeros(3)}, r"batches=Tensor must be an iterable"),
        ({"batches": [torch.zeros(3, 5)]}, r"batches\[0\] is a Tensor: pass \(input, target\) pairs"),
        ({"batches": [(torch.zeros(3, 5), torch.zeros(3))]}, r"batches\[0\] has targets of \(3,\) in torch.float32"),
        ({"batches": [(torch.zeros(3, 5).double(), torch.tensor([0, 3, 1]))]}, r"batches\[0\] has the label 3, and"),
        ({"held_out": [(torch.zeros(3, 5).double(), torch.tensor([0, -1, 1]))]}, r"held_out\[0\] has the label -1"),
        ({"adversaries": "sam"}, r"adversaries='sam' must be a list"),
        ({"adversaries": []}, r"adversaries=\[\] must name one adversary or more"),
        ({"adversaries": ["sam", "sam"]}, r"each once"),
        ({"adversaries": ["bisam", "bisam-log"]}, r"are the same method: leave one out"),
        ({"adversaries": ["sma"]}, r"'sma' is none of .*did you mean"),
        ({"adversaries": ["projectd"]}, r"did you mean projected"),
        ({"adversaries": ["sgd"]}, r"sgd is the optimizer alone"),
        ({"adversaries": ["sam@rho=0.1"]}, r"rhos= are the radii: leave @rho out"),
        ({"adversaries": ["momentumsam"]}, r"momentumsam climbs along what an optimizer remembers"),
        ({"adversaries": ["asyncsam"]}, r"asyncsam climbs along what an optimizer remembers"),
        ({"adversaries": ["vasso"]}, r"vasso climbs along what an optimizer remembers"),
        ({"adversaries": ["bisam-log+friendlysam"]}, r"bisam-log\+friendlysam climbs along what an optimizer remem"),
        ({"adversaries": ["ssam"]}, r"ssam moves the weights an optimizer remembers"),
        ({"adversaries": ["random+sam"]}, r"random joins no other"),
        ({"adversaries": ["bisam-tanh@mu=5", "bisam-tanh@mu=5.0"]}, r"are the same method"),
        ({"adversaries": ["SAM"]}, r"did you mean sam\?"),
        ({"adversaries": ["sam@roh=1"]}, r"adversaries: .*roh"),
        ({"adversaries": None}, r"adversaries=None must be a list"),
        ({"adversaries": {"own": lambda z, y: 1.0}}, r"\['own'\] returned a float: it must return a scalar tensor"),
        ({"adversaries": {"own": lambda z, y: z}}, r"\['own'\] returned a tensor of shape \(16, 3\)"),
        ({"adversaries": {"own": lambda z, y: (z.argmax(1) == y).double().mean()}}, r"shape \(\) without a gradient"),
        ({"rhos": "0.1"}, r"rhos='0.1' must be a list"),
        ({"adversaries": {"own": 3}}, r"adversaries\['own'\]=3 must be callable"),
        ({"adversaries": {"sam": F.cross_entropy}}, r"sam is what all are compared with"),
        ({"rhos": []}, r"rhos=\[\] must be increasing"),
        ({"rhos": [0.2, 0.1]}, r"rhos=\[0.2, 0.1\] must be increasing"),
        ({"rhos": [0]}, r"rhos"),
        ({"rhos": 0.1}, r"rhos=0.1 must be a list"),
        ({"n": 1}, r"n=1 must be a whole number of 2"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(wrong, said):
    given = {"model": linear(), "batches": pairs(2), "adversaries": ["sam"], "rhos": [0.1], **wrong}
    with pytest.raises((TypeError, ValueError), match=said):
        bisam_lab.audit(given.pop("model"), given.pop("batches"), **given)


def test_a_network_that_is_frozen_or_gives_no_logits_is_refused():
    net = linear().requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter that needs a gradient"):
        bisam_lab.audit(net, pairs(2), adversaries=["sam"])
    with pytest.raises(ValueError, match=r"model returned \(16, 1\)"):
        bisam_lab.audit(linear(1), pairs(2), adversaries=["sam"])


def test_ctrl_c_keeps_whole_batches():
    def stop(done, total):
        if done == 2 * 3 + 1:
            raise KeyboardInterrupt

    kept = bisam_lab.audit(linear(), pairs(5), adversaries=["sam", "random"], rhos=[0.1], progress=stop, keep=True)
    assert (kept.batches, kept.stopped) == (3, True)
    assert kept.notes[0] == "It was stopped after 3 of 5 batches."
    fewer = bisam_lab.audit(linear(), pairs(5)[:3], adversaries=["sam", "random"], rhos=[0.1])
    assert by(kept, adversary="sam", statistics="batch") | {"difference_batch": 0} == pytest.approx(
        by(fewer, adversary="sam", statistics="batch") | {"difference_batch": 0}, nan_ok=True
    )
    with pytest.raises(KeyboardInterrupt):
        bisam_lab.audit(linear(), pairs(5), adversaries=["sam", "random"], rhos=[0.1], progress=stop)


def row(name, kind="batch", **numbers):
    whole = dict.fromkeys(Row.__dataclass_fields__, 0.0) | {"adversary": name, "rho": 0.1, "statistics": kind, "n": 20}
    usual = {"effective_samples": 30.0, "difference_batch_p": 1.0, "difference_held_out_p": 1.0}
    return Row(**(whole | usual | numbers))


def test_the_verdict_says_what_the_numbers_say():
    same = row("bisam-tanh", eps_cosine_median=0.99987)
    more = row("bisam-log", eps_cosine_median=0.905, difference_batch=1.95, difference_batch_low=1.34,
               difference_batch_high=2.56, difference_batch_p=0.001, difference_held_out=0.04,
               difference_held_out_low=-0.18, difference_held_out_high=0.26)  # fmt: skip
    few = row("own", eps_cosine_median=1.0, effective_samples=1.4, no_gradient=0.25)
    assert verdicts([row("sam", eps_cosine_median=1.0), same, more, few]) == [
        "bisam-tanh: cosine .99987 with SAM's perturbation: on this checkpoint this method is SAM.",
        "bisam-log: cosine .905 with SAM's perturbation. At rho 0.1, 20 batches: the batch's error against SAM +1.95 "
        "points [+1.34, +2.56], more mistakes; held-out error +0.04 points [-0.18, +0.26], no evidence of a "
        "difference.",
        "own: cosine 1.000000 with SAM's perturbation: on this checkpoint this method is SAM. It has no gradient on "
        "25 % of the batches. Its gradient rests on 1.4 samples of a batch.",
    ]


def test_the_audit_is_plain_json():
    found = bisam_lab.audit(linear(), pairs(2), adversaries=["sam", "random"], rhos=[0.1])
    there = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert there["rows"][0]["adversary"] == "sam"
    assert there["rows"][0]["rise_error_held_out"] is None
    assert there["margins"].keys() == {"batch"}


def test_after_a_kill_the_same_audit_goes_on_and_another_begins_anew(tmp_path):
    journal, asked = tmp_path / "measured.pt", {"adversaries": ["sam", "random", "esam"], "rhos": [0.3]}

    def kill(done, total):
        if done == 2 * 3 + 2:
            raise MemoryError

    seen = []
    with pytest.raises(MemoryError):
        bisam_lab.audit(linear(), pairs(4), **asked, progress=kill, journal=journal)
    kept = journal.read_bytes()
    other = bisam_lab.audit(linear(), pairs(4), adversaries=["sam"], rhos=[0.3], journal=journal)
    assert other.batches == 4
    journal.write_bytes(kept)
    (tmp_path / ".measured.123").touch()  # of a process that was killed while it wrote
    found = bisam_lab.audit(
        linear(), pairs(4), **asked, progress=lambda done, total: seen.append(done), journal=journal
    )
    assert seen == list(range(7, 13))
    assert not list(tmp_path.iterdir())
    whole = bisam_lab.audit(linear(), pairs(4), **asked)
    assert found.to_dict() == whole.to_dict()
