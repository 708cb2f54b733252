"""The figures of the report page, as `data` and `layout` of plotly.js. Knows reports and colours, no HTML.

Colours that follow the light or dark theme are named (`ink`, `soft`), and the page's own to fill in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from lockstep.clients.loadtest.latency_histogram import Latencies
from lockstep.clients.loadtest.report import BackendReport, LoadReport
from lockstep.clients.loadtest.search import SearchReport
from lockstep.clients.loadtest.tally import LENGTH_EDGES, PHASES, length_label

Figure = dict[str, Any]
Colours = Mapping[str, str]

PHASE_COLOURS: Final = {
    "decode": "#b9c2d0",
    "tokenize": "#7fb7c9",
    "queue": "#f0b65a",
    "pad": "#a8c686",
    "transfer": "#8f9bd6",
    "execute": "#64789f",
    "respond": "#cf8fb4",
}
PERCENTILES: Final = (10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 97.5, 99.0, 99.5, 99.75, 99.9, 99.95, 99.99)
TICKS: Final = (10.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.9, 99.99)
BEYOND: Final = 5
"""A percentile is drawn where at least so many calls lie beyond it; fewer say little."""


def latency_by_load(reports: Sequence[LoadReport], searches: Sequence[SearchReport], colours: Colours) -> Figure:
    """Draw the hockey stick: p99 (and, dashed, p50) of each backend at each load that it was offered."""
    opened = reports[0].plan.mode == "open"
    data: list[Figure] = []
    for name, points in by_backend(reports).items():
        colour = colours[name]
        x = [report.plan.rate if opened else one.achieved_rows_per_s for report, one in points]
        said = [
            f"{report.plan.load}: {one.achieved_rows_per_s:,.0f} answered/s, {one.failed_rows} failed"
            for report, one in points
        ]
        p99 = [one.latency.p99_ms for _, one in points]
        intervals = [one.p99_interval for _, one in points]
        common: Figure = {"type": "scatter", "mode": "lines+markers", "x": x, "text": said, "legendgroup": name}
        data += [
            common
            | {
                "name": name,
                "y": p99,
                "line": {"color": colour, "width": 2.5},
                "marker": {"size": 7, "symbol": ["x" if one.failed_rows else "circle" for _, one in points]},
                "error_y": {
                    "type": "data",
                    "symmetric": False,
                    "array": [max(0.0, i.high - ms) if i else 0 for i, ms in zip(intervals, p99, strict=True)],
                    "arrayminus": [max(0.0, ms - i.low) if i else 0 for i, ms in zip(intervals, p99, strict=True)],
                    "thickness": 1,
                    "width": 3,
                    "color": f"{colour}88",
                },
                "hovertemplate": "p99 %{y:.1f} ms · %{text}",
            },
            common
            | {
                "name": f"{name}, p50",
                "showlegend": False,
                "y": [one.latency.p50_ms for _, one in points],
                "line": {"color": colour, "width": 1.5, "dash": "dot"},
                "marker": {"size": 4},
                "hovertemplate": "p50 %{y:.1f} ms",
            },
        ]
    layout: Figure = {
        "height": 400,
        "hovermode": "closest",
        "xaxis": {"title": {"text": "texts / s, offered" if opened else "texts / s, answered"}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": "ms (logarithmic)"}, "type": "log", "dtick": "D2"},
    }
    shown = [ms for points in by_backend(reports).values() for _, one in points for ms in _p50_p99(one) if ms > 0]
    shown += [search.slo.limit_ms for search in searches]
    if shown:
        layout["yaxis"]["range"] = [_log10(min(shown) * 0.7), _log10(max(shown) * 1.5)]
    for search in searches[:1]:
        limit = search.slo.limit_ms
        layout["shapes"] = [
            {
                "type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": limit, "y1": limit,
                "line": {"color": "soft", "width": 1.5, "dash": "dash"},
            }
        ]  # fmt: skip
        layout["annotations"] = [
            {
                "text": str(search.slo), "xref": "paper", "x": 0, "y": _log10(limit), "xanchor": "left",
                "yanchor": "bottom", "showarrow": False,
            }
        ]  # fmt: skip
    return {"data": data, "layout": layout}


def batches_by_load(reports: Sequence[LoadReport], colours: Colours) -> Figure:
    """Draw how batches grow with the load, and what padding they bring."""
    opened = reports[0].plan.mode == "open"
    data: list[Figure] = []
    for name, points in by_backend(reports).items():
        common: Figure = {
            "type": "scatter",
            "mode": "lines+markers",
            "name": name,
            "legendgroup": name,
            "x": [report.plan.rate if opened else report.plan.concurrency for report, _ in points],
            "line": {"color": colours[name], "width": 2.5},
            "marker": {"size": 6},
        }
        data += [
            common | {"y": [one.mean_batch_rows for _, one in points], "hovertemplate": "%{y:.2f} texts in a batch"},
            common
            | {
                "y": [one.padding_ratio for _, one in points],
                "hovertemplate": "%{y:.2f} computed for each",
                "xaxis": "x2",
                "yaxis": "y2",
                "showlegend": False,
            },
        ]
    x = {"title": {"text": "texts / s" if opened else "callers"}, "rangemode": "tozero"}
    return {"data": data, "layout": _side_by_side("texts in a batch", "padded tokens / tokens", x) | {
        "hovermode": "closest", "legend": {"y": 1.16},
    }}  # fmt: skip


def percentiles(backends: Sequence[BackendReport], colours: Colours) -> Figure:
    """Draw latency against rarity: evenly spaced nines."""
    data = []
    for backend in backends:
        latencies = Latencies.decode(backend.latency.histogram)
        shown = [p for p in PERCENTILES if p < 90 or len(latencies) * (1 - p / 100) >= BEYOND]
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": backend.backend,
                "x": [_rarity(percentile) for percentile in shown],
                "y": latencies.percentiles_ms(shown),
                "text": [f"p{percentile:g}" for percentile in shown],
                "hovertemplate": "%{text}: %{y:.2f} ms",
                "line": {"color": colours[backend.backend], "width": 2.5},
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


def throughput(backends: Sequence[BackendReport], colours: Colours) -> Figure:
    """Draw what was offered and what was answered, and each round."""
    names = [backend.backend for backend in backends]
    marker = {"color": [colours[name] for name in names]}
    return {
        "data": [
            {
                "type": "bar",
                "name": "offered",
                "x": names,
                "y": [backend.offered_rows_per_s for backend in backends],
                "marker": marker | {"opacity": 0.28},
                "width": 0.62,
                "hovertemplate": "offered %{y:,.1f}/s<extra></extra>",
            },
            {
                "type": "bar",
                "name": "answered",
                "x": names,
                "y": [backend.achieved_rows_per_s for backend in backends],
                "marker": marker,
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


def phases(backends: Sequence[BackendReport]) -> Figure:
    """Draw the server's phases end to end, and where the callers saw the answer come."""
    names = [backend.backend for backend in backends]
    seen = {
        "type": "scatter",
        "mode": "markers",
        "name": "callers saw",
        "y": names,
        "x": [backend.latency.mean_ms for backend in backends],
        "marker": {"symbol": "diamond", "size": 11, "color": "ink"},
        "hovertemplate": "callers saw %{x:.2f} ms on average<extra>%{y}</extra>",
    }
    return {
        "data": [
            *(
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
            ),
            seen,
        ],
        "layout": {
            "barmode": "stack",
            "bargap": 0.35,
            "height": 150 + 52 * len(names),
            "xaxis": {"title": {"text": "ms"}, "rangemode": "tozero"},
            "yaxis": {"autorange": "reversed", "automargin": True},
        },
    }


def by_length(backends: Sequence[BackendReport], colours: Colours) -> Figure:
    """Draw latency against the length of texts."""
    order = [length_label(bucket) for bucket in range(len(LENGTH_EDGES) + 1)]
    seen = {bucket.tokens for backend in backends for bucket in backend.by_length}
    data: list[Figure] = []
    for backend in backends:
        colour, buckets = colours[backend.backend], backend.by_length
        tokens = [bucket.tokens for bucket in buckets]
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
                "line": {"color": colour, "width": 2.5},
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


def batches(backends: Sequence[BackendReport], colours: Colours) -> Figure:
    """Draw mean batch and padding of each backend under one load."""
    bar = _bars(backends, colours, "%{y:.2f}")
    return {
        "data": [
            bar | {"y": [backend.mean_batch_rows for backend in backends]},
            bar | {"y": [backend.padding_ratio for backend in backends], "xaxis": "x2", "yaxis": "y2"},
        ],
        "layout": _side_by_side("texts in a batch", "padded tokens / tokens") | {"showlegend": False, "bargap": 0.45},
    }


def costs(backends: Sequence[BackendReport], colours: Colours) -> Figure | None:
    """Draw CPU time of a text and memory; `None` where the server told neither."""
    known = [backend for backend in backends if backend.cost is not None]
    if not known:
        return None
    names = [backend.backend for backend in known]
    found = [backend.cost for backend in known if backend.cost is not None]
    bar = _bars(known, colours, "%{y:.2f}") | {"textposition": "auto"}
    data = [
        bar
        | {
            "name": "worker",
            "y": [cost.worker_cpu_ms for cost in found],
            "hovertemplate": "worker %{y:.3f} ms<extra>%{x}</extra>",
            "insidetextfont": {"color": "#ffffff"},
        },
        bar
        | {
            "name": "gateway",
            "y": [cost.gateway_cpu_ms for cost in found],
            "marker": {"color": [colours[name] for name in names], "opacity": 0.65},
            "hovertemplate": "gateway %{y:.3f} ms<extra>%{x}</extra>",
        },
        bar
        | {
            "y": [cost.resident_bytes / 1e6 for cost in found],
            "texttemplate": "%{y:,.0f}",
            "hovertemplate": "%{y:,.0f} MB<extra>%{x}</extra>",
            "insidetextfont": {"color": "#ffffff"},
            "xaxis": "x2",
            "yaxis": "y2",
        },
    ]
    layout = _side_by_side("CPU ms a text: worker, gateway (pale)", "memory, MB")
    return {"data": data, "layout": layout | {"showlegend": False, "bargap": 0.45, "barmode": "stack"}}


def timeline(backends: Sequence[BackendReport], colours: Colours) -> Figure:
    """Draw the run as it went: backends take turns, so that what the machine did then can be seen in all of them."""
    data: list[Figure] = []
    for backend in backends:
        colour = colours[backend.backend]
        x: list[float | None] = []
        mean: list[float | None] = []
        longest: list[float | None] = []
        said: list[str] = []
        last = None
        for found in sorted(backend.slices, key=lambda one: one.at_s):
            if last is not None and found.round != last:
                x.append(None)  # a gap: others had their turn
                mean.append(None)
                longest.append(None)
                said.append("")
            last = found.round
            x.append(found.at_s)
            mean.append(found.mean_ms)
            longest.append(found.max_ms)
            said.append(f"round {found.round + 1}, {found.rows_per_s:,.0f} texts/s, {found.failed_rows} failed")
        common: Figure = {"type": "scatter", "x": x, "text": said, "legendgroup": backend.backend}
        data += [
            common
            | {
                "mode": "lines+markers",
                "name": backend.backend,
                "y": mean,
                "line": {"color": colour, "width": 2.5},
                "marker": {"size": 4},
                "hovertemplate": "mean %{y:.1f} ms · %{text}",
            },
            common
            | {
                "mode": "lines",
                "name": f"{backend.backend}, longest",
                "y": longest,
                "showlegend": False,
                "line": {"color": f"{colour}77", "width": 1},
                "hovertemplate": "longest %{y:.1f} ms",
            },
        ]
    return {
        "data": data,
        "layout": {
            "hovermode": "closest",
            "xaxis": {"title": {"text": "seconds from the beginning"}},
            "yaxis": {"title": {"text": "ms"}, "rangemode": "tozero"},
        },
    }


def by_backend(reports: Sequence[LoadReport]) -> dict[str, list[tuple[LoadReport, BackendReport]]]:
    """Return each backend's loads, the lightest first; those that answered nothing are left out."""
    found: dict[str, list[tuple[LoadReport, BackendReport]]] = {}
    for report in sorted(reports, key=lambda report: report.plan.rate or report.plan.concurrency):
        for backend in report.backends:
            if backend.rows:
                found.setdefault(backend.backend, []).append((report, backend))
    return found


def _p50_p99(backend: BackendReport) -> tuple[float, float]:
    return backend.latency.p50_ms, backend.latency.p99_ms


def _rarity(percentile: float) -> float:
    """One call in so many is slower."""
    return 1 / (1 - percentile / 100)


def _log10(value: float) -> float:
    """Where plotly puts an annotation on a logarithmic axis."""
    return math.log10(value)


def _bars(backends: Sequence[BackendReport], colours: Colours, form: str) -> Figure:
    names = [backend.backend for backend in backends]
    return {
        "type": "bar",
        "x": names,
        "marker": {"color": [colours[name] for name in names]},
        "texttemplate": form,
        "textposition": "outside",
        "textangle": 0,
        "cliponaxis": False,
        "hovertemplate": "%{y:.3f}<extra>%{x}</extra>",
    }


def _side_by_side(left: str, right: str, axis: Figure | None = None) -> Figure:
    return {
        "margin": {"l": 40, "r": 16, "t": 56, "b": 44},
        "xaxis": {"domain": [0, 0.46], **(axis or {})},
        "xaxis2": {"domain": [0.56, 1], "anchor": "y2", **(axis or {})},
        "yaxis": {"rangemode": "tozero"},
        "yaxis2": {"rangemode": "tozero", "anchor": "x2"},
        "annotations": [
            {
                "text": text,
                "x": x,
                "y": 1.02,
                "xref": "paper",
                "yref": "paper",
                "xanchor": "center",
                "yanchor": "bottom",
                "showarrow": False,
            }
            for text, x in ((left, 0.23), (right, 0.78))
        ],
    }
