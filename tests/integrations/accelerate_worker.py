"""What each of two workers runs, started by torchrun: the documented loop, with and without accumulation."""

import sys
import warnings
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from bisam import BiSAM

warnings.filterwarnings("ignore", category=FutureWarning)


def build() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4)).double()


def batches(rank: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    rng = torch.Generator().manual_seed(1 + rank)
    return [
        (torch.randn(16, 6, generator=rng, dtype=torch.float64), torch.randint(0, 4, (16,), generator=rng))
        for _ in range(4)
    ]


def main(folder: Path) -> None:
    for every in (1, 2):
        accelerator = Accelerator(cpu=True, gradient_accumulation_steps=every)
        model = build()
        opt = BiSAM(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), model=model, rho=0.5)
        net, stepper = accelerator.prepare(model, opt)
        opt.model = net
        for x, y in batches(accelerator.process_index):
            with accelerator.accumulate(net):
                for loss in opt.passes():
                    accelerator.backward(loss(net(x), y))
                stepper.step()
                stepper.zero_grad()
        torch.save(model.state_dict(), folder / f"{every}-{accelerator.process_index}.pt")
        accelerator.wait_for_everyone()
        accelerator.free_memory()
    accelerator.end_training()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
