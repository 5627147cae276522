"""Queue the setting of a trial again whose process has died or was stopped."""

from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

__all__ = ["TRIES", "folder_name", "queue_again"]

#: How often a setting is run. A setting that kills its process each time must not run for ever.
TRIES = 3


def queue_again(study: optuna.Study, trial: FrozenTrial, deaths: int = 1) -> None:
    """Queue the setting of a failed trial as a new trial, which continues from its checkpoints.

    After the third death a trial with the error is recorded instead, and counts.

    Args:
        study: of the trial.
        trial: it is marked as failed already, so only one process calls this.
        deaths: 1 if its process died, 0 if it was stopped.
    """
    if "error" in trial.user_attrs:  # it was killed between the error and the end, and counts
        return
    before = trial.user_attrs.get("tries", 0)
    tries = deaths + (before if type(before) is int else TRIES)
    kept = {key: value for key, value in trial.user_attrs.items() if key in ("default", "folder")}
    if tries >= TRIES:
        attributes = {**kept, "recipe": trial.user_attrs.get("recipe"), "error": f"its process died, {tries} times"}
        attributes = {key: value for key, value in attributes.items() if value is not None}
        study.add_trial(
            create_trial(
                state=TrialState.FAIL, params=trial.params, distributions=trial.distributions, user_attrs=attributes
            )
        )
        return
    parameters: dict[str, Any] = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
    if parameters:
        study.enqueue_trial(parameters, {"folder": folder_name(trial.number), **kept, "tries": tries})


def folder_name(number: int) -> str:
    """Return the name of a trial's folder."""
    return f"{number:04d}"
