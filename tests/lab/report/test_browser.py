"""The page in a real browser: its filters, its charts, its print, its phone."""

import base64
import json
import re

import pytest

from bisam_lab.report import collect, write_page
from tests.browser import started

from .folders import EVIL, SCORES, run_folder, study, tuning_folder

MINUS = "\u2212"
#: Names as long as combinations have them.
LONG = ("a-study-of-a-rather-long-name", "bisam-log+asam@rho=0.5+looksam@k=10", "momentumsam", "friendly-sam", "esam")


@pytest.fixture(scope="module")
def browser():
    with started() as running:
        yield running


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    a = study(folder / "a", name=EVIL)
    b = study(folder / "b", name="second", variants=("wrn", "vgg"))
    write_page(collect([a, b]), folder / "page.html")
    many = (SCORES | dict.fromkeys(LONG, SCORES["sam"])) | {"sam": SCORES["sgd"]}
    write_page(collect([study(folder / name, name=name, scores=many) for name in LONG[:2]]), folder / "many.html")
    write_page(collect([study(folder / "live", skip={("sam", 2)})]), folder / "live.html")
    others = [tuning_folder(folder / "t", trials=12), run_folder(folder / "r"), run_folder(folder / "q", method="sgd")]
    write_page(collect([a, *others]), folder / "all.html")
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
    find(opened, ".chip.every")[0].click()
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
    assert len(shown(opened, "#block-1-1 .mean")) == 2 + 1 + 2 * 2, "in the table, in the verdict, in each chart"
    assert shown(opened, ".filtered")
    find(opened, ".chip.all")[0].click()
    assert column(opened, 3) == ["baseline", "+4.33", f"{MINUS}24.00"] and not shown(opened, ".filtered")
    dots = len(shown(opened, ".dot"))
    find(opened, '.chip[data-filter="seed"][data-name="1"]')[0].click()
    assert len(shown(opened, ".dot")) < dots and shown(opened, ".seed") and not shown(opened, '[data-seed="1"] .seed')


def test_a_curve_tells_method_epoch_value_and_seed(opened):
    from selenium.webdriver import ActionChains, Keys

    chart = find(opened, '#block-1-1 .chart[data-quantity="validation_score"]')[0]
    assert not shown(opened, ".seed"), "thirty thin lines hide three means"
    find(opened, ".chip.every")[0].click()
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


def test_a_trial_is_told_and_its_line_stands_out(opened, page_file):
    from selenium.webdriver import Keys

    opened.get(page_file.with_name("all.html").as_uri())
    chart = find(opened, ".chart.parallel")[0]
    opened.execute_async_script(  # a scroll closes the tip, and is told of a frame later
        "arguments[0].scrollIntoView({block: 'center'});"
        "requestAnimationFrame(() => requestAnimationFrame(arguments[1]))",
        chart,
    )
    chart.send_keys(Keys.ARROW_DOWN, Keys.ARROW_UP)  # from the first line to the last, the best one
    told = find(opened, "#tip")[0].text
    headline = next(line.text for line in find(opened, ".headline") if line.text.startswith("Best"))
    assert headline.startswith(f"Best, {told.split(':')[0]}: ") and ", lr " in told
    assert [line.get_attribute("data-method") for line in find(opened, ".near")] == [told.split(":")[0]]


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


#: Texts of a chart that overlap another text, or lie beyond the card; lines that cross a text; boxes that are cut.
FAULTS = """
    const faults = [], cut = (box, card) => box.left < card.left - 1 || box.right > card.right + 1;
    const meet = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
        && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 2;
    for (const chart of document.querySelectorAll('svg.chart')) {
        const card = chart.closest('.card').getBoundingClientRect();
        const texts = [...chart.querySelectorAll('text')].map((t) => [t.textContent, t.getBoundingClientRect()]);
        const shown = texts.filter(([, box]) => box.width);
        shown.forEach(([words, box], i) => {
            if (cut(box, card)) faults.push(`${words} lies beyond its card`);
            for (const [other, there] of shown.slice(i + 1))
                if (meet(box, there)) faults.push(`${words} over ${other}`);
            for (const line of chart.querySelectorAll('.zero, .differences .grid')) {
                const { left, top, bottom } = line.getBoundingClientRect();
                if (meet(box, { left: left - 1, right: left + 1, top, bottom })) faults.push(`a line crosses ${words}`);
            }
        });
    }
    for (const part of document.querySelectorAll('td, th, li, h1, h2, h3, figcaption, .scroll, .headline, .hint')) {
        const box = part.getBoundingClientRect();
        if (box.width && (box.right > innerWidth || part.scrollWidth > part.clientWidth + 1) && part.clientWidth)
            faults.push(`${part.className || part.tagName} is cut: ${part.textContent.trim().slice(0, 40)}`);
    }
    for (const name of document.querySelectorAll('.held'))
        if (name.getClientRects().length > 1) faults.push(`${name.textContent} is broken`);
    return faults"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 1040, 390])
def test_nothing_overlaps_and_nothing_is_cut(opened, page_file, width, scheme):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    for name in ("page.html", "all.html", "many.html"):
        opened.get(page_file.with_name(name).as_uri())
        opened.execute_script("for (const part of document.querySelectorAll('details')) part.open = true")
        assert opened.execute_script(FAULTS) == []
        assert opened.execute_script("return document.documentElement.scrollWidth") <= width


def test_a_phone_shows_the_difference_below_the_methods_name(opened):
    phone = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    row = find(opened, "#block-1-1 .comparison tbody tr")[1]
    places = {name: row.find_element("css selector", name).rect for name in ("th", ".first", ".second", "td")}
    assert row.find_element("css selector", ".first").text == "+4.33", "what the page is for"
    assert sorted(places, key=lambda name: places[name]["y"]) == ["th", ".first", ".second", "td"]
    assert all(box["x"] > 0 and box["x"] + box["width"] < 390 for box in places.values())


def test_a_page_of_what_goes_on_reads_its_file_again_and_keeps_what_is_hidden(opened, page_file):
    from selenium.webdriver.support.ui import WebDriverWait

    live = page_file.with_name("live.html")
    soon = live.read_text().replace('data-seconds="10"', 'data-seconds="0.3"')
    live.write_text(soon)
    opened.get(live.as_uri())
    opened.execute_script(
        "document.querySelector('.chip[data-name=sam]').click();"
        "[...document.querySelectorAll('#block-1-1 details')].pop().open = true; scrollTo(0, 300)"
    )
    live.write_text(soon.replace("8 of 9 runs", "9 of 9 runs"))
    kept = (
        "return [document.querySelector('main').innerText.includes('9 of 9 runs'),"
        " document.querySelector('.chip[data-name=sam]').ariaPressed,"
        " [...document.querySelectorAll('#block-1-1 details')].pop().open, scrollY]"
    )
    WebDriverWait(opened, 10).until(lambda now: now.execute_script(kept)[0])
    assert opened.execute_script(kept) == [True, "false", True, 300]
    live.write_text(re.sub(r'(class="note live".*?datetime=")[^"]+', r"\g<1>2020-01-01T00:00:00+00:00", soon))
    opened.get(live.as_uri())
    assert find(opened, ".live")[0].text.endswith("It was not written again since.")


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
