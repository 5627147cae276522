"""The command: its errors, and what it says of a best value at the end of a range."""

import pytest

import bisam_lab
import bisam_lab.run.setup

from ..test_cli import in_process
from .small import TINY, small, work


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--space", "rho=0.1"], "must look like rho=0.01:0.5"),
        (["--space", "rho=1:0.5"], "the lower end comes first"),
        (["--space", "rho=0:1:log"], "starts above 0"),
        (["--space", "rho=-1:1"], "greater than or equal to 0"),
        (["--space", "alpha=0.1:1"], "bisam-log has rho, mu, lr"),
        (["--space", "train.wd=0:1"], "train.wd: unknown key"),
        (["--space", "train.schedule=0:1"], "'cosine' is no number"),
        (["--method", "sgd"], "sgd has nothing to search: give --tune-lr"),
        (["--method", "bisam-tan"], "did you mean bisam-tanh?"),
        (["--variant", "x"], "variant 'x'"),
        (["--storage", "nonsense://user:secret@host/db"], "--storage nonsense:... cannot be opened"),
        (["--out", "full"], "--out full holds files but no optuna.log"),
    ],
)
def test_errors_are_one_sentence_and_code_2(args, words, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    code, said = in_process(capsys, monkeypatch, "tune", "digits", *args)
    assert code == 2
    assert words in said
    assert "secret" not in said


def spoken(capsys, monkeypatch, *args):
    """What the command prints, run in this process."""
    monkeypatch.setattr("sys.argv", ["bisam", *args])
    with pytest.raises(SystemExit) as left:
        bisam_lab.main()
    assert left.value.code == 0
    return capsys.readouterr().out


def test_a_best_value_at_the_end_of_its_range_is_warned_of(tmp_path, capsys, monkeypatch):
    tuning = small(tmp_path / "t", space=["rho=0.4:3.2:log"], trials=1, epochs=1)
    work(tuning, tuning.create())
    monkeypatch.chdir(tmp_path)
    args = [*TINY, "train.epochs=1", "--method", "sam", "--space", "rho=0.4:3.2:log", "--trials", "1", "--out", "t"]
    said = " ".join(spoken(capsys, monkeypatch, "tune", "digits", *args).split())
    assert "none was better" in said
    assert "The best rho lies at the lower end of its range" in said
    assert "--space rho=0.05:3.2:log" in said
