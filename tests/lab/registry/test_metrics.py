"""A metric is one entry: a recipe may name it, runs are scored by it, and charts have its label."""

import pytest
import torch

from bisam_lab.recipe import RecipeError, load
from bisam_lab.registry.metrics import METRICS, Metric, metric_name
from bisam_lab.run.train import train
from tests.lab.run.runs import TINY


def test_one_entry_is_all_that_a_metric_needs(monkeypatch):
    zeros = Metric("zeros", "share of zeros", lambda predicted, labels: float((predicted == 0).float().mean()))
    monkeypatch.setitem(METRICS, "zeros", zeros)
    result = train(load("digits", [*TINY, "data.metric=zeros", "train.epochs=1"]), "sgd", 0)
    assert 0 <= result.test_score <= 1
    assert result.metric == "zeros"
    assert metric_name("zeros") == "share of zeros"


def test_a_metric_that_is_none_is_refused_with_the_nearest():
    with pytest.raises(RecipeError, match=r"'acuracy' is none of accuracy, matthews, f1: did you mean accuracy"):
        load("digits", ["data.metric=acuracy"])


@pytest.mark.parametrize(
    ("name", "right", "wrong"), [("accuracy", 1.0, 0.0), ("matthews", 1.0, -1.0), ("f1", 1.0, 0.0)]
)
def test_scores_run_from_the_lowest_to_one(name, right, wrong):
    labels = torch.tensor([0, 1, 0, 1])
    metric = METRICS[name]
    assert metric.score(labels, labels) == right
    assert metric.score(1 - labels, labels) == wrong == metric.lowest
