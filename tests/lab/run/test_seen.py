"""What an epoch records of its steps: after an interruption, in a checkpoint of an older version, under clipping."""

import math

import pytest
import torch

from bisam_lab.recipe import load
from bisam_lab.registry.metrics import METRICS
from bisam_lab.run.asking import alone
from bisam_lab.run.checkpoint import Checkpoints
from bisam_lab.run.logs import logged
from bisam_lab.run.observer import Observer, Stopped
from bisam_lab.run.resumable import Training
from bisam_lab.run.seen import Seen

from .runs import TINY, StopAfter

SCORE = METRICS["accuracy"].score


def epoch(folder, stop=None, forget=False):
    """The first epoch of a run, or of one that stopped after some steps and was continued."""
    recipe, checkpoints = load("digits", [*TINY, "train.epochs=1", "train.clip=0.01"]), Checkpoints(folder)
    if stop is not None:
        with pytest.raises(Stopped):
            alone(Training(recipe, "sam", 1).epoch(StopAfter(stop), checkpoints, 1e9))
    run = Training(recipe, "sam", 1)
    if stop is not None:
        state = checkpoints.load()
        run.restore({k: v for k, v in state.items() if k != "seen"} if forget else state)
    return alone(run.epoch(Observer(), None, 1e9))


def test_an_interrupted_epoch_records_the_same(tmp_path):
    whole, resumed = epoch(tmp_path / "a"), epoch(tmp_path / "b", stop=2)
    assert vars(whole) | {"seconds": 0} == vars(resumed) | {"seconds": 0}
    assert whole.gradient_norm > 0.1, "before clipping"
    assert whole.eps_norm == pytest.approx(whole.rho)
    assert {"train_score", "rho", "eps_norm", "gradient_norm", "passes", "seconds"} < logged(whole).keys()


def test_an_epoch_whose_first_steps_nobody_recorded_says_nothing(tmp_path):
    """A checkpoint of an older version holds no record of its steps; a mean of the rest would be another number."""
    found = epoch(tmp_path, stop=2, forget=True)
    assert all(math.isnan(getattr(found, name)) for name in ("gradient_norm", "eps_norm", "train_score"))
    assert "gradient_norm" not in logged(found)


def test_what_a_mean_leaves_out():
    seen = Seen()
    for norm, eps in ((1.0, 0.5), (math.inf, 0.0), (3.0, None)):
        moved = None if eps is None else torch.tensor(eps)
        seen.row(torch.tensor([1, 0]), torch.tensor([1, 1]), torch.tensor(norm), moved)
    read = Seen.restored(seen.state(), torch.device("cpu")).read(3, SCORE)
    assert read == {"gradient_norm": 2.0, "eps_norm": 0.5, "train_score": 0.5} == seen.read(3, SCORE)
    assert Seen().read(0, SCORE)["eps_norm"] == 0.0
