"""The charts before they are drawn, and that page and figure draw the same."""

import math
import re
from dataclasses import replace

import pytest
from matplotlib.figure import Figure

from bisam_lab.report import collect, render
from bisam_lab.report.charts import COLOURS, curve_chart, difference_chart, look, place_of_loss
from bisam_lab.report.png import draw_curves, draw_differences
from bisam_lab.report.scale import Scale

from .folders import SCORES, study


@pytest.fixture
def block(tmp_path):
    return collect([study(tmp_path / "s")]).studies[0].blocks[0]


def test_curves_have_mean_band_and_seeds(block):
    chart = curve_chart(block, "validation_score")
    assert [line.method for line in chart.lines] == list(SCORES)
    assert chart.label == "validation accuracy (%)"
    sam = chart.lines[1]
    scores = [100 * (score - 0.1 / 6) for score in SCORES["sam"]]
    assert sam.mean[-1] == (6, pytest.approx(sum(scores) / 3))
    assert [points[-1] for points in sam.seeds.values()] == [(6, pytest.approx(score)) for score in scores]
    _, low, high = sam.band[-1]
    assert (low + high) / 2 == pytest.approx(sam.mean[-1][1])
    assert curve_chart(block, "train_loss").label == "training loss at w"


def test_the_place_of_the_training_loss_is_said(block):
    """Methods compare at w; one whose only pass is at w + eps is named, and so are results of old runs."""
    assert place_of_loss(block) == "at w"
    for elsewhere, expected in ((("sam",), "at w (sam: at w + eps)"), (tuple(SCORES), "at w + eps")):
        runs = [
            replace(run, history=[replace(e, loss_at="w + eps") for e in run.history])
            if run.method in elsewhere
            else run
            for run in block.runs
        ]
        assert place_of_loss(replace(block, runs=runs)) == expected


def test_scales_fit_what_did_not_fail(block):
    assert curve_chart(block, "validation_score").y.low > 60, "the collapsed run ends at 8 %"
    chart = difference_chart(block)
    assert [row.side for row in chart.rows] == [0, -1], "the collapsed run has moved the mean off the scale"
    assert -1 < chart.x.low < 0
    assert chart.rows[0].dots == {seed: pytest.approx(d) for seed, d in enumerate((4.0, 4.0, 5.0))}
    assert chart.label == "test accuracy minus that of sgd (points)"


def test_page_and_figure_draw_the_same(block, tmp_path):
    curves, differences = curve_chart(block, "validation_score"), difference_chart(block)
    left, right = Figure().subplots(1, 2)
    draw_curves(left, curves, block)
    draw_differences(right, differences, block)
    means = {line.get_label(): line for line in left.get_lines() if not line.get_label().startswith("_")}
    assert list(means) == [line.method for line in curves.lines]
    for line in curves.lines:
        assert list(zip(*means[line.method].get_data(), strict=True)) == line.mean
    assert left.get_ylim() == (curves.y.low, curves.y.high)
    assert right.get_xlim() == (differences.x.low, differences.x.high)
    assert [tick.get_text() for tick in right.get_yticklabels()] == [row.method for row in differences.rows]
    page = render(collect([tmp_path / "s"]))
    for i, (light, dark) in enumerate(COLOURS):
        assert re.findall(rf"--m{i}: (#\w+);", page) == [light, dark]
    assert [means[method].get_color() for method in SCORES] == [light for light, _ in COLOURS[:3]]
    assert differences.caption in page


def test_more_methods_than_colours_differ_in_dashes():
    methods = [f"m{i}" for i in range(15)]
    looks = [look(methods, method) for method in methods]
    assert len(set(looks)) == 15
    assert looks[7] == (0, 1)


def test_a_scale_names_round_values():
    assert Scale.around([0.0, 1.0]).ticks() == [0, 0.5, 1]
    scale = Scale.around([0.01, 10, math.nan], log=True)
    assert scale.log and scale.ticks() == pytest.approx([0.01, 0.1, 1, 10])
    assert scale.fraction(scale.high) == pytest.approx(1)
    assert not Scale.around([1, 20], log=True).log, "less than a factor of 30"
