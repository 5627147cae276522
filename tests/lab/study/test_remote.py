"""A study in an object storage, as one process sees it: in fsspec's memory; two working copies are two machines."""

import json
from datetime import timedelta

import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from bisam_lab.recipe import RecipeError, load
from bisam_lab.run.observer import Stopped
from bisam_lab.run.result import Run
from bisam_lab.study import claim as claiming
from bisam_lab.study import store as storing
from bisam_lab.study.cell import run_cell
from bisam_lab.study.claim import claim, is_claimed
from bisam_lab.study.files import read_result
from bisam_lab.study.folder import Study
from bisam_lab.study.hold import FRESH, Busy
from bisam_lab.study.remote import open_remote, read_remote
from bisam_lab.study.remote_run import RemoteRun
from bisam_lab.study.store import Store, StoreError

from ..run.runs import TINY, StopAfter, history

URL = "memory://bucket/study"
MARKS = ("recipe.yaml", "study.json", "run.yaml", "result.json", "checkpoints", ".holder")
RECIPE = load("digits", [*TINY, "methods=[sgd]", "seeds=1", "train.epochs=4"])
RUN = Run("", 0, "sgd")


@pytest.fixture(autouse=True)
def storage():
    system = storing._system("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    yield system
    system.store.clear()


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Return a function after which this process is a machine of this name."""
    return lambda name: monkeypatch.setenv("BISAM_CACHE", str(tmp_path / name))


def one_run(url="memory://bucket/run"):
    remote = open_remote(url, MARKS)
    return RemoteRun.of(remote, remote.folder)


def trained(run, observer=None):
    return run_cell(RECIPE, RUN, run.folder, there=run, every=0.0, observer=observer)


def ignore(text):
    pass


# The storage's objects.


def test_an_object_is_created_once():
    store = Store(URL)
    assert store.create("a/b", b"first")
    assert not store.create("a/b", b"second")
    assert store.create("a/b", b"first"), "the answer to our own first question was lost"
    assert store.read("a/b") == b"first"
    assert store.read("a/c") is None
    assert store.mark("a/c") == ""
    store.remove("a/c")
    assert dict(store.read_all(["a/b", "a/c"])) == {"a/b": b"first"}


def test_a_file_arrives_whole_or_not_at_all(tmp_path):
    store, path = Store(URL), tmp_path / "folder" / "file"
    assert not store.fetch("none", path)
    assert list(path.parent.iterdir()) == []
    store.write("there", b"content")
    assert store.fetch("there", path)
    assert path.read_bytes() == b"content"


def test_names_that_lead_out_of_the_copy_are_not_followed(storage):
    storage.store["/bucket/study/runs/../../out/result.json"] = storage.store.get("x") or _file(storage, b"{}")
    Store(URL).write("runs/sgd/result.json", b"{}")
    assert set(Store(URL).list()) == {"runs/sgd/result.json"}


def _file(storage, content):
    storage.pipe_file("/tmp", content)
    return storage.store.pop("/tmp")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://host/x", "no storage that can be used"),
        ("s3://bucket", "names no folder in a bucket: write s3://BUCKET/FOLDER"),
        ("s3://bucket//x", "names no folder in a bucket"),
        ("s3:///x", "names no folder in a bucket"),
    ],
)
def test_a_url_that_is_none_is_refused(url, said):
    with pytest.raises(RecipeError, match=said):
        Store(url)


def test_a_missing_package_is_named(monkeypatch):
    def missing(*args, **options):
        raise ImportError("Please install gcsfs to access Google Storage")

    monkeypatch.setattr(storing, "_system", missing)
    with pytest.raises(RecipeError, match="pip install gcsfs"):
        Store("gs://bucket/x")


@given(failures=st.integers(0, 8), patience=st.floats(0, 80))
def test_a_storage_that_fails_is_asked_again_for_a_while(failures, patience):
    """It is asked as long as another pause fits; what it says of an object counts at once."""
    now, asked = [0.0], []

    def sleep(seconds):
        now[0] += seconds

    def read(path):
        asked.append(path)
        if len(asked) <= failures:
            raise ConnectionError("no route")
        raise FileNotFoundError(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storing.time, "monotonic", lambda: now[0])
        patch.setattr(storing.time, "sleep", sleep)
        patch.setattr(storing._system("memory"), "cat_file", read, raising=False)
        waits = sum(min(0.5 * 2**k, storing.PAUSE) for k in range(failures))
        if waits <= patience:
            assert Store(URL, patience).read("x") is None
        else:
            with pytest.raises(StoreError, match=r"memory://bucket/study: the storage refuses .*\(no route\)"):
                Store(URL, patience).read("x")
    assert now[0] <= patience


def test_a_storage_that_cannot_create_is_refused(monkeypatch, machine):
    machine("a")
    system = storing._system("memory")
    create = system.pipe_file
    monkeypatch.setattr(system, "pipe_file", lambda path, value, mode="": create(path, value))
    with pytest.raises(RecipeError, match="two machines would train one run"):
        open_remote(URL, MARKS)


def test_objects_of_another_kind_are_left_alone(machine):
    machine("a")
    Store(URL).write("holiday.jpg", b"")
    with pytest.raises(RecipeError, match="holds objects of another kind"):
        open_remote(URL, MARKS)
    with pytest.raises(RecipeError, match="holds nothing"):
        read_remote("memory://bucket/none")
    assert set(Store(URL).list()) == {"holiday.jpg"}


# The claim.


def test_a_run_is_claimed_once_and_then_free(machine):
    machine("a")
    mine = one_run()
    with claim(mine, ignore):
        assert is_claimed(mine)
        machine("b")
        with pytest.raises(Busy), claim(one_run(), ignore):
            pass
    assert not is_claimed(mine)
    assert not mine.store.list(".holders")


def test_of_two_that_find_a_run_free_one_gets_it(machine, monkeypatch):
    machine("a")
    with claim(one_run(), ignore):
        machine("b")
        monkeypatch.setattr(claiming, "_highest", lambda store: 0)  # it looked before the first one created its claim
        with pytest.raises(Busy), claim(one_run(), ignore):
            pass


def test_a_dead_process_of_this_copy_holds_nothing(machine):
    """Its lock is free, and the lock is held now."""
    machine("a")
    run = one_run()
    run.store.write(".holders/4", json.dumps(claiming._here(run.remote)).encode())
    with claim(run, ignore) as mine:
        mine.check()
        assert set(run.store.list(".holders")) == {".holders/5"}


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"copy": 3}'])
def test_an_old_claim_is_taken_and_its_process_stops(machine, storage, content):
    machine("a")
    run = one_run()
    run.store.write(".holders/1", content)
    with pytest.raises(Busy), claim(run, ignore):
        pass
    storage.store["/bucket/run/.holders/1"].modified -= timedelta(seconds=FRESH + 1)
    with claim(run, ignore):
        assert set(run.store.list(".holders")) == {".holders/2"}


def test_who_was_asleep_does_not_take_a_run_back(machine, storage, monkeypatch):
    machine("a")
    monkeypatch.setattr(claiming, "BEAT", 3600.0)
    with claim(one_run(), ignore) as asleep:
        storage.store["/bucket/run/.holders/1"].modified -= timedelta(seconds=FRESH + 1)
        machine("b")
        run = one_run()
        with claim(run, ignore) as theirs:
            asleep._run.store.write(".holders/1", asleep._holder)  # it was about to renew its claim
            asleep._renew()
            assert asleep.lost
            with pytest.raises(Busy):
                asleep.check()
            asleep.end()
            theirs.check()
            assert is_claimed(run)


# The run's state and result.


def test_another_machine_goes_on_to_the_same_bits(machine, tmp_path):
    alone = run_cell(RECIPE, RUN, tmp_path / "local")
    machine("a")
    with pytest.raises(Stopped):
        trained(one_run(), StopAfter(5))
    machine("b")
    run, observer = one_run(), StopAfter(-1)
    there = trained(run, observer)
    assert any("goes on from epoch" in note for note in observer.notes)
    assert history(there.to_dict()) == history(alone.to_dict())
    assert there.test_score == alone.test_score
    names = set(run.store.list())
    assert {name.split("/")[0] for name in names} == {".id", "result.json", "csv", "tensorboard"}
    machine("c")
    assert trained(one_run()).test_score == alone.test_score


@pytest.mark.parametrize("case", ["as it is there", "newer here", "another went on", "deleted there", "never there"])
def test_which_state_a_run_goes_on_from(machine, case):
    machine("a")
    run = one_run()
    path = run.folder / "checkpoints" / "last.pt"
    path.parent.mkdir()
    path.write_bytes(b"first")
    if case != "never there":
        run.send_state()
    if case in ("newer here", "another went on"):
        path.write_bytes(b"second, here")
    if case == "another went on":
        run.store.write("checkpoints/last.pt", b"second, of another")
    if case == "deleted there":
        run.store.remove("checkpoints/last.pt")
    run.bring()
    expected = {"newer here": b"second, here", "another went on": b"second, of another", "deleted there": None}
    assert (path.read_bytes() if path.exists() else None) == expected.get(case, b"first")


def test_the_first_result_there_stays(machine, monkeypatch):
    machine("a")
    first = trained(one_run())
    machine("b")
    run = one_run()
    run.keep(first.__class__(**{**vars(first), "test_score": 0.5}))
    run.take()
    assert read_result(run.folder, RUN).test_score == first.test_score
    assert not (run.folder / ".unsent").exists()


def test_a_run_that_ends_just_now_keeps_its_result(machine):
    """Its process holds the run, and is about to take the result there."""
    machine("a")
    mine = study()
    run = mine.there(RUN)
    result = trained(run)
    run.store.remove("result.json")
    with FileLock(run.folder / ".lock"):
        assert mine.results() == {RUN: result}
    assert mine.results() == {}


def test_of_two_results_all_read_the_first(machine):
    """Also who could not take his own there, and found the other's later."""
    machine("a")
    mine = study()
    run = mine.there(RUN)
    first = trained(run)
    there = run.store.read("result.json")
    text = str(first.test_score)
    run.keep(first.__class__(**{**vars(first), "test_score": float(f"{text[:4]}{(int(text[4]) + 1) % 10}{text[5:]}")}))
    here = (run.folder / "result.json").read_bytes()
    assert (len(here), here != there) == (len(there), True), "one of another length is seen at once"
    assert mine.results() == {RUN: first}
    assert not (run.folder / ".unsent").exists()


def test_a_result_that_was_deleted_there_is_deleted_here(machine):
    machine("a")
    run = one_run()
    trained(run)
    run.store.remove("result.json")
    run.bring()
    assert read_result(run.folder, RUN) is None


def test_a_storage_that_fails_at_the_end_loses_nothing(machine, monkeypatch):
    machine("a")
    run, system = one_run(), storing._system("memory")

    def fail(*args, **options):
        raise ConnectionError("no route")

    class Failing(StopAfter):
        def epoch(self, epoch):
            if epoch.epoch == 4:
                monkeypatch.setattr(system, "put_file", fail)

    hasty = RemoteRun(run.remote, run.path, patience=0.0)
    with pytest.raises(StoreError, match="no route"):
        trained(hasty, Failing(-1))
    kept = read_result(run.folder, RUN)
    assert kept is not None
    assert "result.json" not in run.store.list()
    monkeypatch.undo()
    machine("a")
    assert trained(run) == kept
    assert "result.json" in run.store.list()


# The study.


def study(recipe=RECIPE, notes=None):
    remote = open_remote(URL, MARKS)
    return Study(remote.folder, recipe, None, ignore if notes is None else notes.append, remote)


def test_another_recipe_is_refused(machine):
    machine("a")
    study()
    for name in ("a", "b"):
        machine(name)
        with pytest.raises(RecipeError, match=r"--out memory://bucket/study holds a study of another recipe"):
            study(load("digits", [*TINY, "methods=[sgd]", "seeds=1", "train.lr=0.3"]))
    longer = study(load("digits", [*TINY, "methods=[sgd]", "seeds=3", "train.epochs=4"]))
    assert len(longer.runs) == 3
    assert b"seeds: 3" in Store(URL).read("recipe.yaml")


def test_a_study_that_begins_anew_at_a_url_has_another_copy(machine, storage):
    machine("a")
    before = study()
    result = trained(before.there(RUN))
    storage.rm("/bucket/study", recursive=True)
    before.there(RUN).keep(result)
    assert study().results() == {}
    (before.path(RUN) / ".unsent").unlink()
    assert before.results() == {}, "what is there no more is here no more"


def test_a_damaged_result_is_set_aside_there_and_trained_again(machine):
    machine("a")
    first, notes = study(), []
    found = trained(first.there(RUN))
    whole = Store(URL).read("runs/sgd/seed-0/result.json")
    Store(URL).write("runs/sgd/seed-0/result.json", whole[:100])
    machine("b")
    second = study(notes=notes)
    assert second.results() == {}
    assert "memory://bucket/study/quarantine/sgd-seed-0.1" in notes[0]
    names = set(Store(URL).list())
    assert {"quarantine/sgd-seed-0.1/result.json", "quarantine/sgd-seed-0.1/REASON.txt"} <= names
    assert "runs/sgd/seed-0/result.json" not in names
    again = trained(second.there(RUN))
    assert history(again.to_dict()) == history(found.to_dict())


def test_a_result_that_another_machine_has_mended_is_not_set_aside(machine):
    machine("a")
    first = study()
    trained(first.there(RUN))
    whole = Store(URL).read("runs/sgd/seed-0/result.json")
    damaged = first.path(RUN) / "result.json"
    damaged.write_bytes(whole[:-1] + b"]")
    assert first.results() == {}
    assert Store(URL).read("runs/sgd/seed-0/result.json") == whole
    assert list(first.results()) == [RUN]


def test_a_budget_is_one_for_all_machines(machine):
    recipe = load("digits", [*TINY, "methods=[sgd,sam]", "seeds=1", "train.epochs=4"])
    machine("a")
    one = study(recipe)
    machine("b")
    two = study(recipe)
    theirs = two.set_budget("passes", {"": {"sgd": 1.0, "sam": 7.0}})
    machine("a")
    assert one.set_budget("passes", {"": {"sgd": 1.0, "sam": 2.0}}) == theirs
