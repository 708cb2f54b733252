"""`lockstep compare`: whether it got slower between two load tests."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from lockstep.clients.loadtest.run_comparison import Comparison

WORSE, NOT_COMPARABLE, NOT_JUDGED = 1, 2, 3
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_STYLE = {"worse": "bold red", "better": "green", "same": "", "unsure": "dim"}


def _part(_context: click.Context, _parameter: click.Parameter, value: float) -> float:
    if not math.isfinite(value):  # neither is out of a range's bounds
        raise click.BadParameter(f"{value} is no part: 0.05 is five percent")
    return value


@click.command("compare")
@click.argument("before", type=_FILE)
@click.argument("after", type=_FILE)
@click.option(
    "--tolerance",
    type=click.FloatRange(0),
    callback=_part,
    default=0.05,
    show_default=True,
    help="A change by less than this part is none, however sure.",
)
@click.option("--anyway", is_flag=True, help="Compare although plans or machines differ.")
@click.option("--strict", is_flag=True, help="Exit with 3 where any figure is unsure.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def compare(before: Path, after: Path, *, tolerance: float, anyway: bool, strict: bool, as_json: bool) -> None:
    """Compare two files of `lockstep loadtest`: BEFORE.json AFTER.json.

    A figure is worse where the 95 % interval of the ratio after / before leaves out 1 on the bad side and the
    ratio is beyond the tolerance; unsure where the rounds leave a change beyond the tolerance open (--rounds).

    \b
    lockstep loadtest --rate 200 --rounds 6 --out reports/before
    lockstep loadtest --rate 200 --rounds 6 --out reports/after
    lockstep compare reports/before.json reports/after.json

    Exit codes: 0 nothing is worse; 1 something is; 2 wrong usage, or the two do not compare: other models,
    plans or machines; 3 nothing is known to be worse, but the throughput (open loop: the latency) of some backend could
    not be judged, as where there is but one round; with --strict: where any figure is unsure.
    """  # noqa: D301  click reads the \b
    from lockstep.clients.loadtest import DocumentInvalid, read_run
    from lockstep.clients.loadtest.document import to_document
    from lockstep.clients.loadtest.run_comparison import NotComparable
    from lockstep.clients.loadtest.run_comparison import compare as held_against

    try:
        found = held_against(read_run(before), read_run(after), tolerance=tolerance)
    except (DocumentInvalid, NotComparable, OSError) as error:
        raise click.UsageError(str(error)) from error
    comparable = anyway or not found.differences
    if as_json:
        counts = {"worse": len(found.worse), "unsure": len(found.unsure)}
        document = {**to_document(found), "comparable": comparable, **counts}
        click.echo(json.dumps(document, indent=2))
    else:
        _print(found, comparable=comparable)
    if not comparable:
        raise click.exceptions.Exit(NOT_COMPARABLE)
    if found.worse:
        raise click.exceptions.Exit(WORSE)
    if found.unjudged or (strict and found.unsure):
        raise click.exceptions.Exit(NOT_JUDGED)


def _print(found: Comparison, *, comparable: bool) -> None:
    from rich import box
    from rich.table import Table

    from lockstep.commands import consoles

    console = consoles.answers(140)
    if not comparable:
        console.print("These do not compare (--anyway compares them all the same):", style="bold", highlight=False)
        for difference in found.differences:
            console.print(f"  {difference}", highlight=False)
        return
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("model", "backend", "load", "figure"):
        table.add_column(heading, no_wrap=True)
    for heading in ("before", "after", "ratio", "95 %"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict")
    for change in found.changes:
        ratio = change.ratio
        table.add_row(
            change.model,
            change.backend,
            change.load,
            f"{change.figure}, {change.unit}",
            f"{change.before:,.2f}",
            f"{change.after:,.2f}",
            "-" if ratio is None else f"{ratio.value:.3f}",
            "-" if ratio is None else f"{ratio.low:.3f}-{ratio.high:.3f}",
            change.verdict,
            style=_STYLE[change.verdict],
        )
    console.print(table)
    for note in (*found.differences, *found.notes):
        console.print(f"! {note}", style="yellow", highlight=False)
    for backend in found.unjudged:
        console.print(f"! Could not be judged: {backend}", style="bold yellow", highlight=False)
    worse, unsure = len(found.worse), len(found.unsure)
    console.print(
        f"{worse} of {len(found.changes)} figures worse beyond their interval and {found.tolerance * 100:g} %; "
        f"{unsure} unsure{': more rounds would tell' if unsure else ''}.",
        style="bold red" if worse else "bold",
        highlight=False,
    )
