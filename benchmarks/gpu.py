"""Everything that wants a GPU, in one command: checks first, then what a step costs.

    python benchmarks/gpu.py            # on a GPU machine
    python benchmarks/gpu.py --device cpu   # the same where there is none, but for synchronisation and graphs

The checks: no host synchronisation between and after the passes (CUDA raises on any), the same dropout masks in both
passes, float16 with GradScaler and bfloat16 under one autocast region, whole steps replayed from a CUDA graph, a
compiled model, parameters on two devices, the weights back bit for bit, and the lower bound's gradient equal to that
on the CPU.
"""

import argparse
import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any

import step
import torch
from torch import nn

from bisam import METHODS, SAM, BiSAM, SharpnessAware
from bisam.functional import lower_bound_loss
from bisam.testing import bits
from bisam_lab.models import ResNet

#: Numbers of the methods that need one here. WSAM's own 0.9 weighs g_s ninefold, too much for this learning rate; the
#: radius of MomentumSAM is the authors' for a larger network.
NUMBERS: dict[str, dict[str, Any]] = {
    "wsam": {"gamma": 0.5},
    "tailsam": {"total_steps": 1000, "tail": 1.0},
    "momentumsam": {"rho": 0.1},
}


def build(method: str, device: str) -> tuple[nn.Module, SharpnessAware, torch.Tensor, torch.Tensor]:
    """A small residual net with dropout, its optimizer, and a batch."""
    torch.manual_seed(0)
    model = nn.Sequential(ResNet(8, 3, 32, width=8), nn.Dropout(0.2), nn.Linear(32, 10)).to(device)
    base = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    opt = METHODS[method](base, model=model, **NUMBERS.get(method, {}))
    x, y = torch.randn(64, 3, 16, 16, device=device), torch.randint(0, 10, (64,), device=device)
    return model, opt, x, y


@contextlib.contextmanager
def unsynchronised(device: str) -> Iterator[None]:
    """Raise where the host waits for the device."""
    if device != "cuda":
        yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def check_no_synchronisation(device: str) -> None:
    for method in METHODS:
        if method == "aesam":  # it decides by a number, so the host waits for it once a step
            continue
        model, opt, x, y = build(method, device)
        _step(model, opt, x, y)  # MomentumSAM and AsyncSAM have nothing to climb in the first step
        before = bits(model)
        loop = opt.passes()
        while True:
            with unsynchronised(device):
                objective = next(loop, None)
            if objective is None:
                break
            objective(model(x), y).backward()
        assert bits(model) == before
        assert opt.last.perturbed or method == "looksam"  # its second step reuses the first one's gradient


def check_same_dropout(device: str) -> None:
    model, _, x, y = build("sam", device)
    opt = SAM(torch.optim.SGD(model.parameters(), lr=0.1), model=model, rho=1e-9, same_dropout=True)
    values = []
    for objective in opt.passes():
        objective(model(x), y).backward()
        values.append(float(objective.value) if objective.value is not None else math.nan)
    assert math.isclose(*values, rel_tol=1e-4), values


def check_mixed_precision(device: str) -> None:
    for dtype in (torch.float16, torch.bfloat16):
        for method in METHODS:
            model, opt, x, y = build(method, device)
            scaler = torch.amp.GradScaler(device, init_scale=2.0**10, enabled=dtype == torch.float16)
            losses = []
            for _ in range(40):
                with torch.autocast(device, dtype):
                    for objective in opt.passes(scaler):
                        loss = objective(model(x), y)
                        scaler.scale(loss).backward()
                scaler.step(opt)
                scaler.update()
                opt.zero_grad()
                losses.append(loss.detach())
            assert losses[-1] < 0.8 * losses[0], (dtype, method, losses[0], losses[-1])


def _step(model: Callable[..., torch.Tensor], opt: SharpnessAware, x: torch.Tensor, y: torch.Tensor) -> None:
    for objective in opt.passes():
        objective(model(x), y).backward()
    opt.step()
    opt.zero_grad()


def check_compiled_model(device: str) -> None:
    for method in METHODS:
        weights = []
        for compiled in (False, True):
            model, opt, x, y = build(method, device)
            model.eval()  # no dropout, whose numbers a compiled model draws in another order
            torch.compiler.reset()
            for _ in range(3):
                _step(torch.compile(model) if compiled else model, opt, x, y)
            weights.append(nn.utils.parameters_to_vector(model.parameters()))
        torch.testing.assert_close(*weights, rtol=1e-3, atol=1e-4)


def check_cuda_graph(device: str) -> None:
    """Steps replayed from a graph are the steps taken one by one."""
    for method in ("sam", "asam", "bisam", "gsam", "vasso", "fishersam"):
        weights = []
        for replayed in (False, True):
            model, opt, x, y = build(method, device)
            model.eval()
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):
                    _step(model, opt, x, y)
            torch.cuda.current_stream().wait_stream(side)
            if replayed:
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    _step(model, opt, x, y)
                for _ in range(4):
                    graph.replay()
            else:
                for _ in range(4):
                    _step(model, opt, x, y)
            weights.append(nn.utils.parameters_to_vector(model.parameters()).detach())
        torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-5)


def check_two_devices(device: str) -> None:
    torch.manual_seed(0)
    near, far = nn.Linear(8, 8), nn.Linear(8, 4).to(device)
    opt = BiSAM(torch.optim.SGD([*near.parameters(), *far.parameters()], lr=0.1), rho=0.3)
    before = bits(near), bits(far)
    x, y = torch.randn(16, 8), torch.randint(0, 4, (16,), device=device)
    for objective in opt.passes():
        objective(far(near(x).to(device)), y).backward()
    assert (bits(near), bits(far)) == before
    assert math.isclose(opt.last.norm, 0.3, rel_tol=1e-4)


def check_lower_bound(device: str) -> None:
    torch.manual_seed(0)
    logits, target = 5 * torch.randn(256, 100), torch.randint(0, 100, (256,))
    for bound in ("log", "tanh", "ramp", "softsign", "shifted-tanh"):
        here, there = (logits.detach().clone().to(d).requires_grad_() for d in ("cpu", device))
        for f, y in ((here, target), (there, target.to(device))):
            torch.autograd.backward(lower_bound_loss(f, y, bound=bound))
        torch.testing.assert_close(
            there.grad.cpu() if there.grad is not None else None, here.grad, rtol=1e-4, atol=1e-7
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    device = parser.parse_args().device
    if device == "cuda" and not torch.cuda.is_available():
        parser.error("no GPU here: use --device cpu")
    for check in (
        check_no_synchronisation,
        check_same_dropout,
        check_mixed_precision,
        check_compiled_model,
        *([check_cuda_graph] if device == "cuda" else []),
        check_two_devices,
        check_lower_bound,
    ):
        check(device)
        print(f"{check.__name__}: holds on {device}", flush=True)
    if device == "cuda":
        step.main()


if __name__ == "__main__":
    main()
