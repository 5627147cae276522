"""Label smoothing over all classes, and over the wrong ones alone."""

import pytest
import torch

from bisam_lab.recipe import RecipeError, TrainRecipe, load
from bisam_lab.run.descent import descent_loss
from bisam_lab.run.resumable import Training


@pytest.mark.parametrize(("classes", "torchs"), [(10, 0.1111), (100, 0.10101), (2, 0.2)])
def test_over_the_wrong_classes_it_is_the_smoothing_of_the_authors_code(classes, torchs):
    """There the target of the right class is 1 - s, of each other one s / (K - 1): the same gradient, and torch's s."""
    torch.manual_seed(0)
    logits = (3 * torch.randn(64, classes, dtype=torch.float64)).requires_grad_()
    labels = torch.randint(classes, (64,))
    target = torch.full_like(logits, 0.1 / (classes - 1)).scatter(1, labels[:, None], 0.9)
    textbook = torch.nn.functional.kl_div(logits.log_softmax(1), target, reduction="batchmean")
    (expected,) = torch.autograd.grad(textbook, logits)
    loss = descent_loss(TrainRecipe(label_smoothing=0.1, smoothing_over="wrong"), classes)
    (found,) = torch.autograd.grad(loss(logits, labels), logits)
    assert (found - expected).abs().max() < 1e-16
    assert abs(loss.label_smoothing - torchs) < 5e-6 + 5e-5 * (classes == 10)
    plain = descent_loss(TrainRecipe(label_smoothing=0.1), classes)
    assert plain.label_smoothing == 0.1
    assert (torch.autograd.grad(plain(logits, labels), logits)[0] - expected).abs().max() > 1e-6


def test_the_right_class_keeps_the_largest_target():
    loss = descent_loss(TrainRecipe(label_smoothing=0.5, smoothing_over="wrong"), 2)
    assert loss.label_smoothing == 1
    with pytest.raises(RecipeError, match=r"label_smoothing=0.6 over the wrong of 2 classes.*at most 0.5"):
        descent_loss(TrainRecipe(label_smoothing=0.6, smoothing_over="wrong"), 2)


def test_a_run_descends_on_it():
    small = ["data.train_size=96", "data.validation_size=50", "model.options.width=2"]
    recipe = load("digits", [*small, "train.label_smoothing=0.1", "train.smoothing_over=wrong"])
    assert Training(recipe, "sam", 0).opt.estimator.descent.label_smoothing == pytest.approx(1 / 9)
