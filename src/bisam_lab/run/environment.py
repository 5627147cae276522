"""The environment of a run: hardware, versions, git commit."""

import os
import platform
import subprocess
from datetime import datetime, timezone
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

__all__ = ["cores", "environment"]

_PACKAGES = (
    *("bisam", "torch", "torchvision", "lightning-fabric", "timm", "transformers"),
    *("schedulefree", "pytorch_optimizer"),
)


def environment(device: torch.device) -> dict[str, Any]:
    """Return the hardware, the versions and the git commit of the working directory, as plain values."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "threads": torch.get_num_threads(),
        **_machine(),
    }


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _machine() -> dict[str, Any]:
    return {
        "processor": _processor(),
        "cores": cores(),
        "host": platform.node(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "git_commit": _commit(),
        "packages": {name: found for name in _PACKAGES if (found := _version(name))} | {"torch": torch.__version__},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    """Return the processor's name. Linux has it in a file."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _commit() -> str | None:
    """Return the commit of the working directory, marked as dirty if files differ. None outside a repository."""
    try:
        told = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return told.stdout.strip() or None
