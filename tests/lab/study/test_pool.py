"""The runs of a study in parallel processes."""

import os
import signal

from ..test_cli import TINY, start, wait_for
from ..test_train import logged, read


def test_sigterm_to_the_whole_group_saves(tmp_path):
    """Schedulers tell every process of a job, the server that the runs are forked from among them."""
    args = ["compare", "--methods", "sgd,sam", "--seeds", "1", "--jobs", "2", "--out", "s", *TINY, "train.epochs=9999"]
    process = start(*args, "model.options.width=32", cwd=tmp_path)
    runs = [tmp_path / "s" / "runs" / method / "seed-0" for method in ("sgd", "sam")]
    wait_for(lambda: all((run / "csv" / "metrics.csv").exists() for run in runs))
    os.killpg(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=90)
    assert process.returncode == 143, output
    for run in runs:
        assert not list((run / "checkpoints").glob(".*")), "killed in the middle of a write"
        assert len(read(run / "checkpoints" / "last.pt")["history"]) == len(logged(run))
