"""Corrupted test images, in the manner of CIFAR-10-C (Hendrycks and Dietterich, ICLR 2019, arXiv 1903.12261).

Noises, blur, contrast, pixelation and JPEG have the numbers that CIFAR-10-C has at its severities 1, 3 and 5.
Brightness is torchvision's factor on the pixels, where CIFAR-10-C adds to the value in HSV. Weather, defocus, motion
and zoom are left out: they have no meaning at eight pixels a side. Every method with one seed sees the same images.
"""

import io
import math
from collections.abc import Callable, Iterator

import torch
import torchvision.transforms.v2.functional as vision
from PIL import Image
from torch import Tensor

from ..data.examples import Examples, InMemory, Source, bounded, stream
from ..data.normalise import Normalise, floats
from ..registry.measures import KINDS
from .subject import Subject, accuracy

__all__ = ["CORRUPTIONS", "SEVERITIES", "corruptions"]

SEVERITIES = (1, 3, 5)

Corruption = Callable[[Tensor, float, torch.Generator], Tensor]


def _noise(x: Tensor, sigma: float, rng: torch.Generator) -> Tensor:
    return x + sigma * torch.randn(x.shape, generator=rng)


def _shot(x: Tensor, photons: float, rng: torch.Generator) -> Tensor:
    return torch.poisson(x * photons, generator=rng) / photons


def _impulse(x: Tensor, share: float, rng: torch.Generator) -> Tensor:
    hit, salt = torch.rand(x.shape, generator=rng) < share, torch.rand(x.shape, generator=rng) < 0.5
    return torch.where(hit, salt.to(x.dtype), x)


def _blur(x: Tensor, sigma: float, rng: torch.Generator) -> Tensor:
    reach = min(math.ceil(3 * sigma), min(x.shape[-2:]) - 1)
    blurred: Tensor = vision.gaussian_blur(x, [2 * reach + 1] * 2, [sigma] * 2)
    return blurred


def _brightness(x: Tensor, factor: float, rng: torch.Generator) -> Tensor:
    brighter: Tensor = vision.adjust_brightness(x, factor)
    return brighter


def _contrast(x: Tensor, factor: float, rng: torch.Generator) -> Tensor:
    flatter: Tensor = vision.adjust_contrast(x, factor)
    return flatter


def _pixelate(x: Tensor, share: float, rng: torch.Generator) -> Tensor:
    height, width = x.shape[-2:]
    small = vision.resize(x, [max(1, int(height * share)), max(1, int(width * share))])
    large: Tensor = vision.resize(small, [height, width], vision.InterpolationMode.NEAREST)
    return large


def _jpeg(x: Tensor, quality: float, rng: torch.Generator) -> Tensor:
    return torch.stack([_coded(image, int(quality)) for image in (255 * x).round().byte()])


def _coded(image: Tensor, quality: int) -> Tensor:
    """Return an image (C, H, W) of bytes as JPEG leaves it, from 0 to 1."""
    file = io.BytesIO()
    vision.to_pil_image(image).save(file, "JPEG", quality=quality)
    return floats(vision.pil_to_tensor(Image.open(file)))


#: Each corruption, and its number at the severities 1, 3 and 5.
CORRUPTIONS: dict[str, tuple[Corruption, tuple[float, float, float]]] = {
    "gaussian-noise": (_noise, (0.04, 0.08, 0.10)),
    "shot-noise": (_shot, (500, 100, 50)),
    "impulse-noise": (_impulse, (0.01, 0.03, 0.07)),
    "gaussian-blur": (_blur, (0.4, 0.7, 1.0)),
    "brightness": (_brightness, (1.1, 1.3, 1.6)),
    "contrast": (_contrast, (0.75, 0.4, 0.15)),
    "pixelate": (_pixelate, (0.95, 0.85, 0.65)),
    "jpeg": (_jpeg, (80, 58, 40)),
}


def corruptions(subject: Subject) -> dict[str, float]:
    """Return the accuracy under each corruption, a mean over the severities, and the ``mean`` of all."""
    found = {kind: _under(subject, number, kind) for number, kind in enumerate(KINDS)}
    return {"mean": sum(found.values()) / len(found), **found}


def _under(subject: Subject, number: int, kind: str) -> float:
    corrupt, numbers = CORRUPTIONS[kind]
    shares = []
    for severity, strength in zip(SEVERITIES, numbers, strict=True):
        rng = stream(subject.seed, number, severity)
        logits, labels = [], []
        for batch, finish in _pixels(subject.test):
            x = corrupt(batch.x, strength, rng).clamp(0, 1)
            logits.append(subject.forward(finish(x.to(batch.y.device))))
            labels.append(batch.y.cpu())
        shares.append(accuracy(torch.cat(logits), torch.cat(labels)))
    return sum(shares) / len(shares)


def _pixels(source: Source) -> Iterator[tuple[Examples, Callable[[Tensor], Tensor]]]:
    """Yield batches of images (B, C, H, W) from 0 to 1, on the CPU, and what makes the network's inputs of them.

    Images in memory are as they are stored; those of a stream as the network gets them.
    """
    prepare = getattr(source, "prepare", None)
    assert isinstance(prepare, Normalise)
    if isinstance(source, InMemory):
        x, y = source.examples.x, source.examples.y
        size = bounded(1000, x[0].numel())
        for images, labels in zip(x.split(size), y.split(size), strict=True):
            yield Examples(floats(images.cpu()), labels), prepare
        return
    still = Normalise(prepare.mean, prepare.std)
    for batch in source.in_order():
        yield Examples(batch.x.cpu() * prepare.std + prepare.mean, batch.y), still
