"""Apply a patch as our pages print it: hunks with a heading instead of line numbers, each found by its own lines."""

import itertools
import re
from pathlib import Path

import torch

DOCS = Path(__file__).parent.parent.parent / "docs" / "engines"


def hunks(page, number=0):
    """The hunks of a page's patch as (old lines, new lines)."""
    text = re.findall(r"```diff\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)[number]
    bodies = [part.splitlines()[1:] for part in re.split(r"^@@", text, flags=re.MULTILINE)[1:]]
    return [
        ([line[1:] for line in body if line[:1] != "+"], [line[1:] for line in body if line[:1] != "-"])
        for body in bodies
    ]


def new_lines(page, number=0):
    """Lines that the patch adds; one that is only moved or indented is not new."""
    changes = hunks(page, number)
    before = [line.strip() for old, _ in changes for line in old]
    return [line for _, new in changes for line in new if line.strip() not in before]


def apply(page, source, number=0):
    for old, new in hunks(page, number):
        block = "\n".join(old)
        assert source.count(block) == 1, f"{source.count(block)} places for\n{block}"
        source = source.replace(block, "\n".join(new))
    return source


def image_folder(root, classes, splits, each=4):
    """Small images of noise as the scripts read them: root/split/class/number.png."""
    from torchvision.transforms.functional import to_pil_image

    rng = torch.Generator().manual_seed(0)
    for split, label, number in itertools.product(splits, range(classes), range(each)):
        path = root / split / str(label) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        to_pil_image(torch.randint(256, (3, 32, 32), generator=rng, dtype=torch.uint8)).save(path)
