"""The page of a study, read as HTML and then used in a real browser: its filters, its charts, its print, its phone."""

import base64
import json
import re
import shutil
import sys
from html.parser import HTMLParser

import pytest
import yaml

import bisam_lab
from bisam_lab.recipe import RecipeError
from bisam_lab.report import collect, plain, render, write
from bisam_lab.run.result import Epoch, RunResult
from bisam_lab.statistics import compare, verdict

MINUS = "\u2212"
EVIL = "</script><script>window.evil = 1</script>"
HARDWARE = {"torch": "2.9.1", "python": "3.12.1", "cpu": "Some CPU", "gpus": ["H100"], "git_commit": "c0ffee123"}
SCORES = {"sgd": (0.80, 0.81, 0.82), "sam": (0.84, 0.85, 0.87), "<b>odd": (0.79, 0.82, 0.10)}


def result(method, seed, score, variant=""):
    status = "collapsed" if score < 0.2 else "ok"
    history = [Epoch(epoch, 2.0 / epoch, score - 0.1 / epoch) for epoch in range(1, 7)]
    return RunResult(
        method=method,
        seed=seed,
        status=status,
        test_score=score,
        validation_score=history[-1].validation_score,
        selected_epoch=6,
        steps_per_second=50.0,
        seconds=12.5,
        variant=variant,
        parameters=78042,
        environment={**HARDWARE, "started": f"2026-01-0{seed + 1}T10:00:00+00:00"},
        history=history,
    )


def study(folder, *, name="study", variants=(), skip=(), **fields):
    """Write a study's folder as its processes do, without training."""
    recipe = {"name": name, "methods": list(SCORES), "seeds": 3, "model": {"name": "resnet-8"}, **fields}
    recipe["train"] = {"epochs": 6, "lr": 0.3}
    if variants:
        recipe["variants"] = {variant: {"model.name": variant} for variant in variants}
    folder.mkdir()
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    for variant in variants or ("",):
        for method, scores in SCORES.items():
            for seed, score in enumerate(scores):
                if (method, seed) not in skip:
                    path = folder / "runs" / variant / method / f"seed-{seed}" / "result.json"
                    path.parent.mkdir(parents=True)
                    path.write_text(json.dumps(result(method, seed, score, variant).to_dict()))
    return folder


class Page(HTMLParser):
    """Cells of its tables by class, its tags, its text outside scripts."""

    def __init__(self, html):
        super().__init__()
        self.tables, self.tags, self.text, self.inside = {}, [], "", []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self.rows = self.tables.setdefault(dict(attrs)["class"].split()[0], [])
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
        if tag in ("td", "th", "script", "style"):
            self.inside.append(tag)

    def handle_endtag(self, tag):
        if self.inside and tag == self.inside[-1]:
            self.inside.pop()

    def handle_data(self, data):
        if not {"script", "style"} & set(self.inside):
            self.text += data
            if self.inside:
                self.rows[-1][-1] = (self.rows[-1][-1] + " " + " ".join(data.split())).strip()


def test_the_page_says_what_the_statistics_say(tmp_path):
    folder = study(tmp_path / "s", description="What a page is.")
    page = Page(render(collect([folder])))
    runs = [result(method, seed, score) for method, scores in SCORES.items() for seed, score in enumerate(scores)]
    rows = {row.method: row for row in compare(runs, "sgd")}
    assert verdict(list(rows.values()), "sgd") in page.text.replace("\u00a0", " ")
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


def in_process(capsys, monkeypatch, *args):
    monkeypatch.setattr(sys, "argv", ["bisam", "report", *map(str, args)])
    with pytest.raises(SystemExit) as left:
        bisam_lab.main()
    said = capsys.readouterr()
    return left.value.code, said.out, " ".join(said.err.split())


def test_the_command_writes_a_page_or_prints_its_data(tmp_path, capsys, monkeypatch):
    folder, out = study(tmp_path / "s"), tmp_path / "new" / "page.html"
    assert in_process(capsys, monkeypatch, folder, "--out", out, "--baseline", "sam")[0] == 0
    assert "minus that of sam" in out.read_text(encoding="utf-8")
    assert [path.name for path in out.parent.iterdir()] == ["page.html"], "no temporary file stays"
    code, text, _ = in_process(capsys, monkeypatch, folder, "--json")
    block = json.loads(text)["studies"][0]["blocks"][0]
    assert code == 0
    assert block["comparison"][1]["difference"] == pytest.approx(13 / 3)
    assert block["comparison"][0]["difference"] is None, "JSON has no NaN"
    assert block["runs"][3]["history"]["epoch"] == [1, 2, 3, 4, 5, 6]
    assert set(block) == set(plain(collect([folder]))["studies"][0]["blocks"][0])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "is no folder"),
        (lambda path: path.mkdir(), "is empty"),
        (lambda path: (path.mkdir(), (path / "x").write_text("")), "has no recipe.yaml"),
        (lambda path: (path.mkdir(), study(path / "inner")), "did you mean .*inner"),
        (lambda path: (path.mkdir(), (path / "recipe.yaml").write_text("a: [")), "cannot be read"),
        (lambda path: (path.mkdir(), (path / "recipe.yaml").write_text("- a")), "is no recipe"),
    ],
)
def test_a_folder_that_is_no_study_is_one_sentence(tmp_path, make, words):
    make(tmp_path / "s")
    with pytest.raises(RecipeError, match=words):
        collect([tmp_path / "s"])


def test_wrong_arguments_are_one_sentence(tmp_path, capsys, monkeypatch):
    folder = study(tmp_path / "s")
    code, _, said = in_process(capsys, monkeypatch, folder, "--baseline", "adam")
    assert code == 2 and said == "error: --baseline adam is not among the methods sgd, sam, <b>odd"
    code, _, said = in_process(capsys, monkeypatch, folder, "--out", tmp_path)
    assert code == 2 and "is a folder: name a file" in said


@pytest.fixture(scope="module")
def browser():
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    binary = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("no Chromium with its chromedriver here (Debian: apt install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    running = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield running
    running.quit()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    a = study(folder / "a", name=EVIL)
    write(collect([a, study(folder / "b", name="second", variants=("wrn", "vgg"))]), folder / "page.html")
    return folder / "page.html"


@pytest.fixture
def opened(browser, page_file):
    """The page, fresh; whatever it complains of in the console fails the test."""
    size = {"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    browser.get_log("browser")
    browser.get(page_file.as_uri())
    yield browser
    assert browser.get_log("browser") == []


def find(browser, selector):
    return browser.find_elements("css selector", selector)


def shown(browser, selector):
    return [thing for thing in find(browser, selector) if thing.is_displayed()]


def column(browser, number):
    rows = find(browser, "#block-1-1 .comparison tbody tr")
    return [row.find_elements("css selector", "th, td")[number].text for row in rows]


def test_a_filter_hides_a_method_everywhere_and_changes_no_number(opened):
    assert opened.execute_script("return window.evil") is None
    assert column(opened, 3) == ["baseline", "+4.33", f"{MINUS}24.00"]
    everything = "tr, .overview td, .series .mean, .seed, .dot, .diamond, .label"
    before = len(
        shown(opened, '[data-method="sam"], ' + ", ".join(f'[data-method="sam"] {s}' for s in everything.split(", ")))
    )
    assert before > 60
    chip = next(button for button in find(opened, ".chip") if button.text == "sam")
    chip.click()
    assert chip.get_attribute("aria-pressed") == "false"
    assert shown(opened, '[data-method="sam"], [data-method="sam"] *') == []
    assert column(opened, 3) == ["baseline", "", f"{MINUS}24.00"], "what is hidden has no text"
    assert len(shown(opened, "#block-1-1 .mean")) == 2 + 2 * 2, "two in the table, two in each chart"
    assert shown(opened, ".filtered")
    find(opened, ".chip.all")[0].click()
    assert column(opened, 3) == ["baseline", "+4.33", f"{MINUS}24.00"] and not shown(opened, ".filtered")
    dots = len(shown(opened, ".dot"))
    find(opened, '.chip[data-filter="seed"][data-name="1"]')[0].click()
    assert len(shown(opened, ".dot")) < dots and shown(opened, ".seed") and not shown(opened, '[data-seed="1"] .seed')


def test_a_curve_tells_method_epoch_value_and_seed(opened):
    from selenium.webdriver import ActionChains, Keys

    chart = find(opened, '#block-1-1 .chart[data-quantity="validation_score"]')[0]
    ActionChains(opened).scroll_to_element(chart).perform()
    scale = json.loads(chart.get_attribute("data-scale"))

    def along(axis, value):
        low, high, start, end = axis
        return start + (value - low) / (high - low) * (end - start)

    def hover(epoch, value):
        box = opened.execute_script(
            "const [b, v] = [arguments[0].getBoundingClientRect(), arguments[0].viewBox.baseVal];"
            "return [b.width, b.height, v.width, v.height]",
            chart,
        )
        width, height = box[2:]
        x, y = along(scale["x"], epoch) / width - 0.5, along(scale["y"], value) / height - 0.5
        ActionChains(opened).move_to_element_with_offset(chart, round(x * box[0]), round(y * box[1])).perform()
        return find(opened, "#tip")[0].text

    assert hover(4, 100 * (0.84 - 0.1 / 4)) == "sam, seed 0, epoch 4: 81.50"
    mean = 100 * (sum(SCORES["sam"]) / 3 - 0.1 / 6)
    assert hover(6, mean) == f"sam, mean, epoch 6: {mean:.2f}"
    chart.send_keys(Keys.ESCAPE)
    assert not find(opened, "#tip")[0].is_displayed()
    chart.send_keys(Keys.ARROW_DOWN, Keys.ARROW_RIGHT)
    assert find(opened, "#tip")[0].text == f"sgd, mean, epoch 2: {81 - 5:.2f}"
    dot = find(opened, "#block-1-1 .dot")[0]
    ActionChains(opened).move_to_element(dot).perform()
    assert find(opened, "#tip")[0].text == "sam, seed 0: +4.00 points"


def test_a_heading_sorts_and_sorts_back(opened):
    score, difference = (find(opened, "#block-1-1 .comparison .sort")[i] for i in (1, 3))
    score.click()
    assert column(opened, 0)[1:] == ["sgd", "sam"] and column(opened, 0)[0].startswith("<b>odd")
    score.click()
    assert column(opened, 0)[:2] == ["sam", "sgd"]
    difference.click()
    assert column(opened, 3) == [f"{MINUS}24.00", "+4.33", "baseline"]
    difference.click()
    assert column(opened, 3) == ["+4.33", f"{MINUS}24.00", "baseline"], "what has no number stays last"
    assert difference.find_element("xpath", "..").get_attribute("aria-sort") == "descending"


def test_a_phone_shows_the_page_without_scrolling_sideways(opened):
    phone = {"width": 360, "height": 640, "deviceScaleFactor": 2, "mobile": True}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    for details in find(opened, "details"):
        opened.execute_script("arguments[0].open = true", details)
    assert opened.execute_script("return [innerWidth, document.documentElement.scrollWidth]") == [360, 360]
    smallest = (
        "return Math.min(...[...document.querySelectorAll('.chart text')].map(t => t.getBoundingClientRect().height))"
    )
    assert opened.execute_script(smallest) >= 10, "letters of the charts, in pixels"


def test_dark_and_light_have_contrast(opened):
    def luminance(colour):
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    read = """const probe = document.createElement('i');
        document.body.append(probe);
        const read = (name) => { probe.style.color = `var(--${name})`; return getComputedStyle(probe).color };
        return arguments[0].map(read)"""
    names = ["card", "ink", "soft", "link", "m0", "m1", "m2", "m3", "m4", "m5", "m6"]
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        card, *inks = map(luminance, opened.execute_script(read, names))
        assert (card > 0.9) == (scheme == "light")
        for name, ink in zip(names[1:], inks, strict=True):
            assert (max(card, ink) + 0.05) / (min(card, ink) + 0.05) >= 4.5, (scheme, name)


def test_print_has_everything_and_no_buttons(opened):
    assert not shown(opened, ".runs tbody tr")
    features = [{"name": "prefers-color-scheme", "value": "dark"}]
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": features})
    assert opened.execute_script("return document.querySelectorAll('.runs')[2].getBoundingClientRect().height") > 100
    colours = "const style = getComputedStyle(document.body); return [style.color, style.backgroundColor]"
    assert opened.execute_script(colours) == ["rgb(27, 31, 38)", "rgb(255, 255, 255)"], "light, on dark screens too"
    assert not shown(opened, ".chip")
    pdf = base64.b64decode(opened.print_page())
    assert len(re.findall(rb"/Type\s*/Page\b(?!s)", pdf)) >= 3
