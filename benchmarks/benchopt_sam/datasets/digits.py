"""scikit-learn's handwritten digits, with a share of the training labels wrong."""

from typing import Any

import torch
from benchopt import BaseDataset
from sklearn.datasets import load_digits


class Dataset(BaseDataset):
    """1000 training and 797 test images, 8 x 8."""

    name = "digits"
    parameters = {"label_noise": [0.0, 0.4]}
    requirements = ["pip::torch", "pip::scikit-learn"]

    def get_data(self) -> dict[str, Any]:
        """Return inputs (B, 64) and labels (B,), the split and the wrong labels drawn for each repetition."""
        images, labels = load_digits(return_X_y=True)
        x, y = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)
        rng = torch.Generator().manual_seed(self.get_seed(use_repetition=True))
        order = torch.randperm(len(x), generator=rng)
        train, test = order[:1000], order[1000:]
        wrong = torch.rand(1000, generator=rng) < self.label_noise
        moved = (y[train] + torch.randint(1, 10, (1000,), generator=rng)) % 10
        return {"train": (x[train], torch.where(wrong, moved, y[train])), "test": (x[test], y[test])}
