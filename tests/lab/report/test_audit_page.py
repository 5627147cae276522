"""The page of an audit: what its figures show."""

import re

import pytest

import bisam_lab
from bisam_lab.report.audit_page import render_audits
from tests.lab.auditing.test_audit import linear, pairs


def page(**options):
    found = bisam_lab.audit(linear(), pairs(3), **{"rhos": [0.1, 0.5], **options})
    return render_audits([found.to_dict()], "bisam audit x")


@pytest.mark.parametrize("names", [["random"], ["sam", "random"], ["random", "sam"]])
def test_each_batch_is_a_dot_in_the_colour_of_its_adversary_wherever_sam_is_named(names):
    html = page(adversaries=names, held_out=pairs(3, seed=5))
    dots = re.findall(r'<circle[^>]*class="dot"[^>]*data-tip="(\w+), batch', html)
    assert dots == ["random"] * 6  # two figures, three batches; where nothing has two modes, one mode is shown
    (chip,) = set(re.findall(r'data-name="random"><svg class="swatch (m\d)', html))
    assert set(re.findall(r'<g [^>]*class="series (m\d)[^"]*"[^>]*data-method="random"', html)) == {chip}


def test_what_is_not_known_is_no_line_and_no_number():
    html = page(adversaries=["sam", "random"])
    assert "random, held-out data" not in html
    assert "NaN" not in html.split("<script>")[0]
    assert "nan" not in re.sub(r"[a-z]nan|nan[a-z]", "", html.split("<script")[0])


def test_each_run_has_lines_of_its_own_along_its_epochs():
    found = bisam_lab.audit(linear(), pairs(3), adversaries=["sam", "random"], rhos=[0.1]).to_dict()
    audits = [found | {"run": run, "epoch": epoch} for run in ("a", "b") for epoch in (0, 4)]
    html = render_audits(audits, "bisam audit a b --grid")
    rises, *_ = re.findall(
        r"<figure><figcaption>Rise of the error \(points\)</figcaption>.*?</figure>", html, re.DOTALL
    )
    assert re.findall(r'data-tip="([^:]*): [^"]* at epoch (\d)"', rises) == [
        (f"{name}, {run}", epoch) for name in ("sam", "random") for run in "ab" for epoch in "04"
    ]
    assert len(re.findall(r'<path class="mean" d="M[^"M]*L[^"M]*"', rises)) == 4, "no line leads from run to run"
