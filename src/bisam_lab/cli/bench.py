"""The command ``bisam bench``."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from ..errors import RecipeError
from ..importing import no_collection
from .completion import complete_method
from .grid import run_grid
from .options import DataDir, Json, Overrides, RecipeName, read
from .places import disk

if TYPE_CHECKING:
    from ..bench import Report, Row

__all__ = ["bench"]

_MIB = 2**20


def bench(
    recipe: RecipeName = "digits",
    overrides: Overrides = None,
    methods: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated, or all; the recipe's own methods by default.", autocompletion=complete_method
        ),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="How often everybody is timed; 10 by default, 2 of a grid.")
    ] = None,
    peers: Annotated[bool, typer.Option(help="Time other packages' versions too, where they are installed.")] = True,
    data_dir: DataDir = None,
    grid: Annotated[
        bool, typer.Option("--grid", help="Cost against size instead: from ViT-Ti to a decoder, whole and with LoRA.")
    ] = False,
    networks: Annotated[str | None, typer.Option(help="Of a grid: comma-separated, all by default.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(parser=disk, metavar="PATH", help="Of a grid: its JSON file, on which it goes on; grid.json."),
    ] = None,
    memory: Annotated[
        float | None, typer.Option(min=0, help="Of a grid: GiB that a process may use; by default what is free.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure on this machine what each method costs beside its base optimizer: step time, memory, passes.

    All are timed in turn, round by round, each just after the base optimizer and compared with that, so that a busy
    machine does little harm.

    [dim]bisam bench[/dim]
    [dim]bisam bench cifar10 --data-dir data --methods sam,asam,looksam engine.precision=bf16-mixed[/dim]
    [dim]bisam bench digits --methods all --json[/dim]
    [dim]bisam bench --grid --networks vit-ti,gpt2 --methods sam,bisam-log[/dim]
    """
    if grid:
        _refuse_recipe(recipe, overrides)
        run_grid(networks, methods, rounds or 2, out or Path("grid.json"), memory, as_json)
        return
    _refuse_without_grid(networks=networks, out=out, memory=memory)
    chosen = read(recipe, overrides, methods=None if methods in (None, "all") else f"[{methods}]")
    with no_collection():  # here, for torch takes seconds to import and --help should not
        from ..bench import bench as measure
        from ..bench import every_method
    from .live import display

    if methods == "all":
        chosen = read(recipe, overrides, methods=f"[{','.join(every_method(chosen.train.plain_method))}]")
    try:
        with display(Console(stderr=True)) as progress:
            task = progress.add_task("", total=None)
            report = measure(
                chosen,
                rounds=rounds or 10,
                peers=peers,
                data_dir=data_dir,
                progress=lambda doing, done, total: progress.update(
                    task, description=doing, completed=done, total=total
                ),
            )
    except KeyboardInterrupt:
        Console(stderr=True).print("\nInterrupted. Nothing is kept of a bench: fewer --rounds or --methods take less.")
        raise typer.Exit(130) from None
    if as_json:
        print(json.dumps(_plain(report)))
    else:
        _show(report)
    if any(row.error and row.peer is None for row in report.rows):
        raise typer.Exit(1)


def _refuse_recipe(recipe: str, overrides: list[str] | None) -> None:
    given = [word for word in (recipe, *(overrides or [])) if word != "digits"]
    if given:
        raise RecipeError(f"--grid has networks and data of its own: leave {given[0]} out")


def _refuse_without_grid(**options: object) -> None:
    given = [name for name, value in options.items() if value is not None]
    if given:
        raise RecipeError(f"--{given[0]} has no effect without --grid: say bisam bench --grid, or leave it out")


def _show(report: "Report") -> None:
    table = _table(report)
    console = Console()
    whole = Measurement.get(console, console.options.update(max_width=200), table).maximum
    Console(width=max(console.width, whole)).print(table, crop=False)  # rather a long line than a column lost
    for sentence in _sentences(report):
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)


def _table(report: "Report") -> Table:
    table = Table(title=f"Cost beside plain {report.optimizer}, median of {report.rounds} rounds \\[quartiles]")
    table.add_column("method")
    for title in ("passes a step", "by definition", "step time", "peak memory", "kept"):
        table.add_column(title, justify="right")
    for row in report.rows:
        name = f"  {row.peer} {row.name}" if row.peer else row.name
        if row.error is None:
            table.add_row(name, *_cells(row, report), style="dim" if row.peer else None)
        else:
            table.add_row(name, "", "", "[red]failed[/red]", "", "")
    return table


def _cells(row: "Row", report: "Report") -> tuple[str, ...]:
    low, middle, high = row.quartiles()
    extra = row.extra_peak or 0
    return (
        str(row.passes),
        "" if row.expected is None else str(row.expected),
        rf"x {middle:.2f} \[{low:.2f}, {high:.2f}]",
        f"{extra / _MIB:+.2f} MiB ({100 * extra / report.memory.peak:+.1f} %)",
        f"{(row.extra_kept or 0) / report.weights:+.2f} x weights",
    )


def _sentences(report: "Report") -> list[str]:
    machine, base = report.machine, report.memory
    device = machine["device"] if machine["device"] != "cpu" else machine["processor"]
    threads = machine["threads"]
    named = [f"{' '.join(filter(None, (row.peer, row.name)))} failed: {row.error}" for row in report.rows if row.error]
    return [
        f"{report.recipe}: {report.model}, {report.parameters:,} parameters ({report.weights / _MIB:.2f} MiB), batch "
        f"{report.batch}, {report.precision}, on {device}, {threads} thread{'s' * (threads != 1)}, torch "
        f"{machine['packages']['torch']}.",
        f"Plain {report.optimizer}: {report.steps_per_second:.1f} steps a second, {base.peak / _MIB:.2f} MiB at its "
        f"peak, {base.kept / _MIB:.2f} MiB between steps, batches apart. {report.steps} steps a measurement.",
        *named,
    ]


def _plain(report: "Report") -> dict[str, Any]:
    values = asdict(report) | {"steps_per_second": report.steps_per_second}
    for row, found in zip(values["rows"], report.rows, strict=True):
        row["ratio"] = dict(zip(("low", "median", "high"), found.quartiles(), strict=True)) if found.ratios else None
    return values
