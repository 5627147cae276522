"""A tuning in a database: two drivers, deaths, turns, and what a user reads where the database cannot be reached."""

import contextlib
import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time

import optuna
import pytest
import sqlalchemy
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from bisam_lab.parallel.engine import Engine
from bisam_lab.recipe import RecipeError
from bisam_lab.run.observer import Observer, Stopped
from bisam_lab.tuning.claim import Claim, TakenOver, claim, recover
from bisam_lab.tuning.database import BeatingJournal, open_database
from bisam_lab.tuning.pool import _wait, run_trials
from bisam_lab.tuning.retry import queue_again
from bisam_lab.tuning.trial import run_trial
from bisam_lab.tuning.tuning import ended
from tests.warm import warm

from ..test_cli import ENV, in_process, wait_for
from .servers import PASSWORD, mariadb, postgresql
from .small import TINY, small, work
from .test_trial import StopAt

#: The command with a sign of life each second and a checkpoint each half; tells its own and its workers' processes.
DRIVER = """
import json, multiprocessing.process, os, sys, threading, time
import bisam_lab
from pathlib import Path
from bisam_lab.tuning.tuning import Tuning
Tuning.__init__.__defaults__ = (*Tuning.__init__.__defaults__[:-2], 0.5, 1)
def told():
    while True:
        workers = [child.pid for child in list(multiprocessing.process._children)]
        Path("pids.fresh").write_text(json.dumps([os.getpid(), *workers]))
        os.replace("pids.fresh", "pids")
        time.sleep(0.05)
threading.Thread(target=told, daemon=True).start()
sys.argv[0] = "bisam"
bisam_lab.main()
"""


@pytest.fixture(scope="module")
def server():
    with postgresql() as url:
        yield url


@contextlib.contextmanager
def _started(command, folder, *args):
    folder.mkdir(exist_ok=True)
    (folder / "pids").unlink(missing_ok=True)
    with (folder / "said").open("w") as said:
        driver = subprocess.Popen([command, "-c", DRIVER, *args], stdout=said, stderr=said, cwd=folder, env=ENV)
    try:
        yield driver
    finally:
        if driver.poll() is None:
            for pid in _pids(folder)[:1]:
                os.kill(pid, signal.SIGKILL)
            driver.wait()


def _disposed(study):
    study._storage._backend.engine.dispose()


def _pids(folder):
    with contextlib.suppress(FileNotFoundError):
        return json.loads((folder / "pids").read_text())
    return []


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["postgresql", "mariadb"])
def test_two_drivers_share_a_server_through_kills(kind, tmp_path, request):
    """A worker of one and the whole other one are killed in mid-trial; the same command then ends complete."""
    with contextlib.ExitStack() as stack:
        url = request.getfixturevalue("server") if kind == "postgresql" else stack.enter_context(mariadb())
        tuning = small(tmp_path / "c" / "kills", epochs=20, trials=1000, storage=url, beat=1)
        stack.callback(_disposed, study := tuning.create())
        args = ["tune", "digits", *TINY, "train.epochs=20", "--method", "sam", "--jobs", "2", "--storage", url]
        args += ["--out", "kills", "--trials"]
        a, b = tmp_path / "a", tmp_path / "b"
        second = stack.enter_context(_started(sys.executable, b, *args, "1000"))
        wait_for(lambda: list(b.glob("kills/trials/*/seed-*/last.pt")))
        first = stack.enter_context(_started(warm(), a, *args, "1000"))
        wait_for(lambda: all(list(folder.glob("kills/trials/*/seed-*/last.pt")) for folder in (a, b)))
        os.kill(_pids(a)[1], signal.SIGKILL)
        os.kill(_pids(b)[0], signal.SIGKILL)
        assert first.wait(120) == 1
        second.wait(120)
        assert "Traceback" not in (a / "said").read_text()
        trials = study.trials
        left = [trial for trial in trials if trial.state in (TrialState.RUNNING, TrialState.FAIL)]
        assert left, "the killed ones left trials behind; some of them are queued again by now"
        wanted = sum(map(ended, trials)) + sum(t.state in (TrialState.RUNNING, TrialState.WAITING) for t in trials)
        again = stack.enter_context(_started(warm(), a, *args, str(wanted)))
        assert again.wait(240) == 0, (a / "said").read_text()
        said = (a / "said").read_text()
        assert PASSWORD not in said and "Traceback" not in said

        trials = study.trials
        done = [trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
        assert len(done) == wanted == sum(map(ended, trials))
        settings = [trial.params["rho"] for trial in done]
        assert len(set(settings)) == wanted, "no setting ran to its end twice"
        lost = [trial for trial in trials if trial.state == TrialState.FAIL]
        assert {trial.number for trial in left} <= {trial.number for trial in lost}
        drawn = [trial.params["rho"] for trial in lost if trial.params]  # one may have been killed before it drew
        assert set(drawn) <= set(settings), "their settings were run again"
        assert [trial.user_attrs.get("default") for trial in done].count(True) == 1


def _forget_to_beat(study):
    """Put the last sign of life of every trial far into the past, as if its process had died then."""
    with study._storage._backend.engine.begin() as connection:
        connection.execute(sqlalchemy.text("UPDATE trial_heartbeats SET heartbeat = '2001-01-01 00:00:00'"))


def test_the_trial_of_a_dead_process_goes_on_from_its_checkpoint_at_most_three_times(tmp_path):
    whole = small(tmp_path / "whole", trials=1)
    expected = work(whole, whole.create())
    tuning = small(tmp_path / "t", trials=1, storage=f"sqlite:///{tmp_path}/t.db", every=0.0)
    study = tuning.create()
    claimed = claim(tuning, study)
    claimed.put_back = claimed.leave  # it dies where it would put the trial back
    with pytest.raises(Stopped):
        run_trial(claimed, StopAt(5), lambda *told: None)
    assert claim(tuning, study) is None, "nobody knows yet"
    _forget_to_beat(study)
    counter = StopAt(-1)
    found = work(tuning, study, counter)
    assert -1 - counter.left == 9 - 5, "no step was taken twice"
    assert (found.best.score, found.best.settings) == (expected.best.score, expected.best.settings)
    assert found.default == found.best

    more = dataclasses.replace(tuning, trials=2)
    for _ in range(3):
        dying = claim(more, study)
        recover(more, study)
        assert claim(more, study) is None, "a living one is left alone"
        dying.leave()
        _forget_to_beat(study)
    assert claim(more, study) is None
    (last,) = [trial for trial in study.trials if "error" in trial.user_attrs]
    assert last.user_attrs["error"] == "its process died, 3 times"
    assert last.params == dying.trial.params
    assert sum(map(ended, study.trials)) == 2


def test_a_process_that_was_taken_for_dead_leaves_the_trial_to_the_other(tmp_path):
    tuning = small(tmp_path / "t", trials=1, storage=f"sqlite:///{tmp_path}/t.db", every=0.0)
    study = tuning.create()
    slow = claim(tuning, study)
    others = []

    class Sleeps(Observer):
        def epoch(self, epoch):
            if not others:
                _forget_to_beat(study)
                others.append(claim(tuning, study))

    with pytest.raises(TakenOver):
        run_trial(slow, Sleeps(), lambda *told: None)
    (other,) = others
    assert other.folder == slow.folder
    assert list(other.folder.glob("seed-*/last.pt")), "the slow one deleted the other's checkpoints"
    late = claim(dataclasses.replace(tuning, trials=2), study)
    _forget_to_beat(study)
    recover(tuning, study)
    with pytest.raises(TakenOver):
        late.end(TrialState.FAIL, error="too late")
    assert not any(map(ended, study.trials))


def test_a_trial_whose_process_died_before_its_first_sign_of_life(tmp_path):
    """Optuna looks at trials that have beaten; such a one would run for ever, and the tuning never end."""
    tuning = small(tmp_path / "t", trials=1, epochs=1, storage=f"sqlite:///{tmp_path}/t.db")
    study = tuning.create()
    lost = study.trials[0]
    study._storage.set_trial_state_values(lost._trial_id, TrialState.RUNNING)
    assert claim(tuning, study) is None
    with study._storage._backend.engine.begin() as connection:
        connection.execute(sqlalchemy.text("UPDATE trials SET datetime_start = '2001-01-01 00:00:00.000000'"))
    found = work(tuning, study)
    assert study.trials[lost.number].state == TrialState.FAIL
    assert (found.trials, found.best.settings) == (1, {"rho": 0.4})


def test_a_journal_of_several_machines_beats_as_a_database_does(tmp_path, monkeypatch):
    """Redis holds Optuna's journal, which has no heartbeat; a file stands for it here."""
    backend = JournalFileBackend(str(tmp_path / "journal"))
    monkeypatch.setattr("bisam_lab.tuning.tuning.open_storage", lambda *where: BeatingJournal(backend, 30, 120))
    tuning = small(tmp_path / "t", trials=1, epochs=1, storage="redis://user:secret@host")
    study = tuning.create()
    dead = claim(tuning, study)
    dead.leave()
    assert claim(tuning, study) is None
    now = time.time()
    monkeypatch.setattr("bisam_lab.tuning.database.time.time", lambda: now + 121)
    alive = claim(tuning, study)
    assert (alive.settings, alive.folder) == (dead.settings, dead.folder)
    run_trial(alive, Observer(), lambda *told: None)
    assert [trial.state for trial in study.trials] == [TrialState.FAIL, TrialState.COMPLETE]


def test_a_driver_waits_for_the_trials_of_others_and_runs_those_of_the_dead(tmp_path, monkeypatch):
    tuning = small(tmp_path / "t", trials=1, epochs=1, storage=f"sqlite:///{tmp_path}/t.db")
    study = tuning.create()
    claim(tuning, study).leave()
    monkeypatch.setattr("bisam_lab.tuning.pool.LOOK", 0.01)
    looking = _wait(tuning, study, time.monotonic() + 0.2)
    assert "other processes run the last 1" in next(looking).text
    with pytest.raises(StopIteration) as over:
        next(looking)
    assert over.value.value == 0, "the time is over"
    looking = _wait(tuning, study, math.inf)
    next(looking)
    _forget_to_beat(study)
    with pytest.raises(StopIteration) as over:
        next(looking)
    assert over.value.value == 1, "the dead one's is free"
    work(tuning, study)
    assert list(_wait(tuning, study, math.inf)) == []
    folder = dataclasses.replace(small(tmp_path / "f", trials=1), storage=None)
    own = folder.create()
    claim(folder, own)
    assert list(_wait(folder, own, math.inf)) == [], "a journal's dead are known at once"


def test_two_machines_take_turns_on_a_server(server, tmp_path, request):
    """Their folders differ, so no file can keep both from claiming the last trial."""
    one, other = (small(tmp_path / k / "turns", trials=1, storage=server) for k in "ab")
    study, theirs, claims = one.create(), other.create(), []
    request.addfinalizer(lambda: (_disposed(study), _disposed(theirs)))
    assert len(study.trials) == 1, "the recipe's own setting is queued once"
    with one.turn(study):
        thread = threading.Thread(target=lambda: claims.append(claim(other, theirs)))
        thread.start()
        thread.join(0.5)
        assert thread.is_alive() and not claims, "it waits for its turn"
        study._storage.create_new_trial(study._study_id, None)
        study._storage.set_trial_state_values(study.trials[0]._trial_id, TrialState.RUNNING)
    thread.join(30)
    assert claims == [None], "it saw the trial that was claimed in the meantime"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("sesame", "wrong"), "password authentication failed"),
        (("/postgres", "/nowhere"), 'database "nowhere" does not exist'),
        (("@127.0.0.1:", "@127.0.0.1:1"), ""),
        (("%40", "@"), "with %40 for an @ in a password"),
        (("postgresql:", "postgresql+psycopg2:"), "needs the package psycopg2: pip install psycopg2"),
    ],
)
def test_a_server_that_cannot_be_reached_is_one_line_without_the_password(
    change, words, server, tmp_path, capsys, monkeypatch
):
    url = server.replace(*change)
    monkeypatch.chdir(tmp_path)
    begun = time.monotonic()
    code, said = in_process(capsys, monkeypatch, "tune", "digits", "--out", "t", "--storage", url)
    assert code == 2
    assert said.startswith("error: --storage postgresql") and words in said
    assert len(said) < 200
    assert not any(part in said for part in ("sesame", "wrong", "@9", "Traceback"))
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize("name", ["psycopg", "pymysql"])
def test_a_driver_that_is_missing_is_named_with_the_command(name, tmp_path, capsys, monkeypatch):
    scheme = {"psycopg": "postgresql", "pymysql": "mysql"}[name]
    monkeypatch.setitem(__import__("sys").modules, name, None)
    monkeypatch.setattr("bisam_lab.tuning.database.find_spec", lambda name: object())
    monkeypatch.chdir(tmp_path)
    code, said = in_process(
        capsys, monkeypatch, "tune", "digits", "--out", "t", "--storage", f"{scheme}://u:secret@127.0.0.1:1/db"
    )
    assert code == 2
    assert said == f"error: --storage {scheme}:... needs the package {name}: pip install 'bisam[databases]'"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite://", "lives in the memory of one process"),
        ("sqlite:///:memory:", "name a file, sqlite:///FILE"),
        ("redis://:secret@127.0.0.1:1/0", "--storage redis:..."),
        ("secret", "is no URL"),
        ("postgresql://u:secret@h:pq/db", "is no URL"),
    ],
)
def test_a_storage_that_is_none(url, words):
    with pytest.raises(RecipeError) as told:
        open_database(url, 30, 120)
    assert words in str(told.value)
    assert "secret@" not in str(told.value)


def test_a_claim_that_fails_gives_no_sign_of_life(tmp_path, monkeypatch):
    tuning = small(tmp_path / "t", trials=1, epochs=1, storage=f"sqlite:///{tmp_path}/t.db")
    study, made = tuning.create(), []
    monkeypatch.setattr(Claim, "begin", lambda self: made.append(self) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        claim(tuning, study)
    assert made[0]._sign._over.is_set()


def test_a_server_that_goes_away_in_the_middle_is_one_line(tmp_path):
    tuning = small(tmp_path / "t", trials=1, storage=f"sqlite:///{tmp_path}/t.db")
    study = tuning.create()
    with study._storage._backend.engine.begin() as connection:
        connection.execute(sqlalchemy.text("DROP TABLE trial_user_attributes"))
    with pytest.raises(
        RecipeError, match=r"--storage sqlite:\.\.\. does not answer \(.*no such table.*the same command"
    ):
        for _ in run_trials(tuning, study, Engine(jobs=1)):
            pass


def test_what_counts_is_not_queued_again(tmp_path):
    """A process may be killed after it recorded an error and before it ended the trial."""
    study = optuna.create_study()
    trial = study.ask({"rho": optuna.distributions.FloatDistribution(0, 1)})
    trial.set_user_attr("error", "no room")
    study.tell(trial, state=TrialState.FAIL)
    queue_again(study, study.trials[0])
    assert len(study.trials) == 1
