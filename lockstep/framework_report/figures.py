"""The page's plots: `data` and `layout` of plotly.js, from facts. A plot without numbers is left out. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from lockstep.exporters.source import Framework
from lockstep.framework_report.gather import SIDES
from lockstep.framework_report.report_data import SAME_LSTM, SAME_TRANSFORMER, Facts, cpu_per_epoch
from lockstep.framework_report.settings import Settings

Figure = dict[str, Any]

COLOURS: Final = MappingProxyType(
    {
        Framework.TORCH: "#e8812b",
        Framework.KERAS: "#c2417c",
        Framework.TF2: "#3b6fe0",
        Framework.TF1: "#2a9d7f",
        Framework.HUGGINGFACE: "#8b5fd6",
    }
)
_FORMS: Final = MappingProxyType({"onnxruntime": "ONNX", "tensorflow": "SavedModel", "torch": ".pt2"})
_DASHES: Final = MappingProxyType({"onnxruntime": "solid", "tensorflow": "dash", "torch": "dash"})
_MODES: Final = MappingProxyType(
    {
        "eager": ("eager", "#c0332b"),
        "predict": ("Keras predict", "#e8812b"),
        "graph": ("graph", "#b58a00"),
        "tensorflow": ("SavedModel", "#3b6fe0"),
        "torch": (".pt2", "#8b5fd6"),
        "onnxruntime": ("ONNX", "#2a9d7f"),
    }
)


@dataclass(frozen=True, slots=True)
class Plot:
    """A figure with its place on the page: the anchor of the section that it belongs to."""

    element: str
    section: str
    title: str
    note: str
    figure: Figure
    wide: bool = False


def plots(facts: Facts, settings: Settings) -> tuple[Plot, ...]:
    """Return every plot that has anything to show."""
    candidates = (
        Plot(
            "plot-lines",
            "training",
            "Lines of code",
            "Of the same model (strong) and of its training (pale).",
            _lines(facts),
        ),
        Plot(
            "plot-accuracy",
            "training",
            "Accuracy against what training costs",
            "Each dot is a model: CPU seconds of an epoch, and accuracy on held-out sentences.",
            _accuracy(facts),
        ),
        Plot(
            "plot-loops",
            "exports",
            "What a Loop costs",
            "CPU time of the same model as a Loop or Scan, as a multiple of the fused operator; the line is 1.",
            _loops(facts),
            wide=True,
        ),
        Plot(
            "plot-latency-lstm",
            "latency",
            "The LSTM, one text",
            "Milliseconds by the text's length in tokens; solid ONNX, dashed the framework's own format.",
            _latency(facts, settings, SAME_LSTM.values()),
        ),
        Plot(
            "plot-latency-transformer",
            "latency",
            "The Transformer, one text",
            "The same of the Transformer.",
            _latency(facts, settings, SAME_TRANSFORMER.values()),
        ),
        Plot(
            "plot-load",
            "load",
            "Throughput",
            "Texts a second, callers in a closed loop, one text a call.",
            _throughput(facts),
            wide=True,
        ),
        Plot(
            "plot-padding-lstm",
            "padding",
            "The cost of a fixed length: recurrent",
            "CPU time a text, as a multiple of batches sorted by length. Dotted: nobody tells the runtime the lengths.",
            _padding(facts, settings, "lstm"),
        ),
        Plot(
            "plot-padding-transformer",
            "padding",
            "The cost of a fixed length: Transformers",
            "The same. Attention pays for padding twice: in each product, and in the length squared.",
            _padding(facts, settings, "transformer"),
        ),
        Plot(
            "plot-padding-accuracy",
            "padding",
            "What a fixed length does to the answers",
            "Accuracy on all held-out texts. Dotted: padding counts as text.",
            _padding_accuracy(facts, settings),
            wide=True,
        ),
        Plot(
            "plot-epochs",
            "static-training",
            "Training: CPU time a text",
            "The same LSTM in each framework: dynamic lengths, every text padded, without graphs.",
            _epochs(facts, settings),
            wide=True,
        ),
        Plot(
            "plot-modes-alone",
            "modes",
            "The LSTM, one text of 32 tokens",
            "Milliseconds of one execution; the scale is logarithmic.",
            _modes(facts, "b1_t32"),
        ),
        Plot(
            "plot-modes-together",
            "modes",
            "The LSTM, 32 texts of 64 tokens",
            "The same for a batch.",
            _modes(facts, "b32_t64"),
        ),
    )
    return tuple(plot for plot in candidates if plot.figure["data"])


def _lines(facts: Facts) -> Figure:
    data: list[Figure] = []
    for name, same in (("LSTM", SAME_LSTM), ("Transformer", SAME_TRANSFORMER)):
        for row in facts.of(same.values()):
            label, colour = f"{row.side}<br>{name}", COLOURS[row.framework]
            for value, opacity, what in ((row.model_lines, 1.0, "model"), (row.training_lines, 0.4, "training")):
                data.append(
                    {
                        "type": "bar",
                        "x": [label],
                        "y": [value],
                        "marker": {"color": colour, "opacity": opacity},
                        "text": [str(value)],
                        "textposition": "inside",
                        "hovertemplate": f"{what}: %{{y}} lines<extra>{row.id}</extra>",
                        "showlegend": False,
                    }
                )
    return {"data": data, "layout": {"barmode": "stack", "yaxis": {"title": {"text": "lines"}}}}


def _accuracy(facts: Facts) -> Figure:
    data: list[Figure] = []
    for framework, side in SIDES.items():
        rows = [row for row in facts.rows if row.framework is framework and row.record is not None]
        if not rows:
            continue
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": side,
                "x": [cpu_per_epoch(row) for row in rows],
                "y": [row.record.accuracy_sentences * 100 for row in rows if row.record is not None],
                "text": [f"{row.id} ({row.entry.layer})" for row in rows],
                "hovertemplate": "%{text}: %{y:.1f} %, %{x:.1f} CPU s an epoch<extra></extra>",
                "marker": {"size": 11, "color": COLOURS[framework], "opacity": 0.85},
            }
        )
    layout = {
        "xaxis": {"type": "log", "title": {"text": "CPU s an epoch"}},
        "yaxis": {"title": {"text": "accuracy, %"}},
    }
    return {"data": data, "layout": layout}


def _loops(facts: Facts) -> Figure:
    rows = [row for row in facts.rows if row.loop is not None and row.cell("onnx") is not None]
    data: list[Figure] = []
    for shape, name, colour in (
        ("b1_t32", "one text of 32 tokens", "#c2417c"),
        ("b32_t64", "32 texts of 64 tokens", "#3b6fe0"),
    ):
        pairs = []
        for row in rows:
            fused, loop = (row.cell("onnx") or {}).get(f"cpu_ms_{shape}"), (row.loop or {}).get(f"cpu_ms_{shape}")
            if fused and loop:
                pairs.append((row.id, loop / fused))
        if pairs:
            data.append(
                {
                    "type": "bar",
                    "name": name,
                    "x": [pair[0] for pair in pairs],
                    "y": [pair[1] for pair in pairs],
                    "marker": {"color": colour},
                    "hovertemplate": "%{y:.1f} times the fused operator<extra>%{x}</extra>",
                }
            )
    layout = {"barmode": "group", "yaxis": {"title": {"text": "Loop / fused"}}, "shapes": [_level(1.0)]}
    return {"data": data, "layout": layout}


def _latency(facts: Facts, settings: Settings, models: Iterable[str]) -> Figure:
    data: list[Figure] = []
    for row in facts.of(models):
        for backend, form in _FORMS.items():
            points = [(length, facts.latency(row.id, backend, f"b1_t{length}")) for length in settings.lengths_alone]
            known = [(length, value) for length, value in points if value is not None]
            if known:
                data.append(_line(f"{row.side} {form}", known, COLOURS[row.framework], _DASHES[backend], "%{y:.2f} ms"))
    layout = {
        "xaxis": {"type": "log", "title": {"text": "tokens"}, "tickvals": list(settings.lengths_alone)},
        "yaxis": {"type": "log", "dtick": "D2", "title": {"text": "ms"}},
        "height": 380,
    }
    return {"data": data, "layout": layout}


def _throughput(facts: Facts) -> Figure:
    data: list[Figure] = []
    for backend, form in _FORMS.items():
        pairs = [(row.id, facts.load(row.id, "closed", backend, "rows_per_s")) for row in facts.rows]
        data += _bars(form, _MODES[backend][1], pairs, text="%{y:.0f}", hover="%{y:.0f} texts/s")
    return {"data": data, "layout": {"barmode": "group", "yaxis": {"title": {"text": "texts/s"}}}}


def _padding(facts: Facts, settings: Settings, kind: str) -> Figure:
    data: list[Figure] = []
    for row in facts.of(settings.padding):
        if kind not in row.id:
            continue
        for backend in facts.padded_backends(row.id):
            for name, dash in (("fixed", _DASHES[backend]), ("blind", "dot")):
                points = [
                    (length, facts.padded_ratio(row.id, backend, f"{name}-{length}"))
                    for length in settings.fixed_lengths
                ]
                known = [(length, value) for length, value in points if value is not None]
                if known:
                    told = "" if name == "fixed" else ", not told"
                    label = f"{row.side} {_FORMS[backend]}{told}"
                    data.append(_line(label, known, COLOURS[row.framework], dash, "%{y:.2f} times sorted"))
    layout = {
        "xaxis": {"type": "log", "title": {"text": "fixed length, tokens"}, "tickvals": list(settings.fixed_lengths)},
        "yaxis": {"type": "log", "dtick": "D2", "title": {"text": "CPU time / sorted"}},
        "shapes": [_level(1.0)],
        "height": 420,
    }
    return {"data": data, "layout": layout}


def _padding_accuracy(facts: Facts, settings: Settings) -> Figure:
    data: list[Figure] = []
    for row in facts.of(settings.padding):
        transformer = row.layer.cell == "Transformer"
        for name, told in (("fixed", ""), ("blind", ", not told")):
            points = [(length, facts.padded_accuracy(row.id, f"{name}-{length}")) for length in settings.fixed_lengths]
            known = [(length, value * 100) for length, value in points if value is not None]
            if known:
                line = _line(f"{row.id}{told}", known, COLOURS[row.framework], "dot" if told else "solid", "%{y:.1f} %")
                line["marker"]["symbol"] = "square" if transformer else "circle"
                data.append(line)
    layout = {
        "xaxis": {"type": "log", "title": {"text": "fixed length, tokens"}, "tickvals": list(settings.fixed_lengths)},
        "yaxis": {"title": {"text": "accuracy, %"}},
    }
    return {"data": data, "layout": layout}


def _epochs(facts: Facts, settings: Settings) -> Figure:
    conditions = {"dynamic": ("dynamic lengths", "#2a9d7f")}
    shades = ("#7fb7c9", "#3b6fe0", "#24418a")
    conditions |= {
        f"fixed-{length}": (f"padded to {length}", shades[number % len(shades)])
        for number, length in enumerate(settings.epoch_lengths)
    }
    conditions["eager"] = ("without graphs", "#c0332b")
    data: list[Figure] = []
    for condition, (name, colour) in conditions.items():
        pairs = [(row.side, facts.text_ms(row.id, condition)) for row in facts.of(settings.epochs)]
        data += _bars(name, colour, pairs, text="%{y:.2f}", hover="%{y:.2f} CPU ms a text")
    layout = {"barmode": "group", "yaxis": {"type": "log", "dtick": "D2", "title": {"text": "CPU ms a text"}}}
    return {"data": data, "layout": layout}


def _bars(name: str, colour: str, pairs: Sequence[tuple[str, float | None]], *, text: str, hover: str) -> list[Figure]:
    """Return a trace of the values that are known, each with what it is of; none where nothing is known."""
    known = [(place, value) for place, value in pairs if value is not None]
    if not known:
        return []
    return [
        {
            "type": "bar",
            "name": name,
            "x": [place for place, _ in known],
            "y": [value for _, value in known],
            "marker": {"color": colour},
            "texttemplate": text,
            "textposition": "outside",
            "cliponaxis": False,
            "hovertemplate": f"{hover}<extra>%{{x}}</extra>",
        }
    ]


def _modes(facts: Facts, shape: str) -> Figure:
    data: list[Figure] = []
    for mode, (name, colour) in _MODES.items():
        pairs = [(row.side, facts.mode(row.id, mode, shape)) for row in facts.of(SAME_LSTM.values())]
        data += _bars(name, colour, pairs, text="%{y:.2~f}", hover="%{y:.2f} ms")
    order = [SIDES[framework] for framework in SAME_LSTM]
    layout = {
        "barmode": "group",
        "xaxis": {"type": "category", "categoryorder": "array", "categoryarray": order},
        "yaxis": {"type": "log", "dtick": "D2", "title": {"text": "ms"}},
        "height": 380,
    }
    return {"data": data, "layout": layout}


def _line(name: str, points: Sequence[tuple[int, float]], colour: str, dash: str, hover: str) -> Figure:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": name,
        "x": [length for length, _ in points],
        "y": [value for _, value in points],
        "line": {"color": colour, "width": 2.2, "dash": dash},
        "marker": {"size": 6},
        "hovertemplate": hover,
    }


def _level(value: float) -> Figure:
    """Return a thin line across the plot."""
    return {
        "type": "line",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "y0": value,
        "y1": value,
        "line": {"color": "#8a94a3", "width": 1},
    }
