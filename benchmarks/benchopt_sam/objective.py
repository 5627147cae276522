"""Test error of a small network, trained by a sharpness-aware method."""

from typing import Any

import torch
from benchopt import BaseObjective
from torch import Tensor, nn


class Objective(BaseObjective):
    """Error on the test set, in per cent; the smaller the better."""

    name = "Test error"
    url = "https://arxiv.org/abs/2407.12993"
    min_benchopt_version = "1.9"
    requirements = ["pip::torch", "pip::scikit-learn"]
    sampling_strategy = "run_once"

    def set_data(self, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> None:
        self.train, self.test = train, test

    def get_objective(self) -> dict[str, Any]:
        """Return the data and a fresh network; its weights differ from repetition to repetition."""
        seed = self.get_seed(use_repetition=True, use_solver=False)
        torch.manual_seed(seed)
        inputs, classes = self.train[0].shape[1], int(self.train[1].max()) + 1
        model = nn.Sequential(nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, classes))
        return {"train": self.train, "model": model, "seed": seed}

    @torch.no_grad()
    def evaluate_result(self, model: nn.Module) -> dict[str, float]:
        """Return the errors; benchopt minimises the value."""
        errors = [100 * float((model(x).argmax(1) != y).float().mean()) for x, y in (self.test, self.train)]
        return {"value": errors[0], "train_error": errors[1]}

    def get_one_result(self) -> dict[str, nn.Module]:
        return {"model": self.get_objective()["model"]}
