"""Ctrl-C at a sample of the library's lines; ``python -m tests.interrupts`` tries every one."""

import pytest

from tests.interrupts import PROGRAMS, lines, outcome


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # an interrupt inside __del__
@pytest.mark.parametrize("program", PROGRAMS)
def test_an_interrupt_before_any_line_leaves_no_trace(program):
    count = lines(program)
    assert count > 300
    step = max(1, count // 60)
    # the end of the step is where it restores: there every second line, elsewhere a sample
    sample = sorted({*range(0, count, step), *range(max(0, count - 120), count, 2)})
    wrong = {number: found for number in sample if not (found := outcome(program, number))[0].startswith("back")}
    assert not wrong
