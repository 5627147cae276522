"""Trials of processes of one folder that die at any moment."""

from bisam_lab.tuning.claim import claim, recover
from bisam_lab.tuning.tuning import ended

from .small import small


def test_the_trial_of_a_dead_process_is_run_again_but_not_for_ever(tmp_path):
    tuning = small(tmp_path / "t", trials=1, epochs=1)
    study = tuning.create()
    for _ in range(3):
        claimed = claim(tuning, study)
        assert claimed.settings == {"rho": 0.4}
        recover(tuning, study)
        assert claim(tuning, study) is None, "a living one is left alone"
        claimed._sign._lock.release()  # as the kernel does
        recover(tuning, study)
    (last,) = [trial for trial in study.trials if ended(trial)]
    assert last.user_attrs["error"] == "its process died, 3 times"
    assert claim(tuning, study) is None
