"""Tables 1 and 2 of the BiSAM paper, as far as time allows, the most informative runs first.

    python benchmarks/paper.py --data-dir data --hours 8      # or: make paper ARGS="--data-dir data --hours 8"
    python benchmarks/paper.py --plan                         # what is done and what is left; trains nothing

The order: networks from the cheapest to the dearest, ResNet-56 on CIFAR-10 first; in each SAM and the log bound on all
seeds, then tanh. So the first answer, with six pairs, is there after twelve runs. The same command goes on where it
stopped, and several machines may share OUT. Each study is a folder of its own: ``bisam report OUT/* --out paper.html``
shows all of them.
"""

import argparse
import math
import time
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from bisam_lab.errors import RecipeError
from bisam_lab.parallel.engine import Engine
from bisam_lab.parallel.processes import warm_up
from bisam_lab.recipe import Recipe, digest, load, only, variant
from bisam_lab.study.files import read_results
from bisam_lab.study.folder import Study
from bisam_lab.study.pool import run_study

#: Tables, networks and methods, the most informative first.
TABLES = ("table1-cifar10", "table2-cifar100")
NETWORKS = ("resnet-56", "wrn-28-2", "vgg19-bn", "densenet-121", "wrn-28-10")
STAGES = (("sam", "bisam-log"), ("sam", "bisam-log", "bisam-tanh"))
FIRST = "resnet-56"


class Part(NamedTuple):
    """A step of the plan: a network of a table, with some of its methods."""

    table: str
    network: str
    methods: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.table} {self.network}: {', '.join(self.methods)}"


def plan() -> list[Part]:
    """Return all parts in their order: both stages of the first network, then SAM and the log bound of all others."""
    cells = [(table, network) for network in NETWORKS for table in TABLES]
    first = [Part(*cell, methods) for cell in cells if cell[1] == FIRST for methods in STAGES]
    rest = [Part(*cell, methods) for methods in STAGES for cell in cells if cell[1] != FIRST]
    return [*first, *rest]


def recipe_of(part: Part, smoke: bool, overrides: list[str]) -> Recipe:
    """Return the recipe of a part. Its name is that of the study's folder, which both stages of a network share."""
    recipe: Recipe = only(load(part.table, overrides, smoke=smoke), [part.network])
    return recipe.model_copy(update={"methods": part.methods, "name": f"{part.table}-{part.network}"})


def study_of(part: Part, out: Path, data_dir: Path | None, smoke: bool, overrides: list[str]) -> Study:
    """Return the study of a part, in its folder."""
    recipe = recipe_of(part, smoke, overrides)
    return Study(out / recipe.name, recipe, data_dir, print)


def done(recipe: Recipe, out: Path) -> int:
    """Return how many runs of a recipe are finished in its folder. It writes nothing, and needs no folder."""
    seeds = range(recipe.first_seed, recipe.first_seed + recipe.seeds)
    digests = {name: digest(variant(recipe, name)) for name in recipe.variants}
    return sum(
        one.method in recipe.methods and one.seed in seeds and one.recipe in ("", digests.get(one.variant))
        for one in read_results(out / recipe.name)[0]
    )


def train(study: Study, jobs: int, end: float) -> bool:
    """Train what is missing until ``end``; return whether all is done. What is cut off goes on from its checkpoint.

    Raises:
        RecipeError: a run failed.
    """
    missing = len(study.runs) - len(study.results())
    if not missing:
        return True
    with closing(run_study(study, Engine(jobs=jobs), stack="auto")) as events:
        for event in events:
            error = getattr(event, "error", None)
            if error is not None:
                raise RecipeError(f"{study.folder}: {event.job} failed: {error}; the same command goes on")
            result = getattr(event, "result", None)
            if result is not None:
                missing -= 1
                print(f"{event.job}: test {100 * result.test_score:.2f} %, {missing} left of this part", flush=True)
            if missing and time.monotonic() > end:
                return False
    return not len(study.runs) - len(study.results())


def run(args: argparse.Namespace) -> None:
    """Train the parts in their order until all is done or time is over; with ``--plan`` only say how they stand.

    Raises:
        RecipeError: what cannot be run; a run failed.
    """
    end, parts = time.monotonic() + 3600 * args.hours, plan()[: args.parts]
    if not args.plan:
        warm_up()
    for number, part in enumerate(parts, 1):
        recipe = recipe_of(part, args.smoke, args.set)
        total = len(recipe.variants) * len(recipe.methods) * recipe.seeds
        print(f"{number} of {len(parts)}  {part}: {done(recipe, args.out)} of {total} runs are done", flush=True)
        if args.plan:
            continue
        if not train(study_of(part, args.out, args.data_dir, args.smoke, args.set), args.jobs, end):
            print(f"The {args.hours:g} hours are over: the same command goes on here.")
            return
    if not args.plan:
        print(f"All is done: bisam report {args.out}/* --out paper.html shows it.")


def positive(text: str) -> float:
    """Read a number above zero."""
    if not 0 < float(text) < math.inf:
        raise ValueError
    return float(text)


def count(text: str) -> int:
    """Read a whole number from 1."""
    if int(text) < 1:
        raise ValueError
    return int(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("studies/paper"))
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument(
        "--hours", type=positive, default=8.0, help="stop after these; what is cut off goes on next time"
    )
    parser.add_argument("--jobs", type=count, default=1, help="runs at once")
    parser.add_argument("--parts", type=count, help="only the first so many parts of the plan")
    parser.add_argument("--smoke", action="store_true", help="the recipes' small size")
    parser.add_argument("--set", action="append", default=[], help="another value of the recipes: train.epochs=2")
    parser.add_argument("--plan", action="store_true", help="what is done and what is left, and no training")
    try:
        run(parser.parse_args())
    except RecipeError as error:
        parser.exit(2, f"error: {error}\n")


if __name__ == "__main__":
    main()
