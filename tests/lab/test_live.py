"""The live display of a study or a tuning: what it prints, what it counts, and a process that is killed."""

from concurrent.futures.process import BrokenProcessPool

import pytest
from rich.console import Console

from bisam_lab.cli.live import Live
from bisam_lab.cli.so_far import SoFar
from bisam_lab.parallel.events import EpochDone, JobEnded, Note, PartDone, Shows
from bisam_lab.run.result import RunResult


@pytest.fixture
def console():
    return Console(width=100, force_terminal=False)


def test_events_become_lines_and_bars(console, capsys):
    events = [
        EpochDone("sam seed 0", 1, 2, 0.5),
        Note("sam [0]", "a checkpoint was [damaged]"),
        JobEnded("sam seed 0", result=3),
        EpochDone("sam seed 0", 2, 2, 0.6),  # late: the job has ended
        JobEnded("sgd seed 0"),
    ]
    with Live(console, "all runs", total=3, done=0) as live:
        ended = list(live.ended(events))
        assert len(live._bars.tasks) == 1, "the bar of all jobs"
        live.set_done(2)
        assert live._bars.tasks[0].completed == 2
    assert [event.result for event in ended] == [3, None]
    assert [event.elsewhere for event in ended] == [False, True]
    assert not live.failed
    assert "sam [0]: a checkpoint was [damaged]" in capsys.readouterr().out


def test_parts_of_a_job_without_epochs_are_a_bar_without_a_score(console):
    with Live(console, "all audits", total=2, done=0) as live:
        assert list(live.ended([PartDone("digits [sam]", 1, 8), PartDone("digits [sam]", 2, 8)])) == []
        bar = live._bars.tasks[1]
        assert (bar.description, bar.completed, bar.total) == ("digits \\[sam]", 2, 8)


def test_a_job_that_failed_is_a_failure(console):
    with Live(console, "all runs", total=1, done=0) as live:
        (ended,) = live.ended([JobEnded("trial 0", error="MemoryError: no room")])
    assert live.failed
    assert not ended.elsewhere


def test_a_killed_process_is_one_sentence(console, capsys):
    def events():
        yield EpochDone("sam seed 0", 1, 2, 0.5)
        raise BrokenProcessPool

    with Live(console, "all runs", total=1, done=0) as live:
        list(live.ended(events()))
    assert live.failed
    assert capsys.readouterr().out.count("A process was killed") == 1
    with pytest.raises(KeyboardInterrupt), Live(console, "all runs", total=1, done=0):
        raise KeyboardInterrupt


def test_a_signature_is_explained_once(console, capsys):
    events = [Shows("sam seed 0", "beyond-range", 3), Shows("sam seed 1", "beyond-range", 4)]
    with Live(console, "all runs", total=2, done=0) as live:
        assert list(live.ended(events)) == []
    said = " ".join(capsys.readouterr().out.split())
    assert "sam seed 0, epoch 3: beyond-range: rho is beyond the useful range" in said
    assert said.count("bisam rho-range") == 1
    assert said.endswith("sam seed 1, epoch 4: beyond-range")


def test_the_bar_and_the_table_so_far_name_the_signatures(console):
    with Live(console, "all runs", total=1, done=0) as live:
        list(live.ended([Shows("sam seed 0", "beyond-range", 3), EpochDone("sam seed 0", 3, 5, 0.5)]))
        assert live._bars.tasks[1].description.endswith("validation 50.00 %  [yellow]beyond-range[/yellow]")
    runs = [RunResult("sam", 0, status, 0.1, 0.1, 1, 1.0, 1.0) for status in ("collapsed", "ok")]
    for run, column, cells in ((runs[0], "shows", ["[yellow]collapse[/yellow]"]), (runs[1], "", ["[yellow][/yellow]"])):
        table = SoFar([run.run], [run]).table()
        assert table.columns[-1].header == column
        assert list(table.columns[-1].cells) == cells
