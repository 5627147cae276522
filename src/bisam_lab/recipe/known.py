"""The names that a recipe may give, checked.

The entries behind them are in ``datasets`` and in ``registry``; networks are built in ``models``. The data sets are
imported when a name is checked: torch takes seconds to import, and ``--help`` should not.
"""

import difflib
import re
from typing import Any

from ..errors import nearest
from ..registry.metrics import METRICS
from ..registry.optimizers import OPTIMIZERS

__all__ = [
    "AS_CODE",
    "data_name",
    "human_noise_fits",
    "is_code",
    "is_imported_data",
    "is_our_model",
    "known_metric",
    "model_name",
    "nearest",
    "noise_name",
    "optimizer_name",
    "strategy_name",
]

#: The networks of the BiSAM authors' code, and what of ours makes them: the structure there is another one, or the
#: initial weights are.
AS_CODE: dict[str, dict[str, Any]] = {
    "resnet-56-as-code": {"init": "as-code"},
    "wrn-28-2-as-code": {"init": "as-code", "units": 5},
    "wrn-28-10-as-code": {"init": "as-code", "units": 5},
    "densenet-121-as-code": {"init": "as-code"},
    "vgg19-bn-as-code": {"init": "as-code", "hidden": 2, "dropout": 0.5},
}
_MODELS = ("resnet-20", "resnet-56", "wrn-28-2", "wrn-28-10", "densenet-121", "vgg19-bn")
_OWN = r"(.+\.py|[^\W\d]\w*(\.[^\W\d]\w*)*):[^\W\d]\w*"  # a file's, or a package's
_OURS = re.compile("|".join([r"resnet-[0-9]{1,9}|wrn-[0-9]{1,9}-[0-9]{1,9}|densenet-121|vgg19-bn", *AS_CODE]))
_MODEL = re.compile(f"{_OURS.pattern}|(timm|hf):.+|{_OWN}")


def data_name(name: str) -> str:
    """Return ``name`` if a data set has it, or if it is the import path of a reader.

    Raises:
        ValueError: it is neither, or it is the name of labels for another set, or of weights.
    """
    from ..datasets.registry import SETS, check_name

    if not is_imported_data(name):
        check_name(name)
    if name in SETS and SETS[name].read is None:
        raise ValueError(f"{name} has no examples: say {SETS[name].recipe}")
    return name


def is_imported_data(name: str) -> bool:
    """Say whether ``name`` is the import path of a reader: ``file.py:FUNCTION`` or ``package.module:FUNCTION``."""
    from ..datasets.registry import PREFIXES

    first = name.partition(":")[0]
    misspelt = not first.endswith(".py") and difflib.get_close_matches(first, PREFIXES, n=1)
    return bool(re.fullmatch(_OWN, name)) and not misspelt


def is_code(name: str) -> bool:
    """Say whether a recipe that gives this name imports code: ``file.py:NAME`` or ``package.module:NAME``."""
    return bool(re.fullmatch(_OWN, name)) and not name.startswith(("glue:", "folder:", "text:", "timm:", "hf:"))


def noise_name(name: str) -> str:
    """Return ``name`` if it is that of a kind of noise.

    Raises:
        ValueError: it is not.
    """
    from ..datasets.registry import HUMAN_NOISE

    known = ("symmetric", "asymmetric", *HUMAN_NOISE)
    if name not in known:
        raise ValueError(f"{name!r} is none of {', '.join(known)}{nearest(name, known)}")
    return name


def human_noise_fits(noise: str, data: str) -> None:
    """Check that people labelled the data set.

    Raises:
        ValueError: they did not.
    """
    from ..datasets.registry import HUMAN_SETS

    if data not in HUMAN_SETS:
        raise ValueError(f"noise={noise} is about {' and '.join(HUMAN_SETS)}, not about {data}")


def is_our_model(name: str) -> bool:
    """Say whether ``name`` is that of a network that this package defines."""
    return _OURS.fullmatch(name) is not None


def model_name(name: str) -> str:
    """Return ``name`` if it has the form of a model's.

    Raises:
        ValueError: it has not.
    """
    if _MODEL.fullmatch(name):
        return name
    if is_our_model(plain := name.removesuffix("-as-code")):
        raise ValueError(f"{name!r} is no network of the authors' code: name {plain}, with model.options.init=as-code")
    if name.endswith(".py"):
        raise ValueError(f"{name!r} is a file: name its class or function, {name}:NAME")
    known = [*_MODELS, "resnet-N, wrn-N-K", "timm:NAME", "hf:NAME", "package.module:NAME", "file.py:NAME"]
    raise ValueError(f"{name!r} is none of {', '.join(known)}{nearest(name, [*_MODELS, *AS_CODE])}")


def optimizer_name(name: str) -> str:
    """Return ``name`` if it is that of an optimizer, or has the form of an import path.

    Raises:
        ValueError: it is not.
    """
    if name in OPTIMIZERS or re.fullmatch(_OWN, name):
        return name
    if name.endswith(".py"):
        raise ValueError(f"{name!r} is a file: name its class or function, {name}:NAME")
    known = [*OPTIMIZERS, "package.module:CLASS", "file.py:NAME"]
    raise ValueError(f"{name!r} is none of {', '.join(known)}{nearest(name, OPTIMIZERS)}")


#: Ways to several devices that were accepted once, or that people know from elsewhere, and what to write instead.
_OTHER_STRATEGIES = {
    "dp": "DataParallel splits each batch behind the optimizer's back: set engine.strategy=ddp",
    "deepspeed": "ZeRO hides the gradients that SAM climbs: set engine.strategy=fsdp, which shards as ZeRO 3 does",
    "fsdp1": "FSDP1 hides single weights in flat shards: set engine.strategy=fsdp, which is FSDP2",
    "fsdp2": "it has a shorter name: set engine.strategy=fsdp",
}


def strategy_name(name: Any) -> Any:
    """Return ``name``, unless it is a way to several devices that is not taken here.

    Raises:
        ValueError: it is one, with the line to write instead.
    """
    if isinstance(name, str) and name in _OTHER_STRATEGIES:
        raise ValueError(f"{name!r} is not taken: {_OTHER_STRATEGIES[name]}")
    return name


def known_metric(name: str) -> str:
    """Return ``name`` if it is that of a metric.

    Raises:
        ValueError: it is not.
    """
    if name not in METRICS:
        raise ValueError(f"{name!r} is none of {', '.join(METRICS)}{nearest(name, METRICS)}")
    return name
