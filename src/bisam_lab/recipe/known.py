"""The names that a recipe may give, checked.

What those of data and models stand for is in ``data`` and ``models``; of metrics and optimizers, in ``registry``.
"""

import difflib
import re
from collections.abc import Iterable

from ..registry.metrics import METRICS
from ..registry.optimizers import OPTIMIZERS

__all__ = [
    "DATA",
    "GLUE",
    "NOISE",
    "data_name",
    "known_metric",
    "model_name",
    "nearest",
    "noise_name",
    "optimizer_name",
]

#: Data sets by name, in their official formats.
DATA = ("digits", "fashion-mnist", "cifar10", "cifar100", "svhn", "imagenet", "flowers", "pets")
#: Tasks of GLUE that are classifications.
GLUE = ("cola", "sst2", "mrpc", "qqp", "mnli", "qnli", "rte", "wnli")
#: Kinds of wrong labels.
NOISE = (
    "symmetric",
    "asymmetric",
    *(f"cifar-n:{kind}" for kind in ("clean", "aggre", "rand1", "rand2", "rand3", "worse", "noisy")),
)

_MODELS = ("resnet-20", "resnet-56", "wrn-28-2", "wrn-28-10", "densenet-121", "vgg19-bn")
_OWN = r"(.+\.py|[^\W\d]\w*(\.[^\W\d]\w*)*):[^\W\d]\w*"  # a file's, or a package's
_MODEL = re.compile(r"resnet-\d+|wrn-\d+-\d+|densenet-121|vgg19-bn|(timm|hf):.+|" + _OWN)


def data_name(name: str) -> str:
    """Return ``name`` if it is that of a data set.

    Raises:
        ValueError: it is not.
    """
    kind, _, rest = name.partition(":")
    if name in DATA or (kind in ("folder", "text") and rest) or (kind == "glue" and rest in GLUE):
        return name
    if kind == "glue":
        raise ValueError(f"{name} is none of {', '.join(f'glue:{task}' for task in GLUE)}{nearest(rest, GLUE)}")
    known = [*DATA, "glue:TASK", "folder:PATH", "text:PATH"]
    own = difflib.get_close_matches(kind, ("folder", "text", "glue"), n=1) if rest else []
    hint = f": did you mean {own[0]}:{rest}?" if own else nearest(name, DATA)
    raise ValueError(f"{name!r} is none of {', '.join(known)}{hint}")


def noise_name(name: str) -> str:
    """Return ``name`` if it is that of a kind of noise.

    Raises:
        ValueError: it is not.
    """
    if name not in NOISE:
        raise ValueError(f"{name!r} is none of {', '.join(NOISE)}{nearest(name, NOISE)}")
    return name


def model_name(name: str) -> str:
    """Return ``name`` if it has the form of a model's.

    Raises:
        ValueError: it has not.
    """
    if _MODEL.fullmatch(name):
        return name
    known = [*_MODELS, "resnet-N, wrn-N-K", "timm:NAME", "hf:NAME", "package.module:NAME", "file.py:NAME"]
    raise ValueError(f"{name!r} is none of {', '.join(known)}{nearest(name, _MODELS)}")


def optimizer_name(name: str) -> str:
    """Return ``name`` if it is that of an optimizer, or has the form of an import path.

    Raises:
        ValueError: it is not.
    """
    if name in OPTIMIZERS or re.fullmatch(_OWN, name):
        return name
    known = [*OPTIMIZERS, "package.module:CLASS", "file.py:NAME"]
    raise ValueError(f"{name!r} is none of {', '.join(known)}{nearest(name, OPTIMIZERS)}")


def known_metric(name: str) -> str:
    """Return ``name`` if it is that of a metric.

    Raises:
        ValueError: it is not.
    """
    if name not in METRICS:
        raise ValueError(f"{name!r} is none of {', '.join(METRICS)}{nearest(name, METRICS)}")
    return name


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a suggestion, to be put at a sentence's end, or nothing."""
    found = difflib.get_close_matches(word, list(known), n=1)
    return f": did you mean {found[0]}?" if found else ""
