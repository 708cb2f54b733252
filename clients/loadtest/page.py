"""The report page: one self-contained HTML file from load reports. Holds what is plotted; no measuring.

The template is `page.html.j2` beside this file; plotly.js is embedded, so that the page opens anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import jinja2
from plotly.offline import get_plotlyjs

from clients.loadtest.latency import Latencies
from clients.loadtest.report import BackendReport, LoadReport
from clients.loadtest.table import describe
from clients.loadtest.tally import LENGTH_EDGES, PHASES, length_label
from clients.transport import is_loopback

Figure = dict[str, Any]
"""`data` and `layout` of plotly.js. Colours that follow the light or dark theme are the template's."""

BACKEND_COLOURS: Final = ("#3b6fe0", "#e8812b", "#c2417c", "#2a9d7f", "#8b5fd6", "#b58a00", "#4ba3c7")
PHASE_COLOURS: Final = {
    "decode": "#b9c2d0",
    "tokenize": "#7fb7c9",
    "queue": "#f0b65a",
    "pad": "#a8c686",
    "transfer": "#8f9bd6",
    "execute": "#3b6fe0",
    "respond": "#cf8fb4",
}
PERCENTILES: Final = (10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 97.5, 99.0, 99.5, 99.75, 99.9, 99.95, 99.99)
TICKS: Final = (10.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99)


@dataclass(frozen=True, slots=True)
class Plot:
    """A figure with its place on the page."""

    element: str
    title: str
    note: str
    figure: Figure
    wide: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """One report on the page."""

    anchor: str
    load: str
    report: LoadReport
    plots: tuple[Plot, ...]


def write_page(
    path: Path, reports: Sequence[LoadReport], *, title: str = "Load test", command: str | None = None
) -> None:
    """Write the page, making its folder. Raises `ValueError` where there is nothing to show."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render_page(reports, title=title, command=command), encoding="utf-8")


def render_page(reports: Sequence[LoadReport], *, title: str = "Load test", command: str | None = None) -> str:
    """Return the page as HTML. Raises `ValueError` where there is nothing to show."""
    if not reports:
        raise ValueError("a page needs one report at least")
    colours = _colours(reports)
    sections = [
        Section(f"report-{number}", describe(report.plan), report, _plots(report, f"plot-{number}", colours))
        for number, report in enumerate(reports)
    ]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("clients.loadtest", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["number"] = _number
    return environment.get_template("page.html.j2").render(
        title=title,
        command=command,
        sections=sections,
        colours=colours,
        figures={plot.element: plot.figure for section in sections for plot in section.plots},
        plotly_js=get_plotlyjs(),
        shared=is_loopback(reports[0].plan.address),
    )


def _number(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def _colours(reports: Sequence[LoadReport]) -> dict[str, str]:
    """Give each backend one colour on the whole page."""
    names = dict.fromkeys(backend.backend for report in reports for backend in report.backends)
    return {name: BACKEND_COLOURS[index % len(BACKEND_COLOURS)] for index, name in enumerate(names)}


def _plots(report: LoadReport, prefix: str, colours: dict[str, str]) -> tuple[Plot, ...]:
    backends = [backend for backend in report.backends if backend.rows]
    if not backends:
        return ()
    since = "from its intended start" if report.plan.mode == "open" else "from its sending"
    return (
        Plot(
            f"{prefix}-percentiles",
            "Latency by percentile",
            f"Of a call, {since} to its answer. Further right: rarer and slower.",
            _percentiles(backends, colours),
        ),
        Plot(
            f"{prefix}-throughput",
            "Throughput",
            "Texts a second: offered (pale, behind) and answered; dots are the rounds.",
            _throughput(backends, colours),
        ),
        Plot(
            f"{prefix}-phases",
            "Where the time goes",
            "Mean milliseconds of a text in each phase, by the server's clock.",
            _phases(backends),
            wide=True,
        ),
        Plot(
            f"{prefix}-length",
            "Latency by text length",
            "Tokens of a text; the line is its median, the band reaches to its p90.",
            _by_length(backends, colours),
        ),
        Plot(
            f"{prefix}-batches",
            "Batches and padding",
            "Texts executed together; tokens computed for each that counts.",
            _batches(backends, colours),
        ),
    )


def _percentiles(backends: Sequence[BackendReport], colours: dict[str, str]) -> Figure:
    data = []
    for backend in backends:
        latencies = Latencies.decode(backend.latency.histogram)
        # A percentile is drawn where at least five calls lie beyond it; fewer say little.
        shown = [p for p in PERCENTILES if p < 90 or len(latencies) * (1 - p / 100) >= 5]
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": backend.backend,
                "x": [_rarity(percentile) for percentile in shown],
                "y": latencies.percentiles_ms(shown),
                "text": [f"p{percentile:g}" for percentile in shown],
                "hovertemplate": "%{text}: %{y:.2f} ms",
                "line": {"color": colours[backend.backend], "width": 2.5, "shape": "spline", "smoothing": 0.4},
                "marker": {"size": 5},
            }
        )
    return {
        "data": data,
        "layout": {
            "hovermode": "x",
            "xaxis": {
                "type": "log",
                "tickvals": [_rarity(tick) for tick in TICKS],
                "ticktext": [f"p{tick:g}" for tick in TICKS],
            },
            "yaxis": {"title": {"text": "ms"}, "rangemode": "tozero"},
        },
    }


def _rarity(percentile: float) -> float:
    """One call in so many is slower: evenly spaced nines on a logarithmic axis."""
    return 1 / (1 - percentile / 100)


def _throughput(backends: Sequence[BackendReport], colours: dict[str, str]) -> Figure:
    names = [backend.backend for backend in backends]
    return {
        "data": [
            {
                "type": "bar",
                "name": "offered",
                "x": names,
                "y": [backend.offered_rows_per_s for backend in backends],
                "marker": {"color": [colours[name] for name in names], "opacity": 0.28},
                "width": 0.62,
                "hovertemplate": "offered %{y:,.1f}/s<extra></extra>",
            },
            {
                "type": "bar",
                "name": "answered",
                "x": names,
                "y": [backend.achieved_rows_per_s for backend in backends],
                "marker": {"color": [colours[name] for name in names]},
                "width": 0.4,
                "texttemplate": "%{y:,.0f}",
                "textposition": "inside",
                "insidetextanchor": "middle",
                "textangle": 0,
                "insidetextfont": {"color": "#ffffff"},
                "hovertemplate": "answered %{y:,.1f}/s<extra></extra>",
            },
            *(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "x": [backend.backend] * len(backend.rounds),
                    "y": [turn.achieved_rows_per_s for turn in backend.rounds],
                    "text": [f"round {turn.round + 1}" for turn in backend.rounds],
                    "hovertemplate": "%{text}: %{y:,.1f}/s<extra></extra>",
                    "marker": {"size": 7, "color": "ink", "opacity": 0.55},
                    "showlegend": False,
                }
                for backend in backends
            ),
        ],
        "layout": {
            "barmode": "overlay",
            "showlegend": False,
            "yaxis": {"title": {"text": "texts / s"}, "rangemode": "tozero"},
        },
    }


def _phases(backends: Sequence[BackendReport]) -> Figure:
    names = [backend.backend for backend in backends]
    return {
        "data": [
            {
                "type": "bar",
                "orientation": "h",
                "name": phase,
                "y": names,
                "x": [backend.phases_ms[phase] for backend in backends],
                "marker": {"color": PHASE_COLOURS[phase]},
                "hovertemplate": f"{phase}: %{{x:.3f}} ms<extra>%{{y}}</extra>",
            }
            for phase in PHASES
        ],
        "layout": {
            "barmode": "stack",
            "bargap": 0.35,
            "height": 140 + 52 * len(names),
            "xaxis": {"title": {"text": "ms"}},
            "yaxis": {"autorange": "reversed", "automargin": True},
        },
    }


def _by_length(backends: Sequence[BackendReport], colours: dict[str, str]) -> Figure:
    order = [length_label(bucket) for bucket in range(len(LENGTH_EDGES) + 1)]
    seen = {bucket.tokens for backend in backends for bucket in backend.by_length}
    data: list[Figure] = []
    for backend in backends:
        colour, buckets = colours[backend.backend], backend.by_length
        tokens = [bucket.tokens for bucket in buckets]
        line = {"color": colour, "width": 2.5}
        data += [
            {
                "type": "scatter",
                "mode": "lines",
                "x": tokens + tokens[::-1],
                "y": [b.p50_ms for b in buckets] + [b.p90_ms for b in reversed(buckets)],
                "fill": "toself",
                "fillcolor": f"{colour}26",
                "line": {"width": 0},
                "hoverinfo": "skip",
                "showlegend": False,
            },
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": backend.backend,
                "x": tokens,
                "y": [b.p50_ms for b in buckets],
                "text": [f"p90 {b.p90_ms:.2f} ms, p99 {b.p99_ms:.2f} ms, {b.rows:,} texts" for b in buckets],
                "hovertemplate": "p50 %{y:.2f} ms, %{text}",
                "line": line,
                "marker": {"size": 6},
            },
        ]
    return {
        "data": data,
        "layout": {
            "xaxis": {
                "type": "category",
                "categoryorder": "array",
                "categoryarray": [label for label in order if label in seen],
                "title": {"text": "tokens"},
            },
            "yaxis": {"title": {"text": "ms"}, "rangemode": "tozero"},
        },
    }


def _batches(backends: Sequence[BackendReport], colours: dict[str, str]) -> Figure:
    names = [backend.backend for backend in backends]
    bar = {
        "type": "bar",
        "x": names,
        "marker": {"color": [colours[name] for name in names]},
        "texttemplate": "%{y:.2f}",
        "textposition": "outside",
        "cliponaxis": False,
        "hovertemplate": "%{y:.3f}<extra>%{x}</extra>",
    }
    return {
        "data": [
            bar | {"y": [backend.mean_batch_rows for backend in backends]},
            bar | {"y": [backend.padding_ratio for backend in backends], "xaxis": "x2", "yaxis": "y2"},
        ],
        "layout": {
            "showlegend": False,
            "bargap": 0.45,
            "margin": {"l": 40, "r": 16, "t": 40, "b": 44},
            "xaxis": {"domain": [0, 0.46]},
            "xaxis2": {"domain": [0.56, 1], "anchor": "y2"},
            "yaxis": {"rangemode": "tozero"},
            "yaxis2": {"rangemode": "tozero", "anchor": "x2"},
            "annotations": [
                {
                    "text": text,
                    "x": x,
                    "y": 1.05,
                    "xref": "paper",
                    "yref": "paper",
                    "xanchor": "center",
                    "yanchor": "bottom",
                    "showarrow": False,
                }
                for text, x in (("texts in a batch", 0.23), ("padded tokens / tokens", 0.78))
            ],
        },
    }
