"""The site: it builds without a warning, names all that is public, loads nothing from elsewhere, and its code runs."""

import copy
import importlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import types
import zlib
from html.parser import HTMLParser

import pytest
import torch
from torch import nn

import bisam
from tests.browser import resize, started
from tests.pages import ROOT, blocks, check_command, command_lines, run_console, run_page, write_files

PAGES = ["README.md", *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))]
#: Pages whose Python blocks tests of their own run, or a command on the page.
ELSEWHERE = {
    "docs/migration.md",
    "docs/lab/own-data.md",
    "docs/lab/notebook.md",
    "docs/assistants.md",
    "docs/lab/signatures.md",
    *(page for page in PAGES if page.startswith("docs/engines/")),
}
#: Modules of bisam beside ``bisam`` itself whose names are public.
MODULES = ["bounds", "compat", "functional", "loops", "testing", "integrations.lightning", "integrations.transformers"]
MODULES += ["ascent", "cadence", "choice", "combine", "direction", "geometry", "losses.functional_sam", "radius"]


def pages_with(language):
    return [page for page in PAGES if any(block.language == language for block in blocks(page))]


#: The tags that pages are made of. Another one is text with a "<" in it that was taken for a tag.
TAGS = {
    *("a", "article", "body", "br", "button", "code", "details", "div", "em", "footer", "form", "head", "header", "hr"),
    *("b", "circle", "figure", "iframe", "text"),
    *("h1", "h2", "h3", "h4", "h5", "h6", "html", "img", "input", "label", "li", "link", "main", "meta", "nav", "ol"),
    *("p", "path", "pre", "script", "small", "span", "strong", "summary", "svg", "table", "tbody", "td", "th", "thead"),
    *("title", "tr", "ul"),
}


class Resources(HTMLParser):
    """Collects what a page makes the browser load; a tag that no page should have is an error."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        assert tag in TAGS, f"<{tag}> is no tag of ours: quote it, or escape a > that stands first in its line"
        given = dict(attrs)
        if tag == "link" and given.get("rel") not in ("canonical", "prev", "next"):
            self.found.append(given.get("href"))
        elif tag in ("script", "img", "iframe", "source", "video", "audio", "embed"):
            self.found.append(given.get("src"))


def build(folder):
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def inventory(site):
    """What the API reference documents."""
    lines = zlib.decompress((site / "objects.inv").read_bytes().split(b"\n", 4)[4]).decode().splitlines()
    return {line.split(" ", 1)[0] for line in lines}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    build(folder)
    return folder


@pytest.fixture(scope="module")
def browser():
    with started() as running:
        yield running


def test_the_site_is_whole(site):
    """Built strictly: a broken link or anchor, a page that the navigation lacks, a broken docstring fail."""
    public = {f"bisam.{name}" for name in bisam.__all__}
    for name in MODULES:
        public |= {f"bisam.{name}.{member}" for member in importlib.import_module(f"bisam.{name}").__all__}
    assert public - inventory(site) == set(), "in no page of docs/reference, or without a docstring"
    for path in {*site.rglob("*.html")} - {site / "demo-report.html"}:  # of one file, and with tests of its own
        resources = Resources()
        resources.feed(path.read_text())
        assert len(resources.found) > 3
        assert [source for source in resources.found if source and re.match(r"(\w+:)?//", source)] == [], path
    for path in (*site.rglob("*.js"), *site.rglob("*.css")):
        assert re.findall(r"unpkg\.com|jsdelivr|googleapis|(?:@import|url\()\s*[\"']?https?:", path.read_text()) == []
    commands = (site / "reference" / "commands.html").read_text()
    assert all(f"bisam {name}" in commands for name in ("train", "compare", "rho-range"))
    assert "train.label_smoothing" in (site / "reference" / "recipe.html").read_text()
    assert ":class:" not in (site / "reference" / "methods.html").read_text()
    assert {"bisam_lab.results.Study.frame", "bisam_lab.results.compare"} <= inventory(site)


def test_the_reference_shows_the_example_first(site):
    """Behind the first paragraph, before what only some readers need."""
    page = (site / "reference" / "methods.html").read_text()
    entry = page[page.index('id="bisam.FriendlySAM"') : page.index('id="bisam.VaSSO"')]
    assert entry.index("Examples:") < entry.index("Parameters:")


def test_the_figures_are_drawn_and_follow_the_page(site):
    idea = (site / "idea.html").read_text()
    drawings = re.findall(r'<figure class="drawn">.*?</figure>', idea, re.DOTALL)
    assert [drawing.count("<svg") for drawing in drawings] == [1, 1, 2, 1, 1]
    assert not re.search(r'(?:fill|stroke)="(?!none)', "".join(drawings)), "colours are the page's"
    assert "nan" not in "".join(drawings)
    for name in ("demo-curves", "demo-differences", "frontier-digits-noisy"):
        assert (site / "images" / f"{name}.svg").read_text().count("<path") > 10
    assert "bisam-tanh" in (site / "demo-report.html").read_text()


def test_llms_txt_has_the_lines_to_copy_and_every_page(site):
    text = (site / "llms.txt").read_text()
    assert text.startswith("# bisam\n\n> ") and "\n# " not in re.sub(r"```.*?```", "", text, flags=re.DOTALL)[2:]
    copied = [block.text for block in blocks("docs/assistants.md") if block.language == "python"]
    assert len(copied) > 5 and all(block in text for block in copied)
    links = re.findall(r"\]\((?!\w+:|#)([^)#]+)", text)
    assert {link for link in links if not (site / link).is_file()} == set()
    pages = {str(path.relative_to(site)) for path in site.rglob("*.html")} - {"404.html", "demo-report.html"}
    assert pages - set(links) == set()


#: Called in a page: what does not fit, with the number of pixels that are missing.
CUT = """
const width = document.documentElement.clientWidth, found = [];
const words = (element) => element.textContent.trim().slice(0, 50);
const add = (name, element, missing) => missing > 1 && found.push([name, missing, words(element)]);
add("page", document.body, document.documentElement.scrollWidth - width);
for (const e of document.querySelectorAll(".md-content pre > code, .md-content .md-typeset__scrollwrap, .notebook"))
  add(e.className || e.tagName, e, e.scrollWidth - e.clientWidth);
for (const e of document.querySelectorAll(".md-content :is(img, svg, p, li, h1, h2, h3, h4, input)"))
  add(e.tagName, e, Math.round(e.getBoundingClientRect().right - width));
return found;
"""


@pytest.mark.parametrize("width", [1280, 390])
def test_no_page_is_cut_off(width, site, browser):
    """On a laptop and on a phone. A page is opened at its width: one that is resized needs time to settle."""
    resize(browser, width)
    cut, seen = [], 0
    for path in sorted(site.rglob("*.html")):
        if path.name not in ("404.html", "demo-report.html"):
            browser.get(path.as_uri())
            cut += [(str(path.relative_to(site)), *found) for found in browser.execute_script(CUT)]
            seen += 1
    assert cut == []
    assert seen > 40


def test_the_search_finds_from_the_file_system(site, browser):
    """What a reader types, and the page that must be the first found."""
    resize(browser, 1280)
    browser.get_log("browser")
    for words, page in {
        "log the training loss": "loop/logging.html",
        "log metrics": "loop/logging.html",
        "install": "install.html",
        "mixed precision": "loop/precision.html",
        "notebook": "lab/notebook.html",
    }.items():
        browser.get((site / "index.html").as_uri())
        box = browser.find_element("css selector", ".md-search__input")
        browser.execute_script("arguments[0].focus()", box)
        box.send_keys(words)
        end = time.monotonic() + 30
        while not (first := browser.find_elements("css selector", ".md-search-result__link")):
            assert time.monotonic() < end, f"nothing is found for {words}"
            time.sleep(0.05)
        assert first[0].get_attribute("href").split("?")[0] == (site / page).as_uri(), words
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_a_slider_moves_the_radius(site, browser):
    """Without a radius the sharp minimum is the least one, with a wide one the flat one is."""
    resize(browser, 1280)
    browser.get((site / "idea.html").as_uri())
    slider = browser.find_element("css selector", ".radius input")
    least = {}
    for rho in ("0", "0.55"):
        browser.execute_script(
            "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))", slider, rho
        )
        told = browser.find_element("css selector", ".radius output").text
        least[rho] = float(re.search(r"w = (-?[\d.]+)", told)[1])
    assert least["0"] == pytest.approx(-1.6, abs=0.1)
    assert least["0.55"] == pytest.approx(1.3, abs=0.1)


#: Pages whose loops train a network that they build themselves.
OWN_NETWORK = ("docs/own.md", "docs/install.md", "docs/beyond/graphs.md", "docs/beyond/reinforcement.md")


@pytest.mark.parametrize("page", [page for page in pages_with("python") if page not in ELSEWHERE])
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch):
    """All Python blocks of a page run in order, in one namespace that holds the reader's ``model`` and ``loader``."""
    monkeypatch.chdir(tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": "0", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)  # as torchrun does
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(12, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 3)
    )
    data = torch.utils.data.TensorDataset(torch.randn(32, 3, 2, 2), torch.randint(0, 3, (32,)))
    reader = types.ModuleType("reader")  # a module, so that what a page defines can be pickled
    monkeypatch.setitem(sys.modules, "reader", reader)
    vars(reader).update(torch=torch, model=model, loader=torch.utils.data.DataLoader(data, 8))
    before = copy.deepcopy(model.state_dict())
    run_page(page, vars(reader))
    loops = any(".step()" in block.text for block in blocks(page) if block.language == "python")
    moved = any(not torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert moved or not loops or page in OWN_NETWORK, "the loops train nothing"


@pytest.mark.parametrize("page", pages_with("console"))
def test_the_commands_of_a_page_run(page, tmp_path):
    assert all(run_console(page, tmp_path))


def test_every_command_line_is_one_that_the_command_accepts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checked = 0
    for page in [*PAGES, "CONTRIBUTING.md"]:
        write_files(page, tmp_path)
        for line in command_lines((ROOT / page).read_text()):
            try:
                check_command(line)
            except Exception as error:
                raise AssertionError(f"{page}: bisam {line}") from error
            checked += 1
    assert checked > 20


@pytest.mark.parametrize(
    "line",
    [
        "compere",
        "compare --method sam",
        "compare train.lrr=1",
        "compare --methods sma",
        "train digits --seed x",
        "train no",
    ],
)
def test_a_wrong_command_line_is_noticed(line):
    with pytest.raises((Exception, SystemExit)):
        check_command(line)


def test_command_lines_are_found_wherever_they_stand():
    text = """
`bisam compare digits` and `bisam` and bisam trains

    bisam compare cifar10 --data-dir data \\
        --seeds 3     # three

```bash title="a.sh"
exec bisam train digits --seed "$N"
```
bisam is no command here
"""
    assert [" ".join(line.split()) for line in command_lines(text)] == [
        'train digits --seed "$N"',
        "compare cifar10 --data-dir data --seeds 3 # three",
        "compare digits",
    ]
    check_command('train digits --seed "$N" | tail')


def slugs(path):
    """The anchors that GitHub, and the site, give to a page's headings."""
    headings = re.findall(
        r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE), re.M
    )
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "page",
    ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", *(f"examples/{n}.ipynb" for n in ("bisam_on_digits", "study"))],
)
def test_links_of_files_outside_of_the_site_lead_somewhere(page):
    text = (ROOT / page).read_text()
    if page.endswith(".ipynb"):
        text = "\n".join(
            "".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown"
        )
    for link in re.findall(r"\]\((?!\w+:)([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        target = ((ROOT / page).parent / path).resolve()
        assert target.exists(), link
        assert not anchor or anchor in slugs(target), link


def test_shell_scripts_of_the_pages_are_sound(tmp_path):
    for page in PAGES:
        write_files(page, tmp_path)
    scripts = [*tmp_path.glob("*.sh")]
    assert scripts
    for path in scripts:
        subprocess.run([shutil.which("bash"), "-n", str(path)], check=True)
