"""The notebooks: they run from top to bottom, are stored without outputs, and their links lead somewhere."""

import re

import pytest

from tests.pages import ROOT

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

FOLDER = ROOT / "examples"
NAMES = ("bisam_on_digits", "study")


def path(name):
    return FOLDER / f"{name}.ipynb"


def read(name):
    return nbformat.read(path(name), as_version=nbformat.NO_CONVERT)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_stored_without_outputs_and_without_traces_of_a_machine(name):
    notebook = read(name)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code
    for cell in code:
        assert cell.outputs == [], cell.id
        assert cell.execution_count is None, cell.id
    assert all(cell.metadata == {} for cell in notebook.cells)
    assert notebook.metadata == {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    assert not re.search(r"/(home|Users|tmp|work|root)/", path(name).read_text())


@pytest.mark.parametrize("name", NAMES)
def test_its_links_lead_somewhere(name):
    notebook = read(name)
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith("https://")]
    assert len(links) >= 4
    for link in links:
        file, _, anchor = link.partition("#")
        page = (FOLDER / file).read_text()
        headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
        assert not anchor or anchor in [re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings], link


def outputs_of(name, tmp_path, monkeypatch):
    """Run a notebook in an empty folder; return what its cells show, by cell, and all that it prints."""
    notebook = read(name)
    for variable in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))
    monkeypatch.delenv("MPLBACKEND", raising=False)
    folder = tmp_path / "empty"
    folder.mkdir()
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    assert list(folder.iterdir()) == []

    outputs = {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}
    streams = [output for each in outputs.values() for output in each if output.output_type == "stream"]
    assert [output.text for output in streams if output.name == "stderr"] == []
    return outputs, "".join(output.text for output in streams)


def pictures(outputs):
    return {name for name, each in outputs.items() if any("image/png" in output.get("data", {}) for output in each)}


def test_the_idea_runs(tmp_path, monkeypatch):
    """No complaint, every picture, and what holds whatever the trained networks do."""
    outputs, said = outputs_of("bisam_on_digits", tmp_path, monkeypatch)
    assert pictures(outputs) == {"losses-plot", "data", "climb-plot", "compare", "vanish"}
    assert "Q lies above the 0-1 loss at: {'BiSAM-log': 0, 'BiSAM-tanh': 0}" in said
    assert "perturbed: False, gradient finite: True" in said
    (tenth,) = re.findall(r"epoch  1: .*\n +Q tanh +has ([\d.]+) times", said)
    assert float(tenth) == pytest.approx(0.1, rel=0.1)
    assert not re.search(r"\bnan\b", said)


def test_the_study_runs(tmp_path, monkeypatch):
    """Two seeds are trained, then only the third; the study, its frames and its plots are shown."""
    outputs, said = outputs_of("study", tmp_path, monkeypatch)
    assert re.findall(r"^\[(\d/\d)\]", said, re.MULTILINE) == ["1/4", "2/4", "3/4", "4/4", "5/6", "6/6"]
    html = {name: each[0]["data"].get("text/html", "") for name, each in outputs.items() if each and "data" in each[0]}
    assert html["show"].count("<tr>") == 3 and "p (Holm)" in html["show"]
    assert html["frame"].count("<tr>") == 4 and html["table"].count("<tr>") == 2
    assert pictures(outputs) == {"plot", "own"}
