"""The report page: one self-contained HTML file from load reports. Owns what stands where; measures and draws nothing.

The template is `page.html.j2` beside this file; plotly.js is embedded, so that the page opens anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import jinja2
from plotly.offline import get_plotlyjs

from lockstep.clients.address import is_loopback
from lockstep.clients.loadtest import figures
from lockstep.clients.loadtest.figures import Colours, Figure
from lockstep.clients.loadtest.report import BackendReport, LoadReport
from lockstep.clients.loadtest.search import SearchReport
from lockstep.clients.loadtest.summary import common_load, most_kept_up, sentences, warnings_by_load
from lockstep.clients.loadtest.table import between, ceiling_line, describe
from lockstep.clients.output_files import write_whole

RUNTIME_COLOURS: Final = {"onnxruntime": "#3b6fe0", "tensorflow": "#e8812b", "torch": "#c2417c"}
"""A runtime has its colour on every page, so that pages compare."""

OTHER_COLOURS: Final = ("#2a9d7f", "#8b5fd6", "#b58a00", "#4ba3c7", "#7d8794", "#5b8c2a", "#a35d3d")


@dataclass(frozen=True, slots=True)
class Plot:
    """A place on the page; what is drawn there depends on the load that is chosen, where there are several."""

    element: str
    title: str
    note: str
    figures: dict[str, Figure]  # by the load's key
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Load:
    """A load that can be looked at more closely."""

    key: str
    name: str
    backends: tuple[BackendReport, ...]
    mode: str


@dataclass(frozen=True, slots=True)
class Tile:
    """A backend's figure to remember."""

    backend: str
    big: str
    unit: str
    small: tuple[tuple[str, str], ...]  # name, value


@dataclass(frozen=True, slots=True)
class Section:
    """One model."""

    anchor: str
    model: str
    summary: tuple[str, ...]
    tiles: tuple[Tile, ...]
    about: str
    warnings: tuple[str, ...]
    curves: tuple[Plot, ...]
    loads: tuple[Load, ...]
    chosen: str  # a load's key
    plots: tuple[Plot, ...]
    rows: tuple[tuple[LoadReport, BackendReport], ...]
    interrupted: bool


def write_page(
    path: Path,
    reports: Sequence[LoadReport],
    *,
    searches: Sequence[SearchReport] = (),
    title: str = "Load test",
    command: str | None = None,
    cut_short: str | None = None,
) -> None:
    """Write the page, making its folder. Raises `ValueError` where there is nothing to show."""
    write_whole(path, render_page(reports, searches=searches, title=title, command=command, cut_short=cut_short))


def render_page(
    reports: Sequence[LoadReport],
    *,
    searches: Sequence[SearchReport] = (),
    title: str = "Load test",
    command: str | None = None,
    cut_short: str | None = None,
) -> str:
    """Return the page as HTML. Raises `ValueError` where there is nothing to show."""
    if not reports:
        raise ValueError("a page needs one report at least")
    colours = _colours(reports)
    sections = [
        _section(
            f"model-{number}",
            [report for report in reports if report.plan.model == model],
            [search for search in searches if search.model == model],
            colours,
        )
        for number, model in enumerate(dict.fromkeys(report.plan.model for report in reports))
    ]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("lockstep.clients.loadtest", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["number"] = _number
    environment.filters["between"] = between
    first = reports[0]
    return environment.get_template("page.html.j2").render(
        title=title,
        command=command,
        cut_short=cut_short,
        first=first,
        ceiling=None if first.ceiling is None else ceiling_line(first.ceiling),
        sections=sections,
        colours=colours,
        figures={plot.element: plot.figures for section in sections for plot in (*section.curves, *section.plots)},
        plotly_js=get_plotlyjs(),
        shared=is_loopback(first.plan.address),
    )


def _number(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _colours(reports: Sequence[LoadReport]) -> dict[str, str]:
    """Give each backend one colour: its runtime's own, or where that is taken another."""
    names = dict.fromkeys(backend.backend for report in reports for backend in report.backends)
    found = {name: RUNTIME_COLOURS[name] for name in names if name in RUNTIME_COLOURS}
    others = [name for name in names if name not in found]
    return {**found, **{name: OTHER_COLOURS[index % len(OTHER_COLOURS)] for index, name in enumerate(others)}}


def _section(anchor: str, reports: Sequence[LoadReport], searches: Sequence[SearchReport], colours: Colours) -> Section:
    loads = _loads(reports, searches)
    return Section(
        anchor=anchor,
        model=reports[0].plan.model,
        summary=sentences(reports, searches),
        tiles=_tiles(reports, searches),
        about=_about(reports),
        warnings=warnings_by_load(reports),
        curves=_curves(anchor, reports, searches, colours),
        loads=loads,
        chosen=_chosen(loads, reports),
        plots=_plots(anchor, loads, colours),
        rows=tuple((report, backend) for report in reports for backend in report.backends),
        interrupted=any(report.interrupted for report in reports) or any(one.interrupted for one in searches),
    )


def _about(reports: Sequence[LoadReport]) -> str:
    first = reports[0]
    plan = first.plan
    if len(reports) == 1:
        load = describe(plan)
    else:
        kinds = dict.fromkeys(f"{report.plan.mode} loop" for report in reports)
        load = f"{len(reports)} loads ({', '.join(kinds)})"
    turns = (
        "tries of"
        if first.purpose == "search"
        else "one round,"
        if plan.rounds == 1
        else f"{plan.rounds} interleaved rounds,"
    )
    seconds = plan.seconds / plan.rounds if first.purpose == "search" else plan.seconds
    return f"{load} · {turns} {seconds:g} s for each backend and load · texts: {first.texts} ({first.text_count:,})"


def _key(report: LoadReport) -> str:
    return f"{report.plan.mode} {report.plan.load}"


def _loads(reports: Sequence[LoadReport], searches: Sequence[SearchReport]) -> tuple[Load, ...]:
    found = []
    for search in searches:
        held = tuple(
            backend
            for one in search.backends
            for report in reports
            if report.plan.mode == "open" and report.plan.rate == one.low
            for backend in report.backends
            if backend.backend == one.backend and backend.rows
        )
        if held:
            found.append(Load(f"held {search.slo}", f"each at the highest rate with {search.slo}", held, "open"))
    for report in reports:
        answered = tuple(backend for backend in report.backends if backend.rows)
        if answered:
            found.append(Load(_key(report), f"{report.plan.load}, {report.plan.mode} loop", answered, report.plan.mode))
    return tuple(found)


def _chosen(loads: Sequence[Load], reports: Sequence[LoadReport]) -> str:
    """Begin with what a search found, else with the heaviest load that every backend kept up with."""
    if loads and loads[0].key.startswith("held"):
        return loads[0].key
    opened = [report for report in reports if report.plan.mode == "open"]
    common = common_load(opened)
    if common is not None and any(load.key == _key(common) for load in loads):
        return _key(common)
    return loads[0].key if loads else ""


def _tiles(reports: Sequence[LoadReport], searches: Sequence[SearchReport]) -> tuple[Tile, ...]:
    names = dict.fromkeys(backend.backend for report in reports for backend in report.backends)
    return tuple(_tile(name, reports, searches) for name in names)


def _tile(name: str, reports: Sequence[LoadReport], searches: Sequence[SearchReport]) -> Tile:
    mine = [(report, one) for report in reports for one in report.backends if one.backend == name]
    failed = sum(one.failed_rows for _, one in mine)
    for search in searches:
        for found in search.backends:
            if found.backend == name:
                high = "–" if found.high is None else f"{found.high:,g}/s"
                at = [one for report, one in mine if report.plan.mode == "open" and report.plan.rate == found.low]
                p99 = f"{at[0].latency.p99_ms:,.1f} ms" if at else "–"
                big = "–" if found.low is None else f"{found.low:,g}"
                small = (("not at", high), ("p99 there", p99), *_cost(at[0] if at else None))
                return Tile(name, big, f"texts/s with {search.slo}", small)
    opened = [report for report in reports if report.plan.mode == "open"]
    if len(opened) > 1:
        most = most_kept_up(opened, name)
        peak = max((one.achieved_rows_per_s for _, one in mine), default=0.0)
        small = (("most answered", f"{peak:,.0f}/s"), ("failed", f"{failed:,}"), *_cost(mine[-1][1]))
        return Tile(name, "–" if most is None else f"{most:,g}", "texts/s at which it keeps pace", small)
    closed = [pair for pair in mine if pair[0].plan.mode == "closed"]
    report, one = closed[-1] if closed else mine[-1]
    latency = one.latency
    if report.plan.mode == "open":
        small = (("p99", f"{latency.p99_ms:,.1f} ms"), ("failed", f"{failed:,}"), *_cost(one))
        return Tile(name, f"{latency.p50_ms:,.1f}", f"ms median at {report.plan.load}", small)
    interval = one.achieved_interval
    spread = "" if interval is None else f" (95 %: {interval.low:,.0f}–{interval.high:,.0f})"
    small = (("p99", f"{latency.p99_ms:,.1f} ms"), ("failed", f"{failed:,}"), *_cost(one))
    return Tile(name, f"{one.achieved_rows_per_s:,.0f}", f"texts/s{spread}", small)


def _cost(backend: BackendReport | None) -> tuple[tuple[str, str], ...]:
    if backend is None or backend.cost is None:
        return ()
    return (("CPU a text", f"{backend.cost.cpu_ms:.2f} ms"),)


def _curves(
    anchor: str, reports: Sequence[LoadReport], searches: Sequence[SearchReport], colours: Colours
) -> tuple[Plot, ...]:
    found = []
    for mode in ("open", "closed"):
        its = [report for report in reports if report.plan.mode == mode]
        if len(its) < 2 or not any(backend.rows for report in its for backend in report.backends):
            continue
        note = "Solid: p99 with the 95 % interval of its rounds; dotted: p50. A cross: some texts failed there."
        found += [
            Plot(
                f"{anchor}-{mode}-curve",
                "Latency against load" if mode == "open" else "Latency against throughput",
                note,
                {"": figures.latency_by_load(its, searches if mode == "open" else (), colours)},
                wide=True,
            ),
            Plot(
                f"{anchor}-{mode}-growth",
                "Batches and padding against load",
                "Texts executed together grow with the load; tokens that the runtime computes for each that counts.",
                {"": figures.batches_by_load(its, colours)},
                wide=True,
            ),
        ]
    return tuple(found)


def _plots(anchor: str, loads: Sequence[Load], colours: Colours) -> tuple[Plot, ...]:
    if not loads:
        return ()
    modes = {load.mode for load in loads}
    since = {"open": "from its intended start", "closed": "from its sending"}
    counted = since[modes.pop()] if len(modes) == 1 else "from its intended start (closed loop: from its sending)"
    costs = {load.key: figure for load in loads if (figure := figures.costs(load.backends, colours)) is not None}
    found = [
        Plot(
            f"{anchor}-percentiles",
            "Latency by percentile",
            f"Of a call, {counted} to its answer. Further right: rarer and slower.",
            {load.key: figures.percentiles(load.backends, colours) for load in loads},
        ),
        Plot(
            f"{anchor}-throughput",
            "Throughput",
            "Texts a second: offered (pale, behind) and answered; dots are the rounds.",
            {load.key: figures.throughput(load.backends, colours) for load in loads},
        ),
        Plot(
            f"{anchor}-phases",
            "Where the time goes",
            "Mean milliseconds of a text in each phase, by the server's clock; the diamond is the mean latency that "
            "callers saw. What lies between is the network, both gRPC stacks and waiting for a core.",
            {load.key: figures.phases(load.backends) for load in loads},
            wide=True,
        ),
        Plot(
            f"{anchor}-length",
            "Latency by text length",
            "Tokens of a text; the line is its median, the band reaches to its p90.",
            {load.key: figures.by_length(load.backends, colours) for load in loads},
        ),
        Plot(
            f"{anchor}-batches",
            "Batches and padding",
            "Texts executed together; tokens computed for each that counts.",
            {load.key: figures.batches(load.backends, colours) for load in loads},
        ),
        Plot(
            f"{anchor}-timeline",
            "As it went",
            "Backends take turns. Mean latency of calls by when they were meant to start; thin: the longest.",
            {load.key: figures.timeline(load.backends, colours) for load in loads},
            wide=not costs,
        ),
    ]
    if costs:
        found.append(
            Plot(
                f"{anchor}-costs",
                "What it costs the server",
                "CPU time of a text, and memory of the backend's worker; by the server's own metrics.",
                costs,
            )
        )
    return tuple(found)
