"""What is measured: a trained network with its data, to be read and, for a while, changed."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..data import Source
from ..run.asking import Backward, Forward
from ..run.fabric import Fabric

__all__ = ["Subject", "accuracy", "right"]


@dataclass(frozen=True)
class Subject:
    """A network with the weights that are tested.

    Attributes:
        net: the network as the engine runs it.
        model: the bare network.
        fabric: the engine.
        train: training examples, on the device.
        validation: validation examples, on the device.
        test: test examples, on the device.
        classes: K, how many.
        batch_size: of the training.
        seed: of the run; the same random numbers for all methods with this seed.
    """

    net: nn.Module
    model: nn.Module
    fabric: Fabric
    train: Source
    validation: Source
    test: Source
    classes: int
    batch_size: int
    seed: int

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, K) of inputs in evaluation mode, on the CPU, at least in float32."""
        self.net.eval()
        logits = Forward(self.net, x, self.fabric).answer().detach().cpu()
        return logits if logits.dtype == torch.float64 else logits.float()

    def logits(self, source: Source) -> Tensor:
        """Return the logits (N, K) of all examples of a source."""
        return torch.cat([self.forward(batch.x) for batch in source.in_order()])

    def accuracy(self, source: Source) -> float:
        """Return the share of a source's examples that are right. Logits that are not numbers are wrong."""
        return accuracy(self.logits(source), source.labels)

    def learn(self, source: Source, opt: torch.optim.Optimizer, epochs: int) -> None:
        """Train on a source with plain cross-entropy."""
        loss = nn.CrossEntropyLoss()
        self.net.train()
        for epoch in range(1, epochs + 1):
            for batch in source.shuffled(self.batch_size, self.seed, epoch):
                value = loss(Forward(self.net, batch.x, self.fabric).answer(), batch.y)
                Backward(value, self.fabric).answer()
                opt.step()
                opt.zero_grad()

    @contextmanager
    def changed(self) -> Iterator[list[tuple[str, nn.Parameter]]]:
        """Lend the parameters with their names, to be written into; all weights and buffers are put back at the end.

        A ``state_dict`` would not do: it lacks the buffers that are not saved, and may hold what is no tensor.
        """
        before = {name: tensor.detach().clone() for name, tensor in self._tensors().items()}
        try:
            yield list(self.model.named_parameters())
        finally:
            with torch.no_grad():
                now = self._tensors()
                for name in before.keys() & now.keys():
                    now[name].copy_(before[name])
            for param in self.model.parameters():
                param.grad = None

    def _tensors(self) -> dict[str, Tensor]:
        return dict(self.model.named_parameters()) | dict(self.model.named_buffers())


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Return the share of logits (N, K) that are right for the labels (N,)."""
    return int(right(logits, labels).sum()) / len(labels)


def right(logits: Tensor, labels: Tensor) -> Tensor:
    """Return whether the largest of the logits (N, K) is that of the label (N,). NaN is wrong."""
    return logits.argmax(1).eq(labels) & ~logits.isnan().any(1)
