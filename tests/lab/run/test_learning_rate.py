"""The schedules of the learning rate, by steps and by epochs."""

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR

from bisam_lab.recipe import RecipeError, TrainRecipe, load
from bisam_lab.run.learning_rate import learning_rate, rate


def optimizer():
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)


def rates(opt, schedule, steps, every=1):
    found = []
    for step in range(1, steps + 1):
        found.append(opt.param_groups[0]["lr"])
        opt.step()
        if step % every == 0:
            schedule.step()
    return found


def test_cosine_by_epochs_is_that_of_the_authors_code():
    """There ``CosineAnnealingLR(opt, epochs)`` takes a step after each epoch."""
    ours, theirs = optimizer(), optimizer()
    recipe = TrainRecipe(epochs=8, schedule_by="epoch")
    found = rates(ours, learning_rate(ours, recipe, 8 * 5), 40)
    assert found == pytest.approx(rates(theirs, CosineAnnealingLR(theirs, 8), 40, every=5), rel=1e-12)
    assert len(set(found)) == 8
    by_steps = optimizer()
    assert len(set(rates(by_steps, learning_rate(by_steps, TrainRecipe(epochs=8), 40), 40))) == 40


def test_other_schedules_by_epochs():
    linear = rate(TrainRecipe(epochs=4, schedule="linear", schedule_by="epoch"), 12)
    assert [linear(step) for step in range(12)] == [1.0] * 3 + [0.75] * 3 + [0.5] * 3 + [0.25] * 3
    step = rate(TrainRecipe(epochs=4, schedule="step", milestones=(0.3,), schedule_by="epoch"), 12)
    assert [step(at) for at in (0, 4, 5, 6)] == [1, 1, 1, pytest.approx(0.1)]  # 0.3 lies within the second epoch


def test_warm_up_goes_by_steps():
    with pytest.raises(RecipeError, match=r"schedule_by=epoch has no warm-up.*schedule_by=step"):
        load("digits", ["train.warmup=0.1", "train.schedule_by=epoch"])
