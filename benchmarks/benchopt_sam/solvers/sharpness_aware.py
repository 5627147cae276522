"""SGD, and methods of bisam around it."""

from typing import Any

import torch
from benchopt import BaseSolver
from torch import nn

import bisam

#: What stands for a method; the rest are bisam's classes.
METHODS = {
    "sam": lambda base, model, rho: bisam.SAM(base, model=model, rho=rho),
    "asam": lambda base, model, rho: bisam.ASAM(base, model=model, rho=10 * rho),
    "bisam-tanh": lambda base, model, rho: bisam.BiSAM(base, model=model, rho=rho, bound="tanh"),
    "bisam-log": lambda base, model, rho: bisam.BiSAM(base, model=model, rho=rho, bound="log"),
}


class Solver(BaseSolver):
    """SGD with momentum and a cosine schedule, and the methods around it."""

    name = "sharpness-aware"
    parameters = {"method": ["sgd", *METHODS], "rho": [0.1], "lr": [0.1], "epochs": [20]}
    requirements = ["pip::torch", "pip::bisam"]
    sampling_strategy = "run_once"

    def set_objective(self, train: tuple[torch.Tensor, torch.Tensor], model: nn.Module, seed: int) -> None:
        self.train, self.model, self.seed = train, model, seed

    def run(self, _: Any) -> None:
        """Train the network."""
        x, y = self.train
        rng, steps = torch.Generator().manual_seed(self.seed), self.epochs * (len(x) // 50)
        base = torch.optim.SGD(self.model.parameters(), lr=self.lr, momentum=0.9, weight_decay=5e-4)
        opt = base if self.method == "sgd" else METHODS[self.method](base, self.model, self.rho)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(base, steps)
        for _epoch in range(self.epochs):
            for batch in torch.randperm(len(x), generator=rng).split(50):
                for objective in [nn.CrossEntropyLoss()] if opt is base else opt.passes():
                    objective(self.model(x[batch]), y[batch]).backward()
                opt.step()
                opt.zero_grad()
                schedule.step()

    def get_result(self) -> dict[str, nn.Module]:
        return {"model": self.model}
