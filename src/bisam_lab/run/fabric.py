"""The engine: Lightning Fabric, imported fast and launched as a recipe says.

Fabric imports torchmetrics, and through it all of torchvision's models, where the whole of Lightning is installed. It
only wants to learn that package's version, which its spike detection needs and nothing here uses. Every run's process
would wait 20 seconds for it, so torchmetrics is hidden while Fabric is imported.
"""

import inspect
import logging
import sys
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from ..errors import RecipeError
from ..recipe import EngineRecipe
from .place import Place, check_place

_modules: dict[str, Any] = sys.modules
_hidden = "torchmetrics" not in _modules
if _hidden:
    _modules["torchmetrics"] = None

try:
    from lightning_fabric import Fabric
    from lightning_fabric.loggers.csv_logs import CSVLogger
    from lightning_fabric.loggers.logger import Logger
    from lightning_fabric.loggers.tensorboard import TensorBoardLogger
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
    from lightning_fabric.strategies.ddp import DDPStrategy
    from lightning_fabric.strategies.model_parallel import ModelParallelStrategy
finally:
    if _hidden:
        del _modules["torchmetrics"]

#: The argument that keeps DDP from broadcasting buffers in forward passes; torch has renamed it.
_RENAMED = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
_BUFFERS: dict[str, Any] = {"forward_sync_buffers" if _RENAMED else "broadcast_buffers": False}

__all__ = [
    "CSVLogger",
    "Fabric",
    "Logger",
    "ModelParallelStrategy",
    "TensorBoardLogger",
    "build_fabric",
    "join_fabric",
]


def build_fabric(recipe: EngineRecipe) -> Fabric:
    """Launch Fabric on one device, as the recipe says.

    Raises:
        RecipeError: there is no such accelerator.
    """
    _check_devices(recipe.on_one_device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fabric = Fabric(accelerator=recipe.accelerator, strategy="auto", precision=recipe.precision, devices=1)
        fabric.launch()
    return fabric


def join_fabric(recipe: EngineRecipe) -> Fabric:
    """Launch Fabric on the recipe's devices: this process joins the others that its launcher has started.

    On one device it is :func:`build_fabric`.

    Raises:
        RecipeError: no launcher has started processes, or another number than the recipe says; there are too few GPUs.
    """
    here = check_place(recipe)
    if recipe.processes == 1:
        return build_fabric(recipe)
    if here is None:
        raise RecipeError(
            f"engine.devices={recipe.devices} needs {recipe.processes} processes, and nobody has started them: "
            "use bisam train, or torchrun -m bisam_lab train"
        )
    _check_devices(recipe)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fabric = _several(recipe, here)
        fabric.launch()
    return fabric


def _check_devices(recipe: EngineRecipe) -> None:
    """Refuse devices that are not there.

    Raises:
        RecipeError: there are none of the accelerator, or too few.
    """
    there: dict[str, Callable[[], bool]] = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}
    if recipe.accelerator in there and not there[recipe.accelerator]():
        raise RecipeError(
            f"engine.accelerator={recipe.accelerator!r}: torch {torch.__version__} finds none here; use auto or cpu"
        )
    if recipe.accelerator == "cpu" or recipe.processes == 1:
        return
    found = torch.accelerator.device_count() if torch.accelerator.is_available() else recipe.devices
    if found < recipe.devices:
        raise RecipeError(
            f"engine.devices={recipe.devices}: this machine has {found} of them: set engine.devices={found}, or "
            "engine.accelerator=cpu"
        )


def _several(recipe: EngineRecipe, here: Place) -> Fabric:
    """Return Fabric for several devices, not yet launched.

    DDP is not to broadcast buffers in forward passes: they are made equal where they count, before an evaluation. A
    pass that only some processes make would wait for ever.
    """
    environment = SLURMEnvironment(auto_requeue=False) if here.launcher == "srun" else TorchElasticEnvironment()
    strategy = (
        ModelParallelStrategy(lambda model, mesh: model, data_parallel_size=here.size, tensor_parallel_size=1)
        if recipe.sharded
        else DDPStrategy(**_BUFFERS)
    )
    return Fabric(
        accelerator=recipe.accelerator,
        strategy=strategy,
        precision=recipe.precision,
        devices=recipe.devices,
        num_nodes=recipe.nodes,
        plugins=[environment],
    )
