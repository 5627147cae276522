"""Logs of a run, through Fabric's loggers: TensorBoard, a CSV file, Weights & Biases."""

import math
import shutil
from argparse import Namespace
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..recipe import RecipeError
from .fabric import CSVLogger, Logger, TensorBoardLogger
from .result import Epoch

__all__ = ["WandbLogger", "build_loggers", "logged"]

#: Numbers of an epoch that not every run or version records.
_WHERE_RECORDED = (
    *("train_score", "rho", "eps_norm", "gradient_norm", "passes", "climbed", "vanished"),
    *("ascent_samples", "error_rise", "perturbed_loss", "chance_loss", "same_class"),
)


def build_loggers(folder: Path, history: Iterable[Epoch]) -> list[Logger]:
    """Return loggers that write ``tensorboard/`` and ``csv/metrics.csv`` in ``folder``.

    Both are written again from the ``history`` of a resumed run. So an epoch that was logged before a kill, and was
    trained again after it, appears once.
    """
    for name in ("tensorboard", "csv"):
        shutil.rmtree(folder / name, ignore_errors=True)
    files: list[Logger] = [
        TensorBoardLogger(folder, name="", version="tensorboard"),
        CSVLogger(folder, name="", version="csv", flush_logs_every_n_steps=1),
    ]
    for epoch in history:
        for logger in files:
            logger.log_metrics(logged(epoch), epoch.epoch)
    return files


def logged(epoch: Epoch) -> dict[str, float]:
    """Return the numbers of an epoch that are logged. Those that were not recorded are left out."""
    always = {
        "train_loss": epoch.train_loss,
        "validation_score": epoch.validation_score,
        "learning_rate": epoch.learning_rate,
        "seconds": epoch.seconds,
    }
    others = {key: getattr(epoch, key) for key in _WHERE_RECORDED}
    return always | {key: value for key, value in others.items() if math.isfinite(value)}


class WandbLogger(Logger):
    """Weights & Biases as a logger of Fabric. A resumed run continues the same W&B run.

    Args:
        project: created if it is missing.
        name: of the run.
        folder: of the run, for the files of W&B. The W&B id is made from it.
        config: shown beside the curves.

    Raises:
        RecipeError: wandb is not installed.
    """

    def __init__(self, project: str, name: str, folder: Path, config: Mapping[str, Any]) -> None:
        try:
            import wandb
        except ModuleNotFoundError:
            raise RecipeError("--wandb needs the package wandb: pip install 'bisam[wandb]'") from None
        from hashlib import blake2b

        key = blake2b(str(folder.resolve()).encode(), digest_size=8).hexdigest()
        folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=project, name=name, id=key, resume="allow", dir=folder, config=dict(config), reinit="create_new"
        )

    @property
    def name(self) -> str:
        """Project of the run."""
        return str(self._run.project)

    @property
    def version(self) -> str:
        """Id of the run."""
        return str(self._run.id)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log the numbers of an epoch."""
        self._run.log(dict(metrics), step=step)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Add to the run's configuration."""
        self._run.config.update(params if isinstance(params, dict) else vars(params), allow_val_change=True)

    def finalize(self, status: str) -> None:
        """End the run; anything but success marks it as failed."""
        self._run.finish(exit_code=0 if status == "success" else 1)
