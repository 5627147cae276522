"""A tuning: validation alone decides, what lags is pruned, and processes that share a study may die at any moment."""

import csv
import dataclasses
import json
import os
import signal

import optuna
import pytest
import sqlalchemy.exc
from optuna.trial import TrialState

import bisam_lab
import bisam_lab.run.setup
from bisam_lab.data import load_splits
from bisam_lab.recipe import RecipeError, load
from bisam_lab.run.observer import Observer, Stopped
from bisam_lab.run.train import train
from bisam_lab.tuning import claim as claiming
from bisam_lab.tuning import outcome as outcomes
from bisam_lab.tuning import storage as storages
from bisam_lab.tuning.claim import claim, recover
from bisam_lab.tuning.figure import draw
from bisam_lab.tuning.space import Space
from bisam_lab.tuning.storage import JOURNAL
from bisam_lab.tuning.study import FIRST_SEED, Tuning, ended
from bisam_lab.tuning.trial import TrialError, run

from .test_cli import in_process, start, wait_for

TINY = ["data.train_size=96", "data.validation_size=50", "model.options.width=2", "train.batch_size=32"]


def small(folder, *given, method="sam", space=(), trials=3, epochs=3, **fields):
    recipe = load("digits", [*TINY, f"train.epochs={epochs}", *given])
    chosen = Space.of(recipe, method, given=space)
    return Tuning(folder, recipe, method, chosen, fields.pop("seeds", 1), trials, **fields)


def work(tuning, study, observer=None):
    """Run trials in this process until none is left."""
    while (claimed := claim(tuning, study)) is not None:
        run(claimed, observer or Observer(), lambda *told: None)
    return outcomes.outcome(tuning, study)


def table(folder):
    return list(csv.DictReader((folder / "trials.csv").read_text().splitlines()))


@pytest.mark.parametrize(
    ("method", "given", "names"),
    [
        ("sam", {}, ["rho"]),
        ("bisam-log", {}, ["rho", "mu"]),
        ("bisam-tanh+asam", {}, ["rho", "mu", "alpha"]),
        ("bisam-tanh@mu=5", {}, ["rho", "alpha"]),
        ("sam@rho=0.1", {"tune_lr": True}, ["lr"]),
        ("sgd", {"tune_lr": True}, ["lr"]),
        ("sgd", {"given": ["train.weight_decay=1e-5:1e-2:log"]}, ["train.weight_decay"]),
        ("sam", {"given": ["lr=0.01:1:log", "train.batch_size=16:128"]}, ["rho", "lr", "train.batch_size"]),
    ],
)
def test_a_method_is_searched_by_what_it_has(method, given, names):
    recipe = load("digits")
    space = Space.of(recipe, method, **given)
    assert [dimension.name for dimension in space] == names
    assert space.apply(recipe, space.default).sharpness.rho == recipe.sharpness.rho
    for dimension in space:
        assert dimension.low < dimension.default < dimension.high
        for value in (dimension.low, dimension.high):
            assert space.apply(recipe, {**space.default, dimension.name: value}) != recipe


def test_ranges_lie_around_the_published_values_and_the_recipes_own():
    (rho,) = Space.of(load("digits", ["sharpness.rho=0.05", "sharpness.radii={}"]), "asam")
    assert (rho.low, rho.high, rho.default) == (0.5 / 8, 0.5 * 8, 0.5)
    (rho,) = Space.of(load("digits", ["sharpness.rho=0.4"]), "sam")
    assert (rho.low, rho.high) == (0.05 / 8, 1.6)
    assert [rho.border(value) for value in (0.0063, 0.1, 1.5)] == ["lower", None, "upper"]
    tuned = Space((rho,)).apply(load("digits"), {"rho": 0.123})
    assert tuned.sharpness.radii["sam"] == 0.123


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


class Poison:
    def __getattr__(self, name):
        raise AssertionError(f"the test set's {name} was asked for")


def test_the_test_set_is_not_touched(tmp_path, monkeypatch):
    def poisoned(recipe, data_dir, seed, tokenizer):
        return dataclasses.replace(load_splits(recipe, data_dir, seed), test=Poison())

    monkeypatch.setattr(bisam_lab.run.setup, "load_splits", poisoned)
    tuning = small(tmp_path / "t", trials=2, epochs=1)
    assert work(tuning, tuning.create()).trials == 2
    with pytest.raises(AssertionError, match="test set"):  # as training to the end does
        train(tuning.recipe, "sam", 0)


def test_the_first_trial_is_the_recipes_own_and_the_score_that_of_train(tmp_path):
    tuning = small(tmp_path / "t", trials=1, seeds=2)
    found = work(tuning, tuning.create())
    results = [train(tuning.recipe, "sam", seed).validation_score for seed in (FIRST_SEED, FIRST_SEED + 1)]
    assert found.best == found.default
    assert found.best.settings == {"rho": 0.4}
    assert found.best.score == pytest.approx(sum(results) / 2)
    assert not list((tmp_path / "t" / "trials").iterdir()), "checkpoints and locks are gone"


def test_awful_settings_are_pruned_and_divergence_is_the_worst_score(tmp_path):
    space = ["lr=1e-5:1e8:log"]
    tuning = small(tmp_path / "t", method="sgd", space=space, trials=11, epochs=4)
    study = tuning.create()
    found = work(tuning, study)
    assert found.trials == 11
    assert found.pruned >= 2
    assert found.best.score >= found.default.score
    for trial in study.trials:
        assert trial.last_step < 4 or trial.state == TrialState.COMPLETE
    assert any(trial.value == 0.0 for trial in study.trials), "a rate of a million diverges"
    assert set(found.importances) == set()  # one parameter has no share
    draw(found, tuning.space, "title", "accuracy", tmp_path / "figure.png")


def test_a_trial_that_cannot_be_trained_is_recorded_and_counts(tmp_path, monkeypatch):
    def failing(*args):
        raise MemoryError("no room")

    tuning = small(tmp_path / "t", trials=1)
    study = tuning.create()
    monkeypatch.setattr("bisam_lab.tuning.trial.Training", failing)
    with pytest.raises(TrialError, match="trial 0: MemoryError: no room"):
        work(tuning, study)
    assert claim(tuning, study) is None
    found = outcomes.outcome(tuning, study)
    assert (found.failed, found.best) == (1, None)
    outcomes.write_trials(tuning, study)
    (row,) = table(tmp_path / "t")
    assert (row["state"], row["error"]) == ("fail", "MemoryError: no room")


def test_a_best_value_at_the_end_of_its_range_is_warned_of(tmp_path, capsys, monkeypatch):
    tuning = small(tmp_path / "t", space=["rho=0.4:3.2:log"], trials=1, epochs=1)
    work(tuning, tuning.create())
    monkeypatch.chdir(tmp_path)
    args = [*TINY, "train.epochs=1", "--method", "sam", "--space", "rho=0.4:3.2:log", "--trials", "1", "--out", "t"]
    said = " ".join(spoken(capsys, monkeypatch, "tune", "digits", *args).split())
    assert "none was better" in said
    assert "The best rho lies at the lower end of its range" in said
    assert "--space rho=0.05:3.2:log" in said


class StopAt(Observer):
    def __init__(self, steps):
        self.left, self.notes = steps, []

    def step(self, epoch, done, total):
        self.left -= 1
        self.stop = self.left == 0


def test_a_stopped_trial_goes_on_from_its_checkpoint(tmp_path):
    whole = small(tmp_path / "whole", trials=2, seeds=2)
    expected = work(whole, whole.create())
    tuning = small(tmp_path / "t", trials=2, seeds=2)
    study, steps = tuning.create(), 0
    for stop_after in (4, 7):  # in the second epoch, and on the second seed: 9 steps a seed
        steps += stop_after
        with pytest.raises(Stopped):
            work(tuning, study, StopAt(stop_after))
    counter = StopAt(-1)
    found = work(tuning, study, counter)
    assert -1 - counter.left == 2 * 18 - steps, "no step was taken twice"
    assert [(t.score, t.settings) for t in found.tried] == [(t.score, t.settings) for t in expected.tried]
    assert found.default is not None


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_the_trial_of_a_dead_process_is_run_again_but_not_for_ever(kind, tmp_path, monkeypatch):
    storage = f"sqlite:///{tmp_path}/t.db" if kind == "sqlite" else None
    tuning = small(tmp_path / "t", trials=1, epochs=1, storage=storage)
    study = tuning.create()
    for _ in range(3):
        claimed = claim(tuning, study)
        assert claimed.settings == {"rho": 0.4}
        recover(tuning, study)
        assert claim(tuning, study) is None, "a living one is left alone"
        claimed._lock.release()  # as the kernel does
        recover(tuning, study)
    (last,) = [trial for trial in study.trials if ended(trial)]
    assert last.user_attrs["error"] == "its process died, 3 times"
    assert claim(tuning, study) is None
    if kind == "sqlite":
        more = dataclasses.replace(tuning, trials=3)
        elsewhere, here = (claim(more, study) for _ in range(2))
        elsewhere.trial.set_user_attr("place", "another machine")
        recover(more, study)
        assert study.trials[elsewhere.trial.number].state == TrialState.RUNNING
        monkeypatch.setattr(claiming, "DEAD", -1.0)
        recover(more, study)
        assert study.trials[elsewhere.trial.number].state == TrialState.FAIL
        assert study.trials[here.trial.number].state == TrialState.RUNNING
        here.put_back()


def test_another_study_is_refused_with_the_difference_named(tmp_path):
    small(tmp_path / "t").create()
    small(tmp_path / "t", "seeds=3", "name=x", trials=9).create()
    for other, words in (
        (small(tmp_path / "t", "train.lr=0.3"), r"train.lr=0.1 there, 0.3 now"),
        (small(tmp_path / "t", method="bisam-log"), r"method='sam' there, 'bisam-log' now"),
        (small(tmp_path / "t", space=["rho=0.1:0.5"]), r"space.rho.low=0.00625 there, 0.1 now"),
        (small(tmp_path / "t", seeds=2), r"seeds=1 there, 2 now"),
    ):
        with pytest.raises(RecipeError, match=words):
            other.create()


def test_a_range_without_the_recipes_own_setting(tmp_path):
    tuning = small(tmp_path / "t", space=["rho=0.01:0.1:log"], trials=1, epochs=1)
    found = work(tuning, tuning.create())
    assert found.default is None
    assert found.best.settings["rho"] <= 0.1


def test_importances_of_ten_trials():
    study = optuna.create_study(direction="maximize")
    for i in range(12):
        trial = study.ask()
        a, _ = trial.suggest_float("a", 0.1, 1, log=True), trial.suggest_float("b", 0.1, 1, log=True)
        study.tell(trial, a)
        if i == 8:
            assert outcomes._importances(study.trials) == {}
    shares = outcomes._importances(study.trials)
    assert shares["a"] > 0.7
    assert sum(shares.values()) == pytest.approx(1)


def spoken(capsys, monkeypatch, *args):
    """What the command prints, run in this process."""
    monkeypatch.setattr("sys.argv", ["bisam", *args])
    with pytest.raises(SystemExit) as left:
        bisam_lab.main()
    assert left.value.code == 0
    return capsys.readouterr().out


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
    run(beside, Observer(), lambda *told: None)

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
    assert sum(row["state"] == "fail" for row in rows) >= len(left) - 1 + waiting
    assert [row["default"] for row in rows if row["state"] == "complete"].count("1") == 1
    for setting in {row["rho"] for row in rows}:
        assert [row["state"] for row in rows if row["rho"] == setting][-1] in ("complete", "pruned")

    recipe = load(out / "best.yaml")
    assert recipe.methods == ("sgd", "sam")
    assert recipe.sharpness.radii["sam"] == found.best.settings["rho"]
    assert "# bisam tune digits" in (out / "best.yaml").read_text()
    assert (out / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert not list((out / "trials").iterdir())


def test_a_storage_that_another_process_is_just_making_is_opened_a_moment_later(tmp_path, monkeypatch):
    """Optuna makes its tables without a lock: of two machines that begin at once, one finds them half made."""
    made, calls = optuna.storages.RDBStorage, []

    def half_made(url):
        calls.append(url)
        if len(calls) < 3:
            raise sqlalchemy.exc.IntegrityError("INSERT INTO alembic_version", None, Exception("UNIQUE failed"))
        return made(url)

    monkeypatch.setattr(storages, "RDBStorage", half_made)
    monkeypatch.setattr(storages, "PAUSE", 0.0)
    assert isinstance(storages.open_storage(tmp_path, f"sqlite:///{tmp_path / 't.db'}"), made)
    assert len(calls) == 3
    monkeypatch.setattr(storages, "RDBStorage", lambda url: half_made(calls.clear() or url))
    with pytest.raises(RecipeError, match=r"cannot be opened.*UNIQUE"):
        storages.open_storage(tmp_path, "sqlite:///x.db")
