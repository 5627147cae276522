"""Lightning Fabric, without the 20 seconds that it spends on torchmetrics where the whole of Lightning is installed.

Fabric imports that package, and through it all of torchvision's models, only to learn its version, which its spike
detection needs and nothing here uses; every run's process would pay. It is hidden while Fabric is imported.
"""

import sys
from typing import Any

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

__all__ = ["CSVLogger", "Fabric", "Logger", "TensorBoardLogger"]
