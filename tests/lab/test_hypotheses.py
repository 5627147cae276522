"""Pre-registration, from the recipe to the page: checked before the run, fixed at the first one, and printed."""

import json

import pytest

import bisam_lab
from bisam_lab.recipe import RecipeError, digest, load
from bisam_lab.report import collect
from bisam_lab.report.page import render
from bisam_lab.study.folder import Study

from .report.folders import SCORES, study
from .study.test_two_recipes import finished
from .test_cli import TINY, in_process

SAYS = "{says: SAM beats SGD, method: sam, baseline: sgd, direction: greater, margin: 1}"


def stated(*given):
    return load("digits", [*TINY, "methods=[sgd,sam]", "seeds=2", f"hypotheses=[{SAYS}]", *given])


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("hypotheses=[{says: x}]", "hypotheses.0 has no method: write method: VALUE"),
        ("hypotheses=[3]", "hypotheses.0=3: must be a section of fields"),
        (f"hypotheses=[{SAYS.replace('greater', 'more')}]", "must be one of greater, less, equivalent"),
        (f"hypotheses=[{SAYS.replace('sgd', 'sam')}]", "method=sam is the baseline, too: name two methods"),
        (f"hypotheses=[{SAYS.replace('greater, margin: 1', 'equivalent')}]", "needs a margin, the points that do not"),
        (f"hypotheses=[{SAYS.replace('margin: 1', 'margin: -1')}]", "must be greater than or equal to 0"),
        (f"hypotheses=[{SAYS.replace('method', 'methd')}]", "unknown key: did you mean hypotheses.0.method=sam?"),
        ("stopping=10", "stopping is about hypotheses, and there is none"),
        ("stopping=[1]", "stopping=[1] must be a number of seeds, or a rule in words"),
        ("stopping=true", "must be a number"),
        ("stopping=1", "must be a number of seeds from 2"),
        ("margin=0", "margin=0: must be greater than 0"),
        ("margin=true", "margin=true must be a number"),
    ],
)
def test_what_cannot_be_tested_is_refused_in_a_line(given, told):
    with pytest.raises(RecipeError) as error:
        load("digits", [given])
    assert told in str(error.value)
    assert all(len(line) <= 200 for line in str(error.value).splitlines())


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["methods=[sgd,asam]"], "hypotheses.0.method=sam is not among the methods sgd; asam"),
        ([f"hypotheses=[{SAYS[:-1]}, variant: noisy}}]"], "variant='noisy': the recipe has no variants; leave it out"),
        (["variants={a: {train.lr: 0.2}}"], "hypotheses.0.variant='' is none of the variants a"),
    ],
)
def test_a_study_has_what_its_hypotheses_are_about(tmp_path, given, told):
    with pytest.raises(RecipeError) as error:
        Study(tmp_path / "s", stated(*given))
    assert told in str(error.value)
    assert not (tmp_path / "s").exists(), "it is refused before anything is written"


def test_what_was_stated_stays_once_a_run_has_begun(tmp_path):
    begun = Study(tmp_path / "s", stated("stopping=5"))
    Study(tmp_path / "s", stated("stopping=6"))  # no run has begun
    finished(Study(tmp_path / "s", stated("stopping=5")), digest(begun.recipe))
    for changed in (
        ["stopping=6"],
        ["stopping=5", "margin=1"],
        ["stopping=5", "first_seed=3"],
        ["stopping=5", f"hypotheses=[{SAYS.replace('1}', '2}')}]"],
    ):
        with pytest.raises(RecipeError, match="cannot change once a run has begun, because what is stated afterwards"):
            Study(tmp_path / "s", stated(*changed))
    assert len(Study(tmp_path / "s", stated("stopping=5", "seeds=9")).results()) == 1, "more seeds change nothing of it"


def test_hypotheses_change_no_run():
    assert digest(stated("margin=1", "stopping=5")) == digest(load("digits", [*TINY, "methods=[sgd,sam]"]))


def test_commands_that_are_no_studies_do_not_ask_for_them(tmp_path, capsys, monkeypatch):
    (tmp_path / "r.yaml").write_text(stated("methods=[sgd,sam]").to_yaml())
    monkeypatch.chdir(tmp_path)
    code, told = in_process(
        capsys, monkeypatch, "train", "r.yaml", "--method", "asam", "--out", "run", "train.epochs=1"
    )
    assert code == 0, told
    assert "hypotheses: []" in (tmp_path / "run" / "run.yaml").read_text()
    code, told = in_process(capsys, monkeypatch, "compare", "r.yaml", "--methods", "sgd,asam")
    assert code == 2
    assert "hypotheses.0.method=sam is not among the methods" in told


def test_report_page_and_json_tell_what_came_out(tmp_path):
    one = {"says": "SAM <beats> SGD", "method": "sam", "baseline": "sgd", "direction": "greater", "margin": 1}
    same = {"says": "They are equal", "method": "sam", "baseline": "sgd", "direction": "equivalent", "margin": 0.5}
    folder = study(tmp_path / "s", margin=8, hypotheses=[one, same, {"says": 3}], stopping=3)
    found = collect([folder])
    (data,) = found.studies
    assert [(each.says, each.decision, each.n) for each in data.hypotheses] == [
        (one["says"], "confirmed", 3),
        (same["says"], "refuted", 3),
    ]
    page = render(found)
    assert "Stated before the first run" in page
    assert "SAM &lt;beats&gt; SGD" in page
    assert "Stopping rule: 3 seeds" in page
    assert 'class="said refuted">refuted' in page
    assert "p (within 8)" in page
    told = json.loads(json.dumps(found.to_dict()))["studies"][0]
    assert told["hypotheses"][0]["decision"] == "confirmed"
    assert told["blocks"][0]["comparison"][1]["conclusion"] == "different, by less than 8 points"
    for margin, words in ((None, "different, by less than 8 points"), (0.1, "different")):
        table = bisam_lab.Study(folder).table(margin=margin).set_index("method")
        assert table.loc["sam", "conclusion"] == words
    assert "conclusion" not in bisam_lab.Study(study(tmp_path / "plain")).table()
    for wrong in ("x", True):
        with pytest.raises(RecipeError, match=rf"margin={wrong!r} must be positive"):
            bisam_lab.Study(folder).table(margin=wrong)
    with pytest.raises(RecipeError, match=r"margin=-1 must be positive"):
        bisam_lab.Study(folder).table(margin=-1)


def test_a_method_that_failed_at_every_seed_has_no_conclusion_and_the_column_stays(tmp_path):
    for name, given in (("a", {"margin": 0.3}), ("b", {})):
        folder = study(tmp_path / name, scores={m: SCORES[m] for m in ("sgd", "sam")}, **given)
        for path in (folder / "runs" / "sam").glob("*/result.json"):
            path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "collapsed"}))
        table = bisam_lab.Study(folder).table(margin=None if given else 0.3).set_index("method")
        assert dict(table["conclusion"]) == {"sgd": "", "sam": ""}
        assert table[["p_equivalent", "low_equivalent", "high_equivalent"]].isna().all().all()
