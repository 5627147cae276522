"""The page of a study, read as HTML."""

import base64
import json
import re
import shutil
from dataclasses import replace

import pytest
import yaml

from bisam_lab import Study
from bisam_lab.recipe import RecipeError
from bisam_lab.report import collect, render
from bisam_lab.report.words import named
from bisam_lab.run.result import RunResult
from bisam_lab.statistics import compare

from .folders import EVIL, SCORES, Page, result, study


def test_the_page_says_what_the_statistics_say(tmp_path):
    folder = study(tmp_path / "s", description="What a page is.")
    page = Page(render(collect([folder])))
    runs = [result(method, seed, score) for method, scores in SCORES.items() for seed, score in enumerate(scores)]
    rows = {row.method: row for row in compare(runs, "sgd")}
    said = " ".join(page.text.split())
    assert "1 of 2 methods is better than sgd." in said
    low, high = (f"+{end:.2f}" for end in (rows["sam"].low, rows["sam"].high))
    assert f"sam better +4.33 points [{low}, {high}] p = {rows['sam'].p_adjusted:.4f}" in said
    assert "<b>odd no evidence of a difference \u221224.00 points" in said
    assert "Paired t-tests over 3 seeds at the 5 % level, Holm-adjusted." in said
    sgd, sam, odd = page.tables["comparison"][1:]
    assert sgd == ["sgd", "81.00 ± 1.00", "3", "baseline", "", "", "1.00\u00d7"]
    interval = f"[+{rows['sam'].low:.2f}, +{rows['sam'].high:.2f}]"
    assert sam == ["sam", "85.33 ± 1.53", "3", "+4.33", interval, f"{rows['sam'].p_adjusted:.4f}", "1.00\u00d7"]
    assert odd[0] == "<b>odd 1 collapsed"
    assert len(page.tables["runs"]) == 1 + 9
    assert page.tables["runs"][-1] == ["<b>odd", "2", "collapsed", "6", "8.33", "10.00", "12.5", "50.0"]
    assert ["git commit", "c0ffee123"] in page.tables["environment"]
    assert ["gpus", "H100"] in page.tables["environment"]
    assert ["parameters", "78,042"] in page.tables["environment"]
    assert "started" in [row[0] for row in page.tables["environment"]]
    assert "What a page is." in page.text
    assert "bisam compare recipe.yaml --out again" in page.text
    assert "  lr: 0.3" in page.text


def test_the_page_and_the_frames_show_measures_and_signatures(tmp_path):
    folder = study(tmp_path / "s", scores={"sgd": (0.80, 0.81, 0.82), "<b>odd": (0.79, 0.82, 0.10)})
    for place, path in enumerate(sorted(folder.rglob("result.json"))):  # "<b>odd" comes first
        run = RunResult.from_dict(json.loads(path.read_text()))
        measures = {"calibration": {"ece": 0.1 + 0.01 * (place % 3) - 0.05 * (place < 3) * (1 + place % 2)}}
        path.write_text(json.dumps(replace(run, measures=measures).to_dict()))
    page = Page(render(collect([folder])))
    sgd, odd = page.tables["measures"][1:]
    assert sgd == ["ECE, 15 bins, %", "sgd", "11.00 ± 1.00", "3", "baseline", "", ""]
    assert odd[:5] == ["", "<b>odd", "4.33 ± 3.06", "3", "-6.67"]
    said = " ".join(page.text.split())
    assert "collapse: the network predicts one class" in said
    assert "see docs/collapse.md (<b>odd, 1 of 3 runs)." in said
    assert "within-noise: the difference to the baseline" in said
    found = Study(folder)
    assert found.frame().signatures.tolist().count("collapse") == 1
    assert found.frame()["calibration.ece"].mean() == pytest.approx((0.11 + 0.13 / 3) / 2)
    table = found.table(measure="calibration")
    assert table.loc[("ece", "<b>odd")]["difference"] == pytest.approx(-20 / 3)
    with pytest.raises(RecipeError, match="measure='corruptions': the runs have calibration"):
        found.table(measure="corruptions")


def test_one_seed_has_dashes_and_no_question_marks(tmp_path):
    later = {(method, seed) for method in SCORES for seed in (1, 2)}
    page = Page(render(collect([study(tmp_path / "a", skip=later), study(tmp_path / "b", skip=later)])))
    assert page.tables["comparison"][2][3:6] == ["+4.00", "\u2013", "\u2013"]
    assert page.tables["overview"][1][2] == "84.00 +4.00 \u2013"
    assert "?" not in " ".join(cell for table in page.tables.values() for row in table for cell in row)


def test_the_page_says_that_the_digits_test_is_by_other_writers(tmp_path):
    assert "most test images by others" in Page(render(collect([study(tmp_path / "a", data={"name": "digits"})]))).text
    assert "images by others" not in Page(render(collect([study(tmp_path / "b", data={"name": "cifar10"})]))).text
    assert "images by others" not in Page(render(collect([study(tmp_path / "c", data=["odd"])]))).text


def test_the_page_needs_no_other_file_and_no_script(tmp_path):
    html = render(collect([study(tmp_path / "s", name=EVIL)]))
    page = Page(html)
    for tag, attributes in page.tags:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            assert re.match(r"#|data:", attributes.get(name) or "#"), (tag, attributes)
    assert not re.search(r"@import|url\((?!#clip)", html)
    assert [tag for tag, _ in page.tags].count("script") == 2, "the data and ours, none of the recipe's name"
    assert sum(tag == "path" and a.get("class") == "mean" and len(a["d"]) > 40 for tag, a in page.tags) == 2 * 3
    recipe = next(a["href"] for tag, a in page.tags if a.get("download") == "recipe.yaml")
    assert yaml.safe_load(base64.b64decode(recipe.split(",")[1]))["name"] == EVIL


def test_several_studies_and_variants_have_an_overview(tmp_path):
    folders = [study(tmp_path / "a", name="first"), study(tmp_path / "b", name="second", variants=("wrn", "vgg"))]
    html = render(collect([*folders, folders[0]]))
    page = Page(html)
    head, *rows = page.tables["overview"]
    assert head == ["study", *SCORES]
    assert [row[0] for row in rows] == ["first", "second · wrn", "second · vgg"]
    assert rows[0][2].startswith("85.33 ± 1.53 +4.33 [")
    targets = {attributes.get("id") for _, attributes in page.tags}
    assert {a["href"][1:] for tag, a in page.tags if tag == "a" and a["href"].startswith("#")} <= targets
    assert "model.name=vgg" in page.text
    heads = re.findall(r'<ul class="facts">(.*?)</ul>', html)
    assert "resnet-8" in heads[0] and "resnet-8" not in heads[1], "each variant has a model of its own"


def test_what_is_missing_or_damaged_is_said_on_the_page(tmp_path):
    folder = study(tmp_path / "s", skip={("sam", 2)})
    (folder / "runs" / "sam" / "seed-1" / "result.json").write_text('{"method": "sam"')
    (folder / "runs" / "sam" / "seed-0" / "result.json").write_text(
        json.dumps(result("sam", 0, 0.5).to_dict() | {"test_score": "0.5", "later": 1})
    )
    page = Page(render(collect([folder])))
    assert "6 of 9 runs are finished" in page.text
    assert "cannot be read: runs/sam/seed-0/result.json, runs/sam/seed-1/result.json." in page.text
    shutil.rmtree(folder / "runs" / "sgd")
    assert (
        "There is no finished run of sgd, so there is nothing to compare with." in Page(render(collect([folder]))).text
    )
    shutil.rmtree(folder / "runs")
    assert "No run is finished yet." in Page(render(collect([folder]))).text


def test_runs_of_an_older_version_and_diverged_ones_have_a_page(tmp_path):
    folder = study(tmp_path / "s")
    for path in folder.glob("runs/*/*/result.json"):
        old = json.loads(path.read_text())
        for key in ("variant", "metric", "parameters", "environment"):
            del old[key]
        if old["method"] == "sam":
            old["status"] = "diverged"
            old["history"][-1]["train_loss"] = float("nan")
        path.write_text(json.dumps(old))
    html = render(collect([folder]))
    assert "did not record" in Page(html).text
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', html).group(1)
    loss = json.loads(data, parse_constant=pytest.fail)["studies"][0]["blocks"][0]["runs"][3]["history"]["train_loss"]
    assert loss[-2:] == [0.4, None]
    assert "nan " not in "".join(attributes.get("d", "") for _, attributes in Page(html).tags)


@pytest.mark.parametrize(
    "odd",
    [
        {"variants": ["wrn"], "data": 3, "seeds": "many", "description": 5},
        {"variants": {"wrn": None}, "name": ["x"], "later": {"a": {"b": 1}}, "model": None},
        {"variants": 7, "methods": [1, "sgd"], "train": {"lr": [0.1], "later": None}},
    ],
)
def test_a_recipe_of_another_version_has_a_page(tmp_path, odd):
    folder = study(tmp_path / "s")
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe | odd))
    for path in folder.glob("runs/sam/*/result.json"):
        seed = int(path.parent.name[-1])
        wrong = [{"history": None}, {"seed": "2"}, {"environment": 3}][seed]
        path.write_text(json.dumps(json.loads(path.read_text()) | wrong))
    page = Page(render(collect([folder], "sgd")))
    assert page.text.count("runs/sam/seed-") == 3
    assert "no evidence" in page.text.lower()


def test_names_and_numbers_are_not_broken():
    held = '<span class="held">{}</span>'.format
    assert named("best: bisam-log, 95 % <b>") == f"best: {held('bisam-log')}, {held('95 %')} &lt;b&gt;"
    assert named("[+1.00, -2.00]") == held("[+1.00, -2.00]") and named("plain words") == "plain words"
    long = "bisam-log+asam@rho=0.5+looksam@k=10"
    assert named(long) == "<wbr>".join(map(held, ("bisam-log+", "asam@rho=0.5+", "looksam@k=10")))
