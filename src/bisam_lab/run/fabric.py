"""The engine: Lightning Fabric, imported fast and launched as a recipe says.

Fabric imports torchmetrics, and through it all of torchvision's models, where the whole of Lightning is installed. It
only wants to learn that package's version, which its spike detection needs and nothing here uses. Every run's process
would wait 20 seconds for it, so torchmetrics is hidden while Fabric is imported.
"""

import sys
import warnings
from typing import Any

from ..recipe import EngineRecipe

_modules: dict[str, Any] = sys.modules
_hidden = "torchmetrics" not in _modules
if _hidden:
    _modules["torchmetrics"] = None

try:
    from lightning_fabric import Fabric
    from lightning_fabric.loggers.csv_logs import CSVLogger
    from lightning_fabric.loggers.logger import Logger
    from lightning_fabric.loggers.tensorboard import TensorBoardLogger
finally:
    if _hidden:
        del _modules["torchmetrics"]

__all__ = ["CSVLogger", "Fabric", "Logger", "TensorBoardLogger", "build_fabric"]


def build_fabric(recipe: EngineRecipe) -> Fabric:
    """Launch Fabric on one device, as the recipe says."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fabric = Fabric(accelerator=recipe.accelerator, strategy=recipe.strategy, precision=recipe.precision, devices=1)
        fabric.launch()
    return fabric
