"""Real processes share a tuning through kills and signals."""

import dataclasses
import json
import os
import signal

import pytest
from optuna.trial import TrialState

from bisam_lab.recipe import load
from bisam_lab.run.observer import Observer
from bisam_lab.tuning.claim import claim
from bisam_lab.tuning.storage import JOURNAL
from bisam_lab.tuning.trial import run_trial
from bisam_lab.tuning.tuning import ended

from ..test_cli import start, wait_for
from .small import TINY, small, table, work
from .test_command import spoken


@pytest.mark.slow
def test_real_processes_share_a_study_through_a_kill_and_a_signal(tmp_path, capsys, monkeypatch):
    """One is killed in the middle of trials, one is told to leave, and this process runs trials beside and after."""
    args = ["tune", "digits", *TINY, "train.epochs=10", "--method", "sam", "--out", "t", "--jobs", "2", "--trials"]
    out = tmp_path / "t"
    killed = start(*args, "1000", cwd=tmp_path)
    wait_for(lambda: len(list(out.glob("trials/*.lock"))) > 1)
    tuning = small(out, epochs=10, trials=1000)
    study = tuning.create()
    beside = claim(tuning, study)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    with (out / JOURNAL).open("ab") as journal:
        journal.write(b'{"op_code":7,"worker')  # a kill in the middle of a write
    left = [trial for trial in study.trials if trial.state == TrialState.RUNNING]
    assert len(left) > 1, "the killed one left trials behind"
    run_trial(beside, Observer(), lambda *told: None)

    known = len(study.trials)
    told = start(*args, "1000", cwd=tmp_path)
    wait_for(lambda: any(trial.state == TrialState.RUNNING for trial in study.trials[known:]))
    told.send_signal(signal.SIGTERM)
    said, _ = told.communicate(timeout=60)
    assert told.returncode == 143, said
    assert "the same command goes on" in said
    assert "Traceback" not in said
    assert all(trial.state != TrialState.RUNNING for trial in study.trials)
    waiting = sum(trial.state == TrialState.WAITING for trial in study.trials)
    assert waiting > 0, "its trials were put back"

    wanted = sum(map(ended, study.trials)) + waiting
    found = work(dataclasses.replace(tuning, trials=wanted), study)
    assert (found.trials, found.failed) == (wanted, 0)
    monkeypatch.chdir(tmp_path)
    told, said = (spoken(capsys, monkeypatch, *args, str(wanted), *more) for more in (["--json"], []))
    told = json.loads(told)
    assert told.keys() >= {"best", "default", "importances", "folder"}
    assert told["trials"] == wanted
    assert told["best"] == {"trial": found.best.trial, "score": found.best.score, "settings": found.best.settings}
    assert told["default"]["score"] <= told["best"]["score"]
    assert "bisam compare t/best.yaml" in said
    assert "too high an estimate" in said
    rows = table(out)
    # Those of the killed one, and at least one that was put back; another may have waited without a process.
    assert sum(row["state"] == "fail" for row in rows) >= len(left) - 1 + 1
    assert [row["default"] for row in rows if row["state"] == "complete"].count("1") == 1
    for setting in {row["rho"] for row in rows}:
        assert [row["state"] for row in rows if row["rho"] == setting][-1] in ("complete", "pruned")

    recipe = load(out / "best.yaml")
    assert recipe.methods == ("sgd", "sam")
    assert recipe.sharpness.radii["sam"] == found.best.settings["rho"]
    assert "# bisam tune digits" in (out / "best.yaml").read_text()
    assert (out / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert not list((out / "trials").iterdir())
