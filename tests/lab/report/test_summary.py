"""The table and the figure in a study's folder."""

from dataclasses import replace

from bisam_lab.recipe import load
from bisam_lab.report.block import make_block
from bisam_lab.report.png import draw_comparison
from bisam_lab.report.summary import markdown, shifts, table
from bisam_lab.run.result import Epoch
from bisam_lab.statistics import TESTS, compare
from bisam_lab.statistics.by_variant import compare_variant

from ..statistics.results import study


def test_tables_and_figure_name_the_test(tmp_path):
    runs = study(sam=[1.0, -1.2, 1.5, -0.3, 0.4, -0.2])
    runs = [replace(r, history=[Epoch(1, 1.0, r.test_score)]) for r in runs]
    heads = {name: markdown(compare(runs, "sgd", name, 0.9), "sgd").splitlines()[0] for name in TESTS}
    assert "| difference | 90 % interval |" in heads["t"]
    assert "| pseudo-median difference | 90 % interval (Wilcoxon) |" in heads["wilcoxon"]
    assert "| difference | 90 % interval (BCa bootstrap) |" in heads["bootstrap"]
    columns = [c.header for c in table(compare(runs, "sgd", "wilcoxon"), "sgd").columns]
    assert "95 % interval (Wilcoxon)" in columns
    for some, name in ((runs, "figure.png"), (runs[:9], "few.png")):  # of few there is no interval, and no complaint
        outcome = compare_variant("", some, "sgd", "wilcoxon")
        draw_comparison(make_block(outcome, some, ["sgd", "sam"], "wilcoxon"), "", tmp_path / name)
    assert (tmp_path / "figure.png").read_bytes()[:4] == b"\x89PNG"


def test_one_seed_has_no_interval_and_no_question_marks():
    rows = compare(study(sam=[1.0]), "sgd")
    row = markdown(rows, "sgd").splitlines()[3]
    assert [cell.strip() for cell in row.split("|")[4:7]] == ["+1.00", "\u2013", "\u2013"]
    assert "?" not in markdown(rows, "sgd")


def test_the_digits_say_that_their_test_is_by_other_writers():
    (told,) = shifts(load("digits"))
    assert "most test images by others" in told
    assert shifts(load("cifar10")) == []
    assert shifts(load("digits", ["variants={a: {data.name: cifar10}, b: {train.lr: 1}, c: {train.lr: 2}}"])) == [told]
