"""Numbers of a row that are easily wrong, the sentences that are made of them, and the journal's memory."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import bisam_lab
from bisam_lab.auditing import Row
from bisam_lab.auditing.journal import Journal
from bisam_lab.auditing.rows import _at_equal_loss
from bisam_lab.auditing.words import verdicts
from tests.lab.auditing.test_audit import by, gradient, linear, pairs, points, row


def effective(net, x, y):
    z = net(x).detach().requires_grad_()
    (g,) = torch.autograd.grad(F.cross_entropy(z, y), z)
    w = g.norm(dim=1)
    return float(w.sum() ** 2 / (w**2).sum())


def test_gradients_of_msam_and_subbatch_are_those_of_the_parts_that_they_climb():
    net, batches = linear(), pairs(2)
    found = bisam_lab.audit(net, batches, adversaries=["msam", "subbatch"], rhos=[0.5])
    cosines, carried = {"msam": [], "subbatch": []}, {"msam": [], "subbatch": []}
    for x, y in batches:
        whole = gradient(net, x, y, F.cross_entropy)
        parts = list(zip(x.tensor_split(4), y.tensor_split(4), strict=True))
        for name, own in (("msam", parts), ("subbatch", parts[:1])):
            cosines[name].append(np.mean([float(F.cosine_similarity(gradient(net, u, v, F.cross_entropy), whole, 0))
                                          for u, v in own]))  # fmt: skip
            carried[name].append(np.mean([effective(net, u, v) for u, v in own]))
    for name in ("msam", "subbatch"):
        there = by(found, adversary=name, statistics="batch")
        assert there["cosine_median"] == pytest.approx(np.median(cosines[name]))
        assert there["cosine_least"] == pytest.approx(min(cosines[name]))
        assert there["effective_samples"] == pytest.approx(np.mean(carried[name]))


def test_no_equal_rise_of_the_loss_is_told_where_one_lowers_it():
    sam, mine = points((0.1, 0.2, 0.1)), points((0.1, -0.1, 0.1))
    assert math.isnan(_at_equal_loss(mine, sam, 0.1, 0))
    still = points((0.1, 0.0, 0.0))
    assert _at_equal_loss(still, sam, 0.1, 0) == 0


def test_the_length_of_a_perturbation_is_told_beside_its_cosine():
    found = bisam_lab.audit(linear(), pairs(3), adversaries=["sam", "usam@lambda_=0"], rhos=[0.01])
    assert by(found, adversary="sam", statistics="batch")["eps_norm_ratio"] == pytest.approx(1)
    norms = [float(gradient(linear(), x, y, F.cross_entropy).norm()) for x, y in pairs(3)]
    assert by(found, adversary="usam@lambda_=0", statistics="batch")["eps_norm_ratio"] == pytest.approx(np.mean(norms))
    assert found.verdict[0].startswith("usam@lambda_=0: cosine ")
    assert f", and {np.mean(norms):.2g} times its length." in found.verdict[0]


def test_a_method_that_does_more_than_perturb_is_not_called_sam():
    names = ["sam", "gsam", "every@k=2", "functionalsam", "asam@eta=1000000"]
    found = bisam_lab.audit(linear(), pairs(2), adversaries=names, rhos=[0.1])
    for verdict in found.verdict[:3]:
        assert verdict.endswith("on this checkpoint it perturbs as SAM does; its other choices are not audited.")


def test_a_difference_without_spread_is_told_without_a_judgement():
    one = row("own", eps_cosine_median=0.5, difference_batch=-4.1666, difference_batch_p=math.nan, n=1,
              difference_batch_low=math.nan, difference_batch_high=math.nan, difference_held_out=math.nan)  # fmt: skip
    assert verdicts([one]) == [
        "own: cosine .50 with SAM's perturbation. At rho 0.1, 1 batch: the batch's error against SAM -4.17 points, no "
        "evidence of a difference."
    ]


def test_numbers_that_are_not_there_hide_no_others():
    modes = [row("own", "batch", eps_cosine_median=0.5, effective_samples=math.nan, rise_loss_batch=math.nan),
             row("own", "running", eps_cosine_median=0.5, effective_samples=1.4, rise_loss_batch=math.nan)]  # fmt: skip
    (verdict,) = verdicts(modes)
    assert verdict.endswith("Its gradient rests on 1.4 samples of a batch.")
    assert "With running statistics" not in verdict, "both modes gave the same numbers"


def test_notes_say_what_is_too_few():
    few = bisam_lab.audit(linear(), pairs(1), adversaries=["sam"], rhos=[0.1])
    assert few.notes[0] == "n = 1 batch: there are no intervals; 20 or more say more."
    again = bisam_lab.audit(linear(), pairs(3), adversaries=["sam"], rhos=[0.1], held_out=pairs(1, seed=3))
    assert any("Held-out data are fewer (1 of 3 batches)" in note for note in again.notes)


def test_points_hold_sam_where_nobody_named_it():
    found = bisam_lab.audit(linear(), pairs(2), adversaries=["random"], rhos=[0.1])
    assert {point["adversary"] for point in found.points} == {"sam", "random"}
    assert {there["adversary"] for there in found.rows()} == {"random"}


def mark(net=None, batches=None, asked=(1,)):
    return Journal(Path("measured.pt"), net or linear(), batches or [], list(asked))._mark


def test_a_journal_belongs_to_one_network_one_set_of_batches_and_one_question():
    from bisam_lab.auditing.batches import Batch

    x, y = torch.arange(12.0), torch.tensor([0, 1, 2])
    tall, wide = [Batch(x.view(3, 4), y)], [Batch(x.view(3, 2, 2), y)]
    marks = [mark(), mark(asked=(2,)), mark(linear(2)), mark(batches=tall), mark(batches=wide),
             mark(torch.nn.Sequential(linear(), torch.nn.ReLU())), mark(asked=({"own": lambda z, y: z},))]  # fmt: skip
    assert len(set(marks)) == len(marks)
    assert mark() == mark()


def test_ctrl_c_in_the_sharpness_keeps_the_batches(tmp_path, monkeypatch):
    def stop(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["bisam_lab.auditing.audit"], "measure_sharpness", stop)
    asked = {"adversaries": ["sam"], "rhos": [0.1], "sharpness": True, "journal": tmp_path / "measured.pt"}
    found = bisam_lab.audit(linear(), pairs(3), keep=True, **asked)
    assert (found.batches, found.stopped, found.sharpness) == (3, True, None)
    assert found.notes[0] == "It was stopped before its sharpness was measured."
    seen = []
    monkeypatch.undo()
    again = bisam_lab.audit(linear(), pairs(3), progress=lambda done, total: seen.append(done), **asked)
    assert seen == []
    assert again.sharpness is not None
    assert not again.stopped
    torch.manual_seed(99)
    assert bisam_lab.audit(linear(), pairs(3), **asked).to_dict() == again.to_dict()


def test_a_random_support_is_another_one_on_each_batch_and_the_same_in_each_audit():
    batch = pairs(1)[0]
    found = bisam_lab.audit(linear(), [batch] * 6, adversaries=["sam", "esam", "esam@seed=3"], rhos=[0.5])
    rises = {name: [p["rise_loss_batch"] for p in found.points if p["adversary"] == name]
             for name in ("sam", "esam", "esam@seed=3")}  # fmt: skip
    assert len(set(rises["sam"])) == 1
    assert len(set(rises["esam"])) == 6
    assert len(set(rises["esam@seed=3"])) == 1, "the support that was asked for"
    again = bisam_lab.audit(linear(), [batch] * 6, adversaries=["esam"], rhos=[0.5])
    assert [p["rise_loss_batch"] for p in again.points if p["adversary"] == "esam"] == rises["esam"]


def test_every_key_of_a_row_is_explained():
    assert [name for name in Row.__dataclass_fields__ if f"\n        {name}: " not in (Row.__doc__ or "")] == []
