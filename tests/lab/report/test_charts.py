"""The charts before they are drawn, and that page and figure draw the same."""

import math
import re
from dataclasses import replace

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure

from bisam_lab.report import collect, render
from bisam_lab.report.charts import block_chart, difference_chart, known, left_out, look, place_of_loss
from bisam_lab.report.png import draw_curves, draw_differences, page_style
from bisam_lab.report.quantities import along
from bisam_lab.report.scale import Scale
from bisam_lab.report.theme import COLOURS, FONTS, LIGHT
from bisam_lab.run.result import Epoch

from .folders import SCORES, Page, study

MINUS = "\u2212"


@pytest.fixture
def block(tmp_path):
    return collect([study(tmp_path / "s")]).studies[0].blocks[0]


def test_curves_have_mean_band_and_seeds(block):
    chart = block_chart(block, "validation_score")
    assert [line.method for line in chart.lines] == list(SCORES)
    assert chart.label == "validation accuracy (%)"
    sam = chart.lines[1]
    scores = [100 * (score - 0.1 / 6) for score in SCORES["sam"]]
    assert sam.mean[-1] == (6, pytest.approx(sum(scores) / 3))
    assert [points[-1] for points in sam.seeds.values()] == [(6, pytest.approx(score)) for score in scores]
    _, low, high = sam.band[-1]
    assert (low + high) / 2 == pytest.approx(sam.mean[-1][1])
    assert block_chart(block, "train_loss").label == "training loss at w"


def test_the_place_of_the_training_loss_is_said(block):
    """A loss at w + eps does not compare with one at w: it is left out, and named."""
    assert place_of_loss(block.runs) == "at w" and left_out(block.runs) == []
    for elsewhere, place, out in ((("sam",), "at w", ["sam"]), (tuple(SCORES), "at w + eps", [])):
        runs = [
            replace(run, history=[replace(e, loss_at="w + eps") for e in run.history])
            if run.method in elsewhere
            else run
            for run in block.runs
        ]
        chart = block_chart(replace(block, runs=runs), "train_loss")
        assert chart.label == f"training loss {place}"
        assert [line.method for line in chart.lines] == [method for method in SCORES if method not in out]
        assert left_out(runs) == out


def test_scales_fit_what_did_not_fail(block):
    assert block_chart(block, "validation_score").y.low > 60, "the collapsed run ends at 8 %"
    chart = difference_chart(block)
    assert [row.side for row in chart.rows] == [0, -1], "the collapsed run has moved the mean off the scale"
    assert -1 < chart.x.low < 0
    assert chart.rows[0].dots == {seed: pytest.approx(d) for seed, d in enumerate((4.0, 4.0, 5.0))}
    assert chart.label == "test accuracy minus that of sgd (points)"


def test_page_and_figure_draw_the_same(block, tmp_path):
    curves, differences = block_chart(block, "validation_score"), difference_chart(block)
    left, right = Figure().subplots(1, 2)
    draw_curves(left, curves, block)
    draw_differences(right, differences, block)
    means = {line.get_label(): line for line in left.get_lines() if not line.get_label().startswith("_")}
    assert list(means) == [line.method for line in curves.lines]
    for line in curves.lines:
        assert list(zip(*means[line.method].get_data(), strict=True)) == line.mean
    assert left.get_ylim() == (curves.y.low, curves.y.high)
    assert right.get_xlim() == (differences.x.low, differences.x.high)
    written = [text.get_text() for text in right.texts]
    assert [words for words in written if words in SCORES] == [row.method for row in differences.rows]
    assert f"{MINUS}24.00 [{MINUS}127.29, +79.29] ◀" in written
    for axes, places in ((left, curves.places), (right, differences.x.ticks(6))):
        assert list(axes.get_xticks()) == places
    page = render(collect([tmp_path / "s"]))
    for i, (light, dark) in enumerate(COLOURS):
        assert re.findall(rf"--m{i}: (#\w+);", page) == [light, dark]
    assert [means[method].get_color() for method in SCORES] == [light for light, _ in COLOURS[:3]]
    assert differences.caption in " ".join(Page(page).text.split())


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


def test_nothing_that_is_drawn_of_a_whole_method_is_cut(tmp_path):
    """The bands reached beyond the axis, which fitted the means alone; and so did the steep first epochs."""
    histories = [[Epoch(e, 1.0, 0.1 if e < 5 else 0.8 + 0.1 * s, loss_at="w") for e in range(1, 21)] for s in range(3)]
    block = collect([study(tmp_path / "s")]).studies[0].blocks[0]
    runs = [replace(run, history=histories[run.seed], status="ok") for run in block.runs]
    chart = block_chart(replace(block, runs=runs), "validation_score")
    assert chart.first == 5 and chart.x.low == 5 and chart.places[0] == 5
    for line in chart.lines:
        assert line.epochs == list(range(5, 21))
        assert all(low in chart.y and high in chart.y for _, low, high in line.band)
    assert chart.lines[0].band[0][1:] == (pytest.approx(80), pytest.approx(100))


def test_curves_run_along_passes_and_seconds_where_every_run_tells_them(block):
    epochs = [Epoch(e, 1.0, 0.5, seconds=2.0, passes=2.0, steps=10, loss_at="w") for e in (1, 2, 3)]
    runs = [replace(run, history=epochs) for run in block.runs]
    assert along(runs[0], "passes") == [20, 40, 60] and along(runs[0], "seconds") == [2, 4, 6]
    older = replace(runs[0], history=[replace(e, steps=0) for e in epochs], steps_per_second=5.0)
    assert along(older, "passes") == [20, 40, 60], "the speed over the seconds tells the steps"
    chart = block_chart(replace(block, runs=runs), "validation_score", "passes")
    assert chart.lines[0].mean[-1] == (60, pytest.approx(50))
    assert block_chart(replace(block, runs=runs, budget="passes"), "validation_score").axis == "passes"
    assert known(runs, "validation_score", "passes") and not known(block.runs, "validation_score", "passes")
    assert not known([*runs, block.runs[0]], "validation_score", "passes"), "one run that does not tell is enough"
    assert not known(runs, "rho"), "not recorded"


def test_the_figure_has_the_colours_and_the_letters_of_the_page(block, tmp_path):
    page = render(collect([tmp_path / "s"]))
    assert "--fonts: " + ", ".join(f'"{font}"' for font in FONTS) in page
    with page_style():
        axes = Figure().subplots()
        draw_curves(axes, block_chart(block, "validation_score"), block)
        assert set(mpl.rcParams["font.family"]) <= set(FONTS)
        assert axes.xaxis.label.get_color() == LIGHT["soft"]
    assert f"--soft: {LIGHT['soft']};" in page
    assert len(axes.get_lines()) == 3, "no line for each seed"
