"""The page in a real browser: its filters, its charts, its print, its phone."""

import base64
import json
import re

import pytest

from bisam_lab.report import collect, write_page
from tests.browser import started

from .folders import EVIL, SCORES, study

MINUS = "\u2212"


@pytest.fixture(scope="module")
def browser():
    with started() as running:
        yield running


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    a = study(folder / "a", name=EVIL)
    write_page(collect([a, study(folder / "b", name="second", variants=("wrn", "vgg"))]), folder / "page.html")
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
