"""`lockstep latency`: where rows spend their time on a running server, by backend and phase."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from lockstep.commands.client_options import EXIT_CODES, asking, client_options
from lockstep.commands.seconds import Seconds

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

    from lockstep.clients import BackendLatency, Credentials, LatencyReport, PhaseLatency

MOST_WINDOW_S = 600.0
WATCH_S = 2.0


@click.command("latency", epilog=EXIT_CODES)
@click.option("--model", metavar="NAME", help="Else every model that is served.")
@click.option("--backend", metavar="NAME", help="Else every backend of the model.")
@click.option(
    "--window",
    "window_s",
    type=Seconds(0.0, MOST_WINDOW_S),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help=f"How far back to look, at most {MOST_WINDOW_S:g}; the server takes up to five more.",
)
@click.option("--by-length", is_flag=True, help="Tell rows of different lengths apart, too.")
@click.option(
    "--watch",
    "watch_s",
    is_flag=False,
    flag_value=WATCH_S,
    type=Seconds(0.1),
    metavar="[SECONDS]",
    help=f"Ask again so often ({WATCH_S:g}), until Ctrl-C; with --json, a line each time.",
)
@client_options
def latency(
    model: str | None,
    backend: str | None,
    window_s: float,
    by_length: bool,
    watch_s: float | None,
    server: str,
    timeout_s: float,
    credentials: Credentials,
    as_json: bool,
) -> None:
    """Show how long rows took recently on a running server, by backend and phase.

    Each row counts in every phase of its life; the phases of a row are contiguous, so their means add up to the mean of
    the whole request. Counts, means and maxima are exact; the report says by how much percentiles may be wrong.
    """
    if backend and not model:
        raise click.UsageError(f"which model's backend {backend!r}? Name the --model too")
    with asking(server, timeout_s, credentials) as client:

        def ask() -> LatencyReport:
            return client.latency_report(model, backend, window_s=window_s)

        if watch_s is not None:
            watch(ask, lambda report: show(report, by_length=by_length, as_json=as_json, compact=True), watch_s)
        else:
            show(ask(), by_length=by_length, as_json=as_json)


def watch(
    ask: Callable[[], LatencyReport],
    show_one: Callable[[LatencyReport], None],
    every_s: float,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Ask and show until Ctrl-C, which is how it ends."""
    try:
        while True:
            report = ask()
            if sys.stdout.isatty():
                click.clear()
            show_one(report)
            sleep(every_s)
    except KeyboardInterrupt:
        return


def show(report: LatencyReport, *, by_length: bool, as_json: bool, compact: bool = False) -> None:
    """Print a report; `compact`: JSON on one line."""
    if as_json:
        document = asdict(report)
        if not by_length:
            for backend in document["backends"]:
                del backend["lengths"]
        click.echo(json.dumps(document, indent=None if compact else 2))
        return
    from lockstep.commands import consoles

    # A pipe has no width of its own: the tables keep their columns there.
    consoles.answers(130, highlight=False).print(_tables(report, by_length))


def _tables(report: LatencyReport, by_length: bool) -> Group:
    from rich.console import Group

    used = [one for one in report.backends if one.rows or one.phases]
    idle = [f"{one.model}@{one.backend}" for one in report.backends if not one.rows and not one.phases]
    parts: list[Table | str] = []
    if used:
        parts += [_work(used), *(_phases(one, by_length) for one in used)]
    gateway = report.gateway
    parts.append(
        f"Over {report.window_s:.1f} s; percentiles are within {report.relative_error:.1%}. The gateway used "
        f"{gateway.window_cpu_s:.2f} s of CPU time since the first of these rows, and has "
        f"{gateway.resident_bytes / 1e6:.0f} MB of memory."
    )
    if idle:
        parts.append(f"No rows: {', '.join(idle)}")
    return Group(*parts)


def _table(title: str) -> Table:
    from rich import box
    from rich.table import Table

    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)


def _work(backends: list[BackendLatency]) -> Table:
    table = _table("What backends did")
    table.add_column("backend", no_wrap=True)
    for heading in ("rows", "rows/s", "tokens/s", "rows a batch", "padded/tokens", "CPU ms a row", "CPU s", "MB"):
        table.add_column(heading, justify="right", no_wrap=True)
    for one in backends:
        table.add_row(
            f"{one.model}@{one.backend}",
            str(one.rows),
            f"{one.rows_per_s:.1f}",
            f"{one.tokens_per_s:.0f}",
            f"{one.mean_batch_rows:.1f}",
            f"{one.padding_ratio:.2f}",
            f"{one.cpu_ms_per_row:.2f}",
            f"{one.execute_cpu_s:.2f}",
            f"{one.resident_bytes / 1e6:.0f}",
        )
    return table


def _phases(backend: BackendLatency, by_length: bool) -> Table:
    table = _table(f"{backend.model}@{backend.backend}, ms")
    table.add_column("phase", no_wrap=True)
    if by_length:
        table.add_column("tokens", justify="right", no_wrap=True)
    for heading in ("rows", "mean", "p50", "p90", "p99", "max"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, phase in backend.phases.items():
        whole = name == "request"
        lengths = [one for one in backend.lengths if name in one.phases] if by_length else []
        last = not lengths
        table.add_row(
            name, *["all"] * by_length, *_figures(phase), style="bold" * whole, end_section=by_length and last
        )
        for one in lengths:
            tokens = f"> {one.longer_than}" if one.up_to is None else f"{one.longer_than + 1} to {one.up_to}"
            table.add_row("", tokens, *_figures(one.phases[name]), style="dim", end_section=one is lengths[-1])
    return table


def _figures(phase: PhaseLatency) -> list[str]:
    times_ms = (phase.mean_ms, phase.p50_ms, phase.p90_ms, phase.p99_ms, phase.max_ms)
    return [str(phase.count), *(f"{time_ms:.2f}" for time_ms in times_ms)]
