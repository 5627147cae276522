"""Every shipped recipe at its smoke size: its variants, methods and seeds, on real data, through the runs' own code."""

import pytest
from torchvision.datasets import Flowers102

from bisam_lab.recipe import load, names, only
from bisam_lab.report.summary import write_summary
from bisam_lab.statistics.by_variant import outcomes
from bisam_lab.study.cell import run_cell
from bisam_lab.study.folder import Study

from .layouts import BUILDERS, own

#: Variants that add nothing but time: networks of other recipes with other initial weights, or ten times as wide, or
#: with another number of classes.
AGAIN = {
    "table2-cifar100": ["densenet-121", "wrn-28-10", "vgg19-bn"],
    "table1-as-code": ["densenet-121", "wrn-28-10", "resnet-56"],
    "table2-as-code": ["densenet-121", "wrn-28-10", "resnet-56", "vgg19-bn"],
}
#: The recipes with many cells in parts, for the suite runs in several processes.
PARTS = [
    (name, part)
    for name in names()
    for part in (load(name, smoke=True).variants or [""])
    if part not in AGAIN.get(name, [])
]


def linked(root, folder):
    for path in folder.iterdir():
        if not (root / path.name).exists():
            (root / path.name).symlink_to(path)


@pytest.fixture
def data_dir(tmp_path, real_data, monkeypatch):
    """A function from the name of a set to a folder that holds it, and human labels."""

    def find(name):
        root = tmp_path / "data"
        root.mkdir(exist_ok=True)
        if name in BUILDERS:
            monkeypatch.setattr(Flowers102, "_check_integrity", lambda self: True)  # ours is a small one
            BUILDERS[name](root, real_data("cifar100"))
        elif name == "folder:pictures":
            own(root, real_data("cifar100"))
        elif name == "text:texts.csv":
            (root / "texts.csv").write_text("text,label\n" + "so fine a film,good\nso dull a film,bad\n" * 20)
        elif name != "digits":
            linked(root, real_data(name.partition(":")[0]))
            if name == "cifar10":
                linked(root, real_data("cifar-n"))
        return root

    return find


@pytest.mark.filterwarnings("ignore::UserWarning")  # transformers tells of heads that are not pretrained
@pytest.mark.parametrize(("name", "part"), PARTS, ids=["-".join(filter(None, each)) for each in PARTS])
def test_it_runs(name, part, tmp_path, data_dir):
    recipe = load(name, smoke=True)
    recipe = only(recipe, [part]) if part else recipe
    study = Study(tmp_path / "study", recipe)
    for run in study.runs:
        own = study.recipe_of(run)
        root = data_dir(own.data.name) if run == study.runs[0] else tmp_path / "data"
        result = run_cell(own, run, study.path(run), data_dir=root)
        assert result.status in ("ok", "collapsed")
        assert len(result.history) == own.train.epochs
        assert result.metric == own.data.metric
    results = study.write_results()
    (outcome,) = outcomes(results, recipe.methods[0])
    write_summary(study, results, [outcome])
    assert [row.method for row in outcome.rows] == list(recipe.methods)
