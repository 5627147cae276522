"""The notebook: it runs from top to bottom, is stored without outputs, and its links lead somewhere."""

import re

import pytest

from tests.pages import ROOT

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

FOLDER = ROOT / "examples"
PATH = FOLDER / "bisam_on_digits.ipynb"


@pytest.fixture
def notebook():
    return nbformat.read(PATH, as_version=nbformat.NO_CONVERT)


def test_it_is_stored_without_outputs_and_without_traces_of_a_machine(notebook):
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
    assert not re.search(r"/(home|Users|tmp|work|root)/", PATH.read_text())


def test_its_links_lead_somewhere(notebook):
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if not link.startswith("https://")]
    assert len(links) >= 4
    for link in links:
        file, _, anchor = link.partition("#")
        page = (FOLDER / file).read_text()
        headings = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
        assert not anchor or anchor in [re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings], link


def test_it_runs(notebook, tmp_path, monkeypatch):
    """In an empty folder: no complaint, every picture, and what holds whatever the trained networks do."""
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.delenv("MPLBACKEND", raising=False)
    folder = tmp_path / "empty"
    folder.mkdir()
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()

    outputs = {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}
    streams = [output for each in outputs.values() for output in each if output.output_type == "stream"]
    assert [output.text for output in streams if output.name == "stderr"] == []
    pictures = {name for name, each in outputs.items() if any("image/png" in output.get("data", {}) for output in each)}
    assert pictures == {"losses-plot", "data", "climb-plot", "compare", "vanish"}

    said = "".join(output.text for output in streams)
    assert "Q lies above the 0-1 loss at: {'BiSAM-log': 0, 'BiSAM-tanh': 0}" in said
    assert "perturbed: False, gradient finite: True" in said
    (tenth,) = re.findall(r"epoch  1: .*\n +Q tanh +has ([\d.]+) times", said)
    assert float(tenth) == pytest.approx(0.1, rel=0.1)
    assert not re.search(r"\bnan\b", said)
    assert list(folder.iterdir()) == []
