"""The whole table: every model of the zoo into every artifact, and what came of each.

Composes the zoo, the exporters and the table's own bounds. A row's figures are kept as soon as they are known,
with the fingerprint of what they are of, so that an interrupted run is taken up where it was.

`reports/export-matrix.json` is a list of cells, the keys of `CELL_KEYS` each. What only the report needs (the
measurements beside the exports, when a row was done) stands in `export-matrix.state.json` beside it.
"""

from __future__ import annotations

import asyncio
import json
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lockstep.clients.output_files import write_whole
from lockstep.cores import usable_cores
from lockstep.exporters.conversion import ExportError
from lockstep.exporters.export import (
    ArtifactReport,
    ExportReport,
    OnProgress,
    export_model_async,
    possible_artifacts,
    source_fingerprint,
)
from lockstep.exporters.publish import latest
from lockstep.exporters.source import Description, Framework
from lockstep.exporters.unfused import unfused_cost
from lockstep.server.core.errors import BackendUnavailable
from lockstep.server.runtimes.worker_process import BatchFailed
from lockstep.zoo.registry import ENTRIES, Entry, UnknownModel, select
from lockstep.zoo.train import train_all

UnknownRow = UnknownModel

VARIANTS = {"torch-bilstm": ("onnx-int8",), "keras-lstm": ("onnx-int8",), "hf-minilm": ("onnx-int8",)}
"""The variants that are tried, by row."""

LOOP_COMPARED = (Framework.KERAS, Framework.TF1)
"""Whose fused ONNX is held against the same model's Loop."""

SHAPES = ("b1_t32", "b32_t64")

CELL_KEYS = (
    "row",
    "artifact",
    "status",
    "reason",
    "recurrent_ops",
    "max_abs_diff",
    "padding_invariance",
    "accuracy_sentences",
    "source_accuracy_sentences",
    "bytes",
    "export_s",
    "cpu_ms_b1_t32",
    "cpu_ms_b32_t64",
    "source_cpu_ms_b1_t32",
    "source_cpu_ms_b32_t64",
)

Cell = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Order:
    """What to do, and where things are kept."""

    rows: Sequence[str]  # none: all of the zoo
    cache: Path
    repository: Path
    report: Path
    data: Path
    verify_with: Path
    parallel: int = 2
    train: bool = False
    again: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it."""

    cells: list[Cell]
    errors: dict[str, str]  # row -> why it could not be tried
    refused: int
    summary: str


@dataclass(slots=True)
class _State:
    """What is known of each row, as it is kept on disk."""

    path: Path
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> _State:
        return cls(path, json.loads(path.read_bytes()) if path.is_file() else {})

    def keep(self, row: str, known: dict[str, Any]) -> None:
        self.rows[row] = known
        write_whole(self.path, json.dumps(self.rows, indent=1) + "\n")


def run(order: Order, on_progress: OnProgress) -> Outcome:
    """Export every row and write both reports; blocks for minutes. Raises `UnknownRow`."""
    entries = select(order.rows)
    if order.train:
        train_all([entry.id for entry in entries], order.cache)
    state = _State.read(_state_path(order.data))
    errors = asyncio.run(_export([entry.id for entry in entries], order, state, on_progress))
    known = {row: state.rows[row] for row in ENTRIES if row in state.rows and row not in errors}
    cells = [cell for one in known.values() for cell in one["cells"]]
    write_whole(order.data, json.dumps(cells, indent=2) + "\n")
    bounds = check_bounds(known)
    write_whole(order.report, render(known, errors, bounds))
    refused = sum(cell["status"] == "refused" for cell in cells)
    return Outcome(cells, errors, refused, _summary(cells, errors, bounds, order))


def read_rows(data: Path) -> dict[str, dict[str, Any]]:
    """Return what is known of each row that was done: its `framework`, `layer`, `cells`, `loop` and `methods`.

    `data` is the figures' file of `Order`; none of them is known where it is not there.
    """
    return _State.read(_state_path(data)).rows


def _state_path(data: Path) -> Path:
    return data.with_name(data.stem + ".state.json")


async def _export(rows: Sequence[str], order: Order, state: _State, on_progress: OnProgress) -> dict[str, str]:
    """Export rows `parallel` at a time; return the errors by row."""
    errors: dict[str, str] = {}
    slots = asyncio.Semaphore(order.parallel)
    at_once = asyncio.Semaphore(order.parallel)

    async def one(row: str) -> None:
        folder = order.cache / "zoo" / row
        async with at_once:
            if not (folder / "description.json").is_file():
                errors[row] = f"not trained: {folder} holds no model (lockstep train {row}, or --train)"
                return
            description = Description.read(folder / "description.json")
            fingerprint = source_fingerprint(description, folder)
            if not order.again and state.rows.get(row, {}).get("source") == fingerprint and _stands(state, row, order):
                return
            try:
                known = await _row(description, folder, order, slots, on_progress)
            except ExportError as error:
                errors[row] = str(error)
                return
            state.keep(row, {"source": fingerprint, **known})

    async with asyncio.TaskGroup() as group:
        for row in rows:
            group.create_task(one(row))
    return dict(sorted(errors.items()))


def _stands(state: _State, row: str, order: Order) -> bool:
    """Return whether what the figures are of is still published."""
    passed = {cell["artifact"] for cell in state.rows[row]["cells"] if cell["status"] != "refused"}
    published = latest(order.repository, row)
    return not passed or (
        published is not None
        and published.manifest.source.sha256 == state.rows[row]["source"]
        and passed <= {artifact.kind for artifact in published.manifest.artifacts}
    )


async def _row(
    description: Description, folder: Path, order: Order, slots: asyncio.Semaphore, on_progress: OnProgress
) -> dict[str, Any]:
    report = await export_model_async(
        description,
        folder,
        artifacts=(*possible_artifacts(description), *VARIANTS.get(description.name, ())),
        verify_with=order.verify_with,
        repository=order.repository,
        slots=slots,
        again=True,  # a published artifact's manifest does not hold every figure of the table
        on_progress=on_progress,
    )
    loop: dict[str, Any] | None = None
    if description.framework in LOOP_COMPARED and description.layer != "Transformer":
        try:
            loop = await unfused_cost(description, folder, order.verify_with, slots=slots, on_progress=on_progress)
        except (ExportError, BackendUnavailable, BatchFailed) as error:
            loop = {"error": str(error)}
    return {
        "framework": report.framework,
        "layer": report.layer,
        "cells": [_cell(report, artifact) for artifact in report.artifacts],
        "loop": loop,
        "methods": {artifact.artifact: artifact.method for artifact in report.artifacts},
    }


def _cell(report: ExportReport, artifact: ArtifactReport) -> Cell:
    return dict(
        zip(
            CELL_KEYS,
            (
                report.model,
                artifact.artifact,
                artifact.status.value,
                artifact.reason,
                artifact.recurrent_ops,
                artifact.max_abs_diff,
                artifact.padding_invariance,
                artifact.accuracy_sentences,
                artifact.source_accuracy_sentences,
                artifact.bytes,
                round(artifact.seconds, 1),
                artifact.cpu_ms_b1_t32,
                artifact.cpu_ms_b32_t64,
                artifact.source_cpu_ms_b1_t32,
                artifact.source_cpu_ms_b32_t64,
            ),
            strict=True,
        )
    )


@dataclass(frozen=True, slots=True)
class Bound:
    """One of the table's bounds, and where it does not hold."""

    name: str
    measured: tuple[str, ...]  # in words, one a row
    broken: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """In a word."""
        return "not measured" if not self.measured else "holds" if not self.broken else "does not hold"


def _required(entry: Entry) -> dict[str, str]:
    attention = "Transformer" in entry.layer or entry.family.framework is Framework.HUGGINGFACE
    onnx = "x" if attention else "fused"
    if entry.family.framework in (Framework.TORCH, Framework.HUGGINGFACE):
        return {"onnx": onnx, "torch": "x" if attention else "may"}
    return {"onnx": onnx, "saved_model": "x"}


REQUIRED = {row: _required(entry) for row, entry in ENTRIES.items()}
"""Row -> artifact -> `fused`, `x` or `may`: what the table asks for. Its cells of TensorFlow 2 declare their gates."""


def check_bounds(rows: dict[str, dict[str, Any]]) -> list[Bound]:
    """Hold the rows' figures against what the table promises."""
    cells = {(cell["row"], cell["artifact"]): cell for one in rows.values() for cell in one["cells"]}
    return [
        _gate_bound(rows, cells),
        *(
            _ratio_bound(
                f"fused ONNX at {shape} costs at most {limit} of {what}", _loop_pairs(rows, cells, key, source), most
            )
            for shape, key, limit, most in (("B1xT32", "b1_t32", "1/3", 1 / 3), ("B32xT64", "b32_t64", "0.9", 0.9))
            for what, source in (("its Loop form", "loop"), ("its SavedModel", "saved_model"))
        ),
        _ratio_bound(
            "Transformer ONNX at B32xT64 costs at most 1.2 of torch eager", _eager_pairs(rows, cells, "b32_t64"), 1.2
        ),
        _ratio_bound(
            "Transformer ONNX at B1xT32 costs at most 1/1.5 of torch eager",
            _eager_pairs(rows, cells, "b1_t32"),
            1 / 1.5,
        ),
        _variant_bound(cells),
    ]


Pair = tuple[str, float | None, float | None]  # row, what is bounded, what it is held against


def _gate_bound(rows: dict[str, dict[str, Any]], cells: dict[tuple[str, str], Cell]) -> Bound:
    measured, broken = [], []
    for row in rows:
        for artifact, need in REQUIRED[row].items():
            cell = cells.get((row, artifact))
            if need == "may" or cell is None:
                continue
            measured.append(f"{row} {artifact}: {cell['status']}")
            loops = {"Loop", "Scan"} & cell["recurrent_ops"].keys()
            wrong = cell["status"] == "refused" or (need == "fused" and (cell["status"] != "fused" or loops))
            if wrong:
                broken.append(f"{row} {artifact}: {cell['status']} ({cell['reason']})")
    return Bound("every `x` and `fused` passes the gate, no Loop or Scan in a `fused`", tuple(measured), tuple(broken))


def _loop_pairs(
    rows: dict[str, dict[str, Any]], cells: dict[tuple[str, str], Cell], key: str, source: str
) -> Iterable[Pair]:
    for row, known in rows.items():
        if known["loop"] is None:
            continue
        against = known["loop"] if source == "loop" else cells.get((row, source), {})
        yield row, cells[row, "onnx"][f"cpu_ms_{key}"], against.get(f"cpu_ms_{key}")


def _eager_pairs(rows: dict[str, dict[str, Any]], cells: dict[tuple[str, str], Cell], key: str) -> Iterable[Pair]:
    for row in rows:
        if REQUIRED[row].get("torch") == "x":
            cell = cells[row, "onnx"]
            yield row, cell[f"cpu_ms_{key}"], cell[f"source_cpu_ms_{key}"]


def _ratio_bound(name: str, pairs: Iterable[Pair], most: float) -> Bound:
    measured, broken = [], []
    for row, cost, against in pairs:
        if cost is None or not against:
            broken.append(f"{row}: not measured")
            continue
        line = f"{row}: {cost:.2f} of {against:.2f} ms = {cost / against:.2f}"
        measured.append(line)
        if cost / against > most:
            broken.append(line)
    return Bound(name, tuple(measured), tuple(broken))


def _variant_bound(cells: dict[tuple[str, str], Cell]) -> Bound:
    measured = [
        f"{row} {artifact}: {cell['status']}{': ' + cell['reason'] if cell['reason'] else ''}"
        for (row, artifact), cell in cells.items()
        if "-" in artifact
    ]
    # The gate holds them to their bounds: what misses is refused, and that is the bound kept.
    return Bound("int8: labels agree on 99 %, accuracy within 0.5 point; else refused", tuple(measured), ())


_LEGEND = (
    "`fused`: the recurrence is ONNX's RNN, GRU or LSTM with `sequence_lens`. `exact`: the framework's own graph,",
    "or one without recurrence. `loop`: right, but the recurrence is a Loop or Scan. Differences and padding",
    "invariance are the largest over all held-out rows and the grid; accuracy is that on held-out sentences, of the",
    "artifact and of its source. Costs are CPU milliseconds for a full batch, one thread, of the worker and of the",
    "source's own process; they were measured while other work shared the cores.",
)
_COLUMNS = (
    *("row", "artifact", "result", "recurrence", "difference", "padding", "accuracy", "source", "MB", "s"),
    *("CPU ms B1xT32", "source", "CPU ms B32xT64", "source"),
)
_TEXT_COLUMNS = 4


def render(rows: dict[str, dict[str, Any]], errors: dict[str, str], bounds: Sequence[Bound]) -> str:
    """Return the report as Markdown."""
    cells = [cell for one in rows.values() for cell in one["cells"]]
    count = {
        status: sum(cell["status"] == status for cell in cells) for status in ("fused", "exact", "loop", "refused")
    }
    lines = [
        "# Every model into every artifact",
        "",
        f"{len(rows)} of {len(ENTRIES)} rows, {len(cells)} artifacts: "
        + ", ".join(f"{number} {status}" for status, number in count.items())
        + ".",
        f"Written by `lockstep export matrix`; Python {platform.python_version()}, {usable_cores()} cores.",
        "",
        *_LEGEND,
        "",
        f"| {' | '.join(_COLUMNS)} |",
        f"|{' --- |' * _TEXT_COLUMNS}{' --: |' * (len(_COLUMNS) - _TEXT_COLUMNS)}",
    ]
    lines += [_line(cell) for cell in cells]
    lines += ["", "## Bounds", "", "| bound | verdict | worst |", "| --- | --- | --- |"]
    lines += [f"| {bound.name} | {bound.verdict} | {_worst(bound)} |" for bound in bounds]
    for bound in bounds:
        if bound.broken:
            lines += ["", f"Not kept: {bound.name}:", "", *[f"- {line}" for line in bound.broken]]
    lines += [
        "",
        "## Loop forms, for comparison",
        "",
        "The same model through tf2onnx alone, which makes a Loop or Scan.",
        "",
    ]
    lines += ["| row | operators | CPU ms B1xT32 | CPU ms B32xT64 |", "| --- | --- | --: | --: |"]
    for row, known in rows.items():
        if known["loop"] is not None:
            loop = known["loop"]
            costs = " | ".join(_ms(loop.get(f"cpu_ms_{shape}")) for shape in SHAPES)
            lines.append(f"| {row} | {_operators(loop.get('recurrent_ops', {}))} | {costs} |")
    notes = [
        f"- `{cell['row']}` {cell['artifact']}: {cell['status']}: {cell['reason']}" for cell in cells if cell["reason"]
    ]
    if notes:
        lines += ["", "## What was refused, and what is slower or less exact than could be", "", *notes]
    if errors:
        lines += ["", "## Rows that could not be tried", "", *[f"- `{row}`: {why}" for row, why in errors.items()]]
    return "\n".join(lines) + "\n"


def _line(cell: Cell) -> str:
    values = (
        cell["row"],
        cell["artifact"],
        cell["status"],
        _operators(cell["recurrent_ops"]),
        _small(cell["max_abs_diff"]),
        _small(cell["padding_invariance"]),
        _share(cell["accuracy_sentences"]),
        _share(cell["source_accuracy_sentences"]),
        f"{cell['bytes'] / 1e6:.2f}" if cell["bytes"] is not None else "",
        f"{cell['export_s']:.0f}",
        _ms(cell["cpu_ms_b1_t32"]),
        _ms(cell["source_cpu_ms_b1_t32"]),
        _ms(cell["cpu_ms_b32_t64"]),
        _ms(cell["source_cpu_ms_b32_t64"]),
    )
    return "| " + " | ".join(values) + " |"


def _worst(bound: Bound) -> str:
    ratios = [line for line in bound.measured if " = " in line]
    return max(ratios, key=lambda line: float(line.rpartition(" = ")[2])) if ratios else f"{len(bound.measured)} cells"


def _operators(counts: dict[str, int]) -> str:
    return " ".join(f"{count} {kind}" for kind, count in counts.items())


def _small(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _summary(cells: Sequence[Cell], errors: dict[str, str], bounds: Sequence[Bound], order: Order) -> str:
    lines = [f"{len(cells)} artifacts of {len({cell['row'] for cell in cells})} rows; {len(errors)} rows with errors"]
    for bound in bounds:
        lines.append(f"{bound.verdict:>13}  {bound.name} ({_worst(bound)})")
        lines += [f"               {line}" for line in bound.broken]
    for cell in cells:
        if cell["status"] in ("refused", "loop"):
            lines.append(f"{cell['row']} {cell['artifact']}: {cell['status']}: {cell['reason']}")
    return "\n".join([*lines, f"report: {order.report}; figures: {order.data}"])
