"""Studies from Python, as in a notebook: :func:`compare` trains one, :class:`Study` reads one.

Both are names of ``bisam_lab`` itself, which imports nothing until one of them is asked for.
"""

import html
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from multiprocessing import parent_process
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from .cli.options import read
from .cli.places import path_of
from .errors import RecipeError, nearest
from .importing import no_collection
from .parallel.processes import warm_up

with no_collection():
    from .frames import COLUMNS, frame_of, margin_columns, measure_frame, run_name, run_row
    from .report.block import Block
    from .report.charts import block_chart, difference_chart
    from .report.collect import StudyData, collect
    from .report.page import write_page
    from .report.quantities import AXES, QUANTITIES
    from .report.registration import registered_margin
    from .report.summary import columns, lines, write_summary
    from .run.result import RunResult
    from .run.signatures import SIGNATURES
    from .statistics.by_variant import outcomes
    from .statistics.registered import decided
    from .statistics.signatures import in_words
    from .study.files import read_results
    from .study.folder import Study as Trained

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame

    from .report.quantities import Along
    from .stack.plan import Stacking

__all__ = ["Study", "compare"]


class Study:
    """A study's folder, to be read: what ``bisam compare`` or :func:`compare` has trained.

    Each call reads the folder anew. So a study that is still running, here or on another machine, shows what it has.
    The last expression of a notebook's cell shows the study as tables with their verdicts.

    Example:
        >>> import bisam_lab
        >>> study = bisam_lab.Study("studies/demo")
        >>> study
        Study('studies/demo'): 40 runs are finished.
        >>> study.frame().groupby("method").test_score.mean()
        >>> study.table(baseline="sam")
        >>> study.plot_differences()

    Args:
        folder: of the study, the one that was ``--out`` or ``out=``.

    Attributes:
        folder: its path.

    Raises:
        RecipeError: the folder does not exist, or is not a study's.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = path_of(folder)
        self._read()

    @property
    def recipe(self) -> dict[str, Any]:
        """The recipe, as it stands in the folder."""
        return self._read().recipe

    @property
    def notes(self) -> list[str]:
        """What a reader must know, such as that runs are missing or cannot be read."""
        return self._read().notes

    @property
    def variants(self) -> list[str]:
        """The names of the variants; one empty name in a study without any."""
        return [block.variant for block in self._read().blocks]

    def frame(self) -> "DataFrame":
        """Return one row a run: method, seed, scores as fractions, chosen epoch, seconds, and where it ran.

        The columns are those of ``results.csv``, and ``passes``: the passes of a mean step. ``signatures`` names the
        failure signatures that the run shows.

        Example:
            >>> runs = bisam_lab.Study("studies/demo").frame()
            >>> runs.pivot(index="seed", columns="method", values="test_score")
        """
        return frame_of([run_row(run) for run in read_results(self.folder)[0]])

    def curves(self) -> "DataFrame":
        """Return one row an epoch of a run: its training loss, validation score, learning rate and seconds.

        Example:
            >>> curves = bisam_lab.Study("studies/demo").curves()
            >>> curves.groupby(["method", "epoch"]).validation_score.mean().unstack("method").plot()
        """
        runs = read_results(self.folder)[0]
        return frame_of([run_name(run) | asdict(epoch) for run in runs for epoch in run.history])

    def table(
        self,
        baseline: str | None = None,
        test: str = "t",
        margin: float | None = None,
        *,
        measure: str | None = None,
    ) -> "DataFrame":
        """Return one row a method: its mean test score, and its paired difference to the baseline, in points.

        With a margin it has the test of equivalence, too: ``conclusion`` in words, ``p_equivalent``, and both ends of
        its interval; the baseline and a method whose runs all failed have no conclusion. With ``measure`` it is one row
        a quantity and method, in the quantity's own unit.

        Example:
            >>> bisam_lab.Study("studies/demo").table(baseline="sam")[["mean", "difference", "low", "high"]]

        Args:
            baseline: method to compare with; by default the recipe's first.
            test: ``"t"``, ``"wilcoxon"`` or ``"bootstrap"``.
            margin: points that do not matter; by default the recipe's.
            measure: one that the runs have, such as ``"calibration"``.

        Raises:
            RecipeError: no run has the baseline, no run has the measure, there is no such test, or the margin is not
                positive.
        """
        study = self._read(baseline, test, margin)
        blocks, known = study.blocks, margin is not None or registered_margin(study.recipe) is not None
        if measure is not None:
            return measure_frame(blocks, measure)
        rows = [(block.variant, row) for block in blocks for row in block.comparison]
        several = len(blocks) > 1
        named = [{"variant": name} if several else {} for name, _ in rows]
        values = [
            {"method": row.method, **{key: getattr(row, key) for key in COLUMNS}}
            | (margin_columns(row) if known else {})
            for _, row in rows
        ]
        return frame_of([name | value for name, value in zip(named, values, strict=True)], ["variant"] * several)

    def verdict(self, variant: str | None = None, *, baseline: str | None = None, test: str = "t") -> str:
        """Return the comparison in words: which methods differ, and what the study could have shown.

        Args:
            variant: by default all, each as a paragraph.
            baseline: method to compare with; by default the recipe's first.
            test: ``"t"``, ``"wilcoxon"`` or ``"bootstrap"``.
        """
        blocks = self._read(baseline, test).blocks
        if variant is not None or len(blocks) == 1:
            return _chosen(blocks, variant).verdict
        return "\n\n".join(f"{block.variant}: {block.verdict}" for block in blocks)

    def plot_curves(
        self,
        quantity: str = "validation_score",
        *,
        along: "Along | None" = None,
        variant: str | None = None,
        ax: "Axes | None" = None,
    ) -> "Axes":
        """Draw the learning curves: a line a method, and a band of its standard deviation over the seeds.

        Args:
            quantity: ``"validation_score"``, ``"train_loss"`` or another number that each epoch records.
            along: ``"epoch"``, ``"passes"`` or ``"seconds"``; by default epochs, or what the study's budget counts.
            variant: of a study that has several.
            ax: where to draw; by default in a new figure.

        Returns:
            The axes, to set a title or limits.

        Raises:
            RecipeError: no such variant, quantity or axis.
        """
        from .report.png import draw_curves

        for name, given, known in (("quantity", quantity, QUANTITIES), ("along", along or "epoch", AXES)):
            if given not in known:
                raise RecipeError(f"{name}={given!r} is none of {', '.join(known)}{nearest(str(given), known)}")
        block = _chosen(self._read().blocks, variant)
        return _drawn(ax, lambda axes: draw_curves(axes, block_chart(block, quantity, along), block))

    def plot_differences(
        self,
        *,
        baseline: str | None = None,
        test: str = "t",
        variant: str | None = None,
        ax: "Axes | None" = None,
    ) -> "Axes":
        """Draw the paired differences to the baseline: a dot a seed, the mean as a diamond, and its interval.

        Args:
            baseline: method to compare with; by default the recipe's first.
            test: ``"t"``, ``"wilcoxon"`` or ``"bootstrap"``.
            variant: of a study that has several.
            ax: where to draw; by default in a new figure.

        Returns:
            The axes.
        """
        from .report.png import draw_differences

        block = _chosen(self._read(baseline, test).blocks, variant)
        return _drawn(ax, lambda axes: draw_differences(axes, difference_chart(block), block))

    def report(self, path: str | Path = "report.html", *, baseline: str | None = None, test: str = "t") -> Path:
        """Write the self-contained page of ``bisam report``, and return its path.

        Args:
            path: of the page; an older one is replaced.
            baseline: method to compare with; by default the recipe's first.
            test: ``"t"``, ``"wilcoxon"`` or ``"bootstrap"``.
        """
        with _in_python():
            write_page(collect([self.folder], baseline, _test(test)), Path(path))
        return Path(path)

    def _read(self, baseline: str | None = None, test: str = "t", margin: float | None = None) -> StudyData:
        with _in_python():
            found = collect([self.folder], baseline, _test(test), margin).studies
        if not found:
            raise RecipeError(f"{self.folder} is not the folder of a study: name one that bisam compare has written")
        return found[0]

    def __repr__(self) -> str:
        study = self._read()
        runs = sum(len(block.runs) + len(block.equal_steps) for block in study.blocks)
        missing = [note for note in study.notes if "runs are finished" in note]
        return f"Study({str(self.folder)!r}): {' '.join(missing) or f'{runs} runs are finished.'}"

    def _repr_html_(self) -> str:
        study = self._read()
        parts = [f"<p><b>{html.escape(study.name)}</b> in <code>{html.escape(str(self.folder))}</code></p>"]
        parts += [part for block in study.blocks for part in _html(block)]
        parts += [f"<p>{html.escape(note)}</p>" for note in study.notes]
        return "\n".join(parts)


def compare(
    recipe: str | Path = "digits",
    overrides: Mapping[str, Any] | Sequence[str] = (),
    *,
    methods: str | Sequence[str] | None = None,
    seeds: int | None = None,
    out: str | Path | None = None,
    data_dir: str | Path | None = None,
    jobs: int | None = None,
    smoke: bool = False,
    label_noise: float | None = None,
    stack: "Stacking" = "auto",
    quiet: bool = False,
    measures: str | Sequence[str] | None = None,
    keep_weights: bool = False,
) -> Study:
    """Train methods x seeds, paired by seed, as ``bisam compare`` does, and return the study.

    Finished runs are never trained again, and interrupted ones continue. So call it again after an interruption, or
    with more seeds. The runs are trained in processes of their own; an interrupt saves their state and stops them.

    Example:
        >>> import bisam_lab
        >>> study = bisam_lab.compare("digits", {"train.epochs": 5}, methods="sgd,sam,bisam-log", seeds=5)
        >>> print(study.verdict())

    Args:
        recipe: a recipe's name (``bisam recipes list``) or a YAML file.
        overrides: any of the recipe's fields, as ``{"train.lr": 0.05}`` or as ``["train.lr=0.05"]``.
        methods: names, in a list or joined by commas; the first is the baseline. By default the recipe's.
        seeds: runs per method. By default the recipe's.
        out: the study's folder; by default ``studies/RECIPE``.
        data_dir: folder of the data sets that are read from disk.
        jobs: runs at once; by default one per core, or one on a GPU.
        smoke: the recipe's small size.
        label_noise: share of the training labels that are moved to another class.
        stack: train several runs together in one process: ``"auto"``, where it is faster; ``"on"``; ``"off"``.
        quiet: print nothing.
        measures: also taken on the test set: names, in a list or joined by commas, or ``"all"``.
        keep_weights: keep each run's tested weights, to be measured later.

    Raises:
        RecipeError: what cannot be run, or a folder that holds another study.
        RuntimeError: runs have failed, or a process was killed. What is finished is in the folder.
    """
    if parent_process() is not None:
        raise RuntimeError('compare() was called as a module was imported: put it below if __name__ == "__main__":')
    warm_up()
    joined, measured = (
        names if names is None or isinstance(names, str) else ",".join(names) for names in (methods, measures)
    )
    with _in_python():
        chosen = read(
            str(recipe),
            _words(overrides),
            smoke=smoke,
            label_noise=label_noise,
            methods=None if joined is None else f"[{joined}]",
            seeds=seeds,
            measures=None if measured is None else f"[{measured}]",
        )
        folder = path_of(out) if out is not None else Path("studies") / (chosen.name + ("-smoke" if smoke else ""))
        say: Callable[[str], None] = (lambda text: None) if quiet else print
        study = Trained(folder, chosen, None if data_dir is None else Path(data_dir), say)
        failed = _train(study, jobs, stack, say, keep_weights)
    results = study.write_results()
    found = outcomes(results, chosen.methods[0], "t", None, study.budget, margin=chosen.margin)
    stated = decided(chosen.hypotheses, results, chosen.stopping, chosen.first_seed, study.budget)
    write_summary(study, results, found, stated)
    if failed:
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise RuntimeError(f"{failed[0]}{more}; the same call tries again, and Study({str(folder)!r}) reads the others")
    return Study(folder)


def _train(
    study: Trained, jobs: int | None, stack: "Stacking", say: Callable[[str], None], keep_weights: bool = False
) -> list[str]:
    """Train the runs that are missing, with a line for each; return what has failed."""
    from concurrent.futures.process import BrokenProcessPool

    from .parallel.engine import Engine
    from .parallel.events import JobEnded, Note, Shows
    from .study.pool import run_study

    done, total, failed = len(study.results()), len(study.runs), []
    try:
        with closing(run_study(study, Engine(jobs=jobs), stack=stack, keep_weights=keep_weights)) as events:
            for event in events:
                if isinstance(event, Note):
                    say(f"{event.job}: {event.text}")
                elif isinstance(event, Shows):
                    say(f"{event.job}, epoch {event.epoch}: {SIGNATURES[event.signature].advice}")
                elif isinstance(event, JobEnded):
                    done += 1
                    say(f"[{done}/{total}] {_ended(event.job, event.result, event.error)}")
                    failed += [f"{event.job} failed: {event.error}"] if event.error is not None else []
    except BrokenProcessPool:
        failed.append("a process was killed, perhaps because memory ran out: jobs=1 needs the least")
    return failed


def _ended(job: str, result: RunResult | None, error: str | None) -> str:
    if error is not None:
        return f"{job} failed: {error}"
    if result is None:
        return f"{job} is being trained by another process"
    status = "" if result.status == "ok" else f", {result.status}"
    return f"{job}: test {100 * result.test_score:.2f} % ({result.seconds:.1f} s){status}"


def _words(overrides: Mapping[str, Any] | Sequence[str]) -> list[str]:
    """Return overrides as the command line takes them.

    Raises:
        RecipeError: a value that YAML cannot hold, or one text instead of a list of them.
    """
    if isinstance(overrides, str):
        raise RecipeError(f"overrides={overrides!r} is one text: write [{overrides!r}], or {{'train.lr': 0.05}}")
    if not isinstance(overrides, Mapping):
        return list(overrides)
    return [f"{key}={_yaml(key, value)}" for key, value in overrides.items()]


def _yaml(key: str, value: Any) -> str:
    try:
        text = yaml.safe_dump(value, default_flow_style=True, width=math.inf)
    except yaml.YAMLError:
        kind = type(value).__name__
        raise RecipeError(f"overrides: {key} is of the type {kind}: give a number, a text, a list or a dict") from None
    return text.removesuffix("...\n").strip()


@contextmanager
def _in_python() -> Iterator[None]:
    """Let an error that names an option of the command name the argument instead: ``--data-dir``, ``data_dir``."""
    try:
        yield
    except RecipeError as error:
        words = re.sub(r"(?<!\S)--([a-z]+(?:-[a-z]+)*)", lambda found: found[1].replace("-", "_"), str(error))
        raise RecipeError(words) from None


def _test(name: str) -> str:
    from .statistics import TESTS

    if name not in TESTS:
        raise RecipeError(f"test={name!r} is none of {', '.join(TESTS)}{nearest(str(name), TESTS)}")
    return name


def _chosen(blocks: Sequence[Block], variant: str | None) -> Block:
    """Return the block of a variant, or the only one.

    Raises:
        RecipeError: there is no such variant, or there are several and none is named.
    """
    known = [block.variant for block in blocks]
    if variant is None and len(blocks) == 1:
        return blocks[0]
    if variant not in known:
        said = "none is named" if variant is None else f"none is {variant!r}"
        raise RecipeError(f"variant: the study has {', '.join(known)}, and {said}: write variant={known[0]!r}")
    return blocks[known.index(variant)]


def _drawn(ax: "Axes | None", draw: "Callable[[Axes], None]") -> "Axes":
    from .report.png import page_style

    with page_style():
        if ax is None:
            from matplotlib import pyplot

            _, ax = pyplot.subplots(layout="constrained")
        draw(ax)
    return ax


def _html(block: Block) -> Iterator[str]:
    """Yield a block as HTML: its table, as the terminal shows it, and its verdict."""
    if block.variant:
        yield f"<p><b>{html.escape(block.variant)}</b></p>"
    if block.comparison:
        head = "".join(f"<th>{html.escape(name)}</th>" for name in columns(block.comparison))
        rows = [[html.escape(cell) for cell in line] for line in lines(block.comparison, block.baseline)]
        body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
        yield f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    yield f"<p>{html.escape(block.verdict)}</p>"
    for line in in_words(block.signatures):
        yield f"<p>{html.escape(line)}</p>"
