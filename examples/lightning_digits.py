"""BiSAM on scikit-learn's digits under Lightning's Trainer; prints the test accuracy."""

import argparse

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from bisam import BiSAM
from bisam.integrations.lightning import SharpnessAwareMixin


class Digits(SharpnessAwareMixin, LightningModule):
    """A small network for 8 x 8 images."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of the running pass."""
        x, y = batch
        return self.objective(self.net(x), y)

    def on_train_batch_end(self, outputs: object, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log the descent objective at w, whatever the method climbs."""
        self.log("train_loss", self.optimizers().last.loss)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log the accuracy."""
        x, y = batch
        self.log("test_accuracy", (self.net(x).argmax(1) == y).float().mean())

    def configure_optimizers(self) -> BiSAM:
        """Wrap SGD."""
        return BiSAM(torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9), model=self, rho=0.1)


def main() -> None:
    """Train and test."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    epochs = parser.parse_args().epochs
    seed_everything(0, verbose=False)
    digits = load_digits()
    data = TensorDataset(torch.tensor(digits.data).float() / 16, torch.tensor(digits.target))
    train, test = random_split(data, [1400, len(data) - 1400])
    model = Digits()
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=epochs,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, DataLoader(train, 64, shuffle=True, drop_last=True))
    (result,) = trainer.test(model, DataLoader(test, 512), verbose=False)
    print(f"test accuracy {result['test_accuracy']:.3f}")


if __name__ == "__main__":
    main()
