"""Runs what the documents print, and the example programs, as a reader would.

``python`` blocks run in order, in one namespace. ``console`` blocks run in a shell, in a folder that holds the page's
titled blocks as files (``title="mine.yaml"`` behind the language), unless ``<!-- not run: reason -->`` stands before
them. Every line anywhere that calls the command ``bisam`` must at least be one that it accepts: its options, the
recipe's fields, the methods.
"""

import os
import re
import runpy
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import typer.main

from bisam_lab.cli.app import app
from bisam_lab.cli.audit import sorted_words
from bisam_lab.cli.options import read
from tests.warm import warm

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its ``title``, why it is not run, and its text."""

    language: str
    title: str
    not_run: str
    text: str


def blocks(page):
    """Return the fenced blocks of a page."""
    fence = re.compile(
        r"(?:^<!-- not run: (?P<not_run>.+) -->\n)?"
        r"^```(?P<language>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<text>.*?)^```$",
        re.DOTALL | re.MULTILINE,
    )
    return [
        Block(**{key: value or "" for key, value in found.groupdict().items()})
        for found in fence.finditer((ROOT / page).read_text())
    ]


def run_page(page, namespace=None, *, blocks=1):
    """Run all Python blocks of a page in order, in one namespace, and return it; ``blocks``: how many there must be."""
    found = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert len(found) >= blocks
    namespace = {"__name__": "page"} if namespace is None else namespace
    for block in found:
        exec(compile(block, page, "exec"), namespace)
    return namespace


def blocks_with(page, word):
    """Return the text of the Python blocks that contain ``word``, behind all imports of the page."""
    texts = [block.text for block in blocks(page) if block.language == "python"]
    found = [text for text in texts if word in text]
    assert found, f"{page}: no block contains {word}"
    imports = re.findall(r"^(?:from|import) .+$", "\n".join(texts), re.MULTILINE)
    return "\n".join([*imports, *found])


def run_example(name, monkeypatch, *arguments):
    """Run ``examples/NAME.py`` with these arguments."""
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
    runpy.run_path(str(ROOT / "examples" / f"{name}.py"), run_name="__main__")


def write_files(page, folder):
    """Write the titled blocks of a page into a folder."""
    for block in blocks(page):
        if block.title:
            (folder / block.title).write_text(block.text)


def prompts(block):
    """Return what stands behind the prompts of a console block, as a script."""
    return "".join(line[2:] + "\n" for line in block.text.splitlines() if line.startswith("$ "))


def run_console(page, folder):
    """Run the console blocks of a page in a folder, and return what each has printed."""
    write_files(page, folder)
    path = os.pathsep.join([str(warm().parent), str(Path(sys.executable).parent), os.environ["PATH"]])
    said = []
    for block in blocks(page):
        if block.language == "console" and not block.not_run:
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", prompts(block)],
                capture_output=True,
                text=True,
                cwd=folder,
                env={**os.environ, "PATH": path, "COLUMNS": "100", "NO_COLOR": "1"},
                timeout=240,
                check=False,
            )
            assert done.returncode == 0, f"{page}: {prompts(block)}{done.stdout}{done.stderr}"
            said.append(done.stdout)
    return said


def command_lines(text):
    """Return what follows ``bisam`` wherever a text calls it: in code blocks, fenced or indented, and in code spans."""
    text = text.replace("\\\n", " ")
    code = re.findall(r"^```[^\n]*\n(.*?)^```$", text, re.DOTALL | re.MULTILINE) + re.findall(
        r"^(?: {4}|\t)(.*)$", text, re.MULTILINE
    )
    called = re.compile(r"^(?:\$ )?(?:\w+=\S+ |exec )*(?:\.venv/bin/)?bisam (.*)$", re.MULTILINE)
    found = [line for part in code for line in called.findall(part)]
    return found + re.findall(r"(?<!`)`(?:\.venv/bin/)?bisam ([^`\n]+)`(?!`)", text)


def check_command(line):
    """Have the command parse a line, and the recipe be validated with what it sets; raise what they raise."""
    words = shlex.split(re.sub(r"\$\{?\w+\}?", "1", line), comments=True)
    for end in ("|", ">", "&&", ";"):
        words = words[: words.index(end)] if end in words else words
    command = typer.main.get_command(app)
    while commands := getattr(command, "commands", None):
        if not words or words[0] in ("--help", "--version", "--install-completion"):
            return
        command, words = commands[words[0]], words[1:]
    if not words or "--help" in words:  # the command is only named
        return
    given = command.make_context("bisam", words).params
    if given.get("recipe") is not None:
        _, fields = sorted_words(given["checkpoints"]) if "checkpoints" in given else ([], [])
        recipe, overrides = given["recipe"], given.get("overrides") or fields
        if recipe.endswith(".yaml") and not Path(recipe).exists():  # one that a run has written
            recipe = "digits"
        named = given.get("methods") or given.get("method")
        read(
            recipe,
            overrides,
            smoke=given.get("smoke", False),
            label_noise=given.get("label_noise"),
            methods=(named and named != "all" and f"[{named}]") or None,
            seeds=None if given.get("seeds") == "auto" else given.get("seeds"),
        )
