"""A load report for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from lockstep.clients.loadtest.ceiling import Ceiling
from lockstep.clients.loadtest.interval import Interval
from lockstep.clients.loadtest.plan import LoadPlan
from lockstep.clients.loadtest.record import LoadRun
from lockstep.clients.loadtest.report import LoadReport
from lockstep.clients.loadtest.search import SearchReport
from lockstep.clients.loadtest.summary import warnings_by_load
from lockstep.clients.loadtest.tally import PHASES


def print_run(run: LoadRun, console: Console) -> None:
    """Print a run: searches and sweeps in a table a model, each load by itself in full."""
    for search in run.searches:
        console.print(_search(search))
    for model in dict.fromkeys(report.plan.model for report in run.reports):
        reports = [report for report in run.reports if report.plan.model == model]
        several = [report for report in reports if report.purpose != "run"]
        if several:
            console.print(_loads(several))
        for report in reports:
            if report.purpose == "run":
                print_report(report, console)


def print_report(report: LoadReport, console: Console) -> None:
    """Print a report: what callers saw, where the server spent the time, and what to beware of."""
    console.print(render(report))


def render(report: LoadReport) -> RenderableType:
    """Lay a report out."""
    parts: list[RenderableType] = [
        Text(f"{report.plan.model}: {describe(report.plan)}", style="bold"),
        _callers(report),
        _server(report),
        _cost(report),
    ]
    parts.append(Text(_generator(report), style="dim"))
    parts += [Text(f"! {warning}", style="yellow") for warning in report.warnings]
    if report.interrupted:
        parts.append(Text("Interrupted: this is what was measured until then.", style="yellow"))
    return Group(*parts)


WIDE = 100
"""Ends this many times apart are no figures any more: the rounds had nothing in common."""

_CALLS = {"unary": "call", "stream": "message of a stream"}
_MANY = {"unary": "calls", "stream": "messages of streams"}


def ceiling_line(ceiling: Ceiling) -> str:
    """Say what the generator can send."""
    one = ceiling.processes == 1
    processes = "one process with a core of its own" if one else f"{ceiling.processes} processes with a core each"
    return (
        f"The generator itself can send {ceiling.most_calls_per_s:,.0f} {_MANY[ceiling.wire]} a second of "
        f"{ceiling.texts_per_call} text{'s' * (ceiling.texts_per_call > 1)} from {processes} "
        f"({ceiling.cpu_us_per_call:.0f} us of CPU a call). Against a server that answers at once it sent "
        f"{ceiling.calls_per_s:,.0f}, with {ceiling.cpu_share:.0%} of a core to each process."
    )


def describe(plan: LoadPlan) -> str:
    """Say a plan's load in a line."""
    texts = f"{plan.texts_per_call} text{'s' * (plan.texts_per_call > 1)} a {_CALLS[plan.wire]}"
    if plan.mode == "open":
        return f"open loop, {plan.arrivals} arrivals, {plan.rate:g} texts/s, {texts}"
    return f"closed loop, {plan.concurrency} callers, {texts}"


def _search(search: SearchReport) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"{search.model}: the highest rate with {search.slo}",
        title_justify="left",
        caption="Interrupted: this is what was found until then." if search.interrupted else None,
    )
    table.add_column("backend", no_wrap=True)
    table.add_column("holds at", justify="right", no_wrap=True)
    table.add_column("not at", justify="right", no_wrap=True)
    table.add_column("tries", justify="right")
    table.add_column("")
    for backend in search.backends:
        table.add_row(
            backend.backend,
            "-" if backend.low is None else f"{backend.low:,g}/s",
            "-" if backend.high is None else f"{backend.high:,g}/s",
            str(len(backend.tries)),
            backend.why,
        )
    return table


def _loads(reports: Sequence[LoadReport]) -> RenderableType:
    """Lay out one model under several loads."""
    first = reports[0]
    table = Table(box=box.SIMPLE_HEAD, title=f"{first.plan.model}: {first.purpose}", title_justify="left")
    table.add_column("backend", no_wrap=True)
    for heading in (
        "load", "achieved/s", "p50 ms", "p99 ms", "95 %", "errors", "batch rows", "padded/tokens", "CPU ms/text",
    ):  # fmt: skip
        table.add_column(heading, justify="right", no_wrap=True)
    names = dict.fromkeys(backend.backend for report in reports for backend in report.backends)
    for name in names:
        for report in reports:
            for backend in report.backends:
                if backend.backend == name:
                    table.add_row(
                        name,
                        report.plan.load,
                        f"{backend.achieved_rows_per_s:,.1f}",
                        f"{backend.latency.p50_ms:,.2f}",
                        f"{backend.latency.p99_ms:,.2f}",
                        between(backend.p99_interval),
                        str(backend.failed_rows),
                        _known(backend.mean_batch_rows, ".2f"),
                        _known(backend.padding_ratio, ".2f"),
                        "-" if backend.cost is None else f"{backend.cost.cpu_ms:.2f}",
                    )
        table.add_section()
    return Group(table, *(Text(f"! {warning}", style="yellow") for warning in warnings_by_load(reports)))


def _callers(report: LoadReport) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="What callers saw", title_justify="left")
    table.add_column("backend", no_wrap=True)
    for heading in (
        "threads",
        "rows",
        "errors",
        "offered/s",
        "achieved/s",
        "p50 ms",
        "p90 ms",
        "p99 ms",
        "95 %",
        "max ms",
    ):
        table.add_column(heading, justify="right", no_wrap=True)
    for backend in report.backends:
        latency = backend.latency
        table.add_row(
            backend.backend,
            "?" if backend.threads is None else str(backend.threads),
            str(backend.rows),
            str(backend.failed_rows),
            f"{backend.offered_rows_per_s:,.1f}",
            f"{backend.achieved_rows_per_s:,.1f}",
            *(f"{ms:,.2f}" for ms in (latency.p50_ms, latency.p90_ms, latency.p99_ms)),
            between(backend.p99_interval),
            f"{latency.max_ms:,.2f}",
        )
    return table


def _generator(report: LoadReport) -> str:
    share = max((backend.generator_cpu_share for backend in report.backends), default=0.0)
    latest = max((backend.send_lag.max_ms for backend in report.backends), default=0.0)
    each = "" if report.processes == 1 else f" in each of its {report.processes} processes"
    ceiling = report.ceiling
    most = max((backend.achieved_rows_per_s for backend in report.backends), default=0.0)
    used = "" if ceiling is None else f"; it sent {most / ceiling.most_rows_per_s:.0%} of what it can send at all"
    return f"The generator used {share:.0%} of a core at most{each}{used}; its latest call left {latest:.2f} ms late."


def _server(report: LoadReport) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="What the server says (mean of a row, ms by phase)", title_justify="left")
    table.add_column("backend", no_wrap=True)
    for heading in ("batch rows", "padded/tokens", *PHASES, "sum"):
        table.add_column(heading, justify="right", no_wrap=True)
    for backend in report.backends:
        table.add_row(
            backend.backend,
            _known(backend.mean_batch_rows, ".2f"),
            _known(backend.padding_ratio, ".2f"),
            *(f"{backend.phases_ms[phase]:.2f}" for phase in PHASES),
            f"{sum(backend.phases_ms.values()):.2f}",
        )
    return table


def _cost(report: LoadReport) -> Table | Text:
    if not any(backend.cost for backend in report.backends):
        return Text("")
    table = Table(box=box.SIMPLE_HEAD, title="What a text costs the server (CPU ms), and memory", title_justify="left")
    table.add_column("backend", no_wrap=True)
    for heading in ("execute", "worker", "gateway", "all", "memory MB"):
        table.add_column(heading, justify="right", no_wrap=True)
    for backend in report.backends:
        cost = backend.cost
        figures = (
            ("-",) * 5
            if cost is None
            else (
                *(f"{ms:.2f}" for ms in (cost.execute_cpu_ms, cost.worker_cpu_ms, cost.gateway_cpu_ms, cost.cpu_ms)),
                f"{cost.resident_bytes / 1e6:,.0f}",
            )
        )
        table.add_row(backend.backend, *figures)
    return table


def between(interval: Interval | None) -> str:
    """Write an interval; a dash where there is none."""
    if interval is None:
        return "-"
    return "wide" if interval.high > WIDE * interval.low else f"{interval.low:,.1f}-{interval.high:,.1f}"


def _known(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
