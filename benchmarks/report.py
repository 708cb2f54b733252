"""The performance report: results kept as JSON, and the Markdown made from them. Measures nothing."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Final

import psutil

from benchmarks.compare import Estimate
from benchmarks.experiments import EXPERIMENTS, Row

FORMAT: Final = 2
NOTES: Final = "<!-- Below this line nothing is generated. -->"
"""What follows this line in the report is kept when it is written again."""

_PACKAGES: Final = ("onnxruntime-gpu", "grpcio", "uvloop", "numpy", "tokenizers", "protobuf")


@dataclass(slots=True)
class Measured:
    """The rounds of one row: figures by condition; or why there are none."""

    rounds: list[dict[str, dict[str, float]]] = field(default_factory=list)
    measured_at: str = ""  # UTC
    commit: str = ""
    load: float = 0.0  # load average of the last minute when it began
    seconds: float = 0.0  # of the experiment, for all its rows
    error: str = ""


@dataclass(slots=True)
class Results:
    """All that was measured. Mutable: rounds are added as they come, and saved."""

    circumstances: dict[str, str]
    bounds: dict[str, dict[str, float]] = field(default_factory=dict)  # the searched offline bound, by model
    rows: dict[str, Measured] = field(default_factory=dict)  # by key
    format: int = FORMAT

    def save(self, path: Path) -> None:
        """Write them as JSON; the file is whole at any time."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(self), indent=1) + "\n")
        os.replace(partial, path)

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read what `save` wrote. Raises `ValueError` for another format."""
        document = json.loads(path.read_text())
        if document.pop("format") != FORMAT:
            raise ValueError(f"{path} is of another format: remove it, and measure again")
        rows = {key: Measured(**row) for key, row in document.pop("rows").items()}
        return cls(**document, rows=rows)


def machine() -> dict[str, str]:
    """Describe the machine and the versions that matter."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    versions = ", ".join(f"{package} {version(package)}" for package in _PACKAGES)
    return {
        "machine": f"{model}, {os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release().partition('-')[0]}, Python {platform.python_version()}",
        "versions": versions,
    }


def commit() -> str:
    """Name the commit that is measured, and whether files of the server differ from it."""
    try:
        name = _git("rev-parse", "--short", "HEAD")
        changed = _git("status", "--porcelain", "--", "server", "protos", "lockstep")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{name}{' with changes' if changed else ''}"


def markdown(results: Results, command: str, kept: Path, notes: str) -> str:
    """Return the report of results that are kept in the file `kept`; `notes` follow what is generated."""
    parts = [
        "# Performance",
        "",
        f"Written by `{command}`; every round is in `{kept}`.",
        "",
        *(f"- {name}: {value}" for name, value in results.circumstances.items()),
        f"- measured: {_dates(results)}",
        "",
        "Measured is the median of interleaved pairs (A B, B A, ...), in brackets their minimum and maximum. A bound "
        "is *unsure* where it lies between those.",
        "",
        "| row | bound | measured | | pairs | commit |",
        "| --- | --- | --- | --- | --- | --- |",
        *(_line(row, results.rows.get(row.key)) for row in _rows(results)),
        "",
        _DEFINITIONS,
        "",
        "## What was measured",
        "",
        "Medians of the rounds, in absolute figures: they hold for this machine and its neighbours at that time.",
        "",
        *_absolute(results),
        NOTES,
    ]
    return "\n".join(parts) + "\n" + notes


def notes_of(path: Path) -> str:
    """Return what was written by hand below the generated part of a report; empty where there is none."""
    if not path.is_file():
        return ""
    return path.read_text(encoding="utf-8").partition(NOTES + "\n")[2]


def estimate(row: Row, measured: Measured) -> Estimate:
    """Return a row's figure."""
    return Estimate.of([row.value(one) for one in measured.rounds])


def shown(row: Row, value: float) -> str:
    """Return a figure with three significant digits and its unit."""
    text = f"{value:.3g}" if abs(value) < 1_000 else f"{value:,.0f}"
    return f"{text} {row.unit}".strip()


_DEFINITIONS: Final = """\
**CPU efficiency** is what the rows executed in a window cost at the offline bound (CPU time, tokenising included), over
the CPU time of all the server's processes in that window: rows by length bucket, of the server's own counters, times
what a row of that bucket cost offline in the same round, so that a window with more long texts than another is not
held against it.
The **offline bound** pads and executes length-sorted batches with the worker's own adapter and options, in the best
batch area and split of the cores; tokenising is in batches on one thread. **Throughput** is that same work a second.
**Saturated** is 256 rows in flight from one generator process that shares the cores; a window begins after a warm-up.
**Poisson**: one text a call, the same arrivals for both policies of a pair, latency from the intended start."""


def _line(row: Row, measured: Measured | None) -> str:
    bound = str(row.bound) if row.bound else "the yardstick" if row.key.startswith("offline") else "none"
    if measured is None or (not measured.rounds and not measured.error):
        return f"| {row.figure} | {bound} | not measured | | | |"
    if not measured.rounds:
        return f"| {row.figure} | {bound} | failed: {measured.error} | | | |"
    figure = estimate(row, measured)
    verdict = str(figure.verdict(row.bound)) if row.bound else ""
    if "missed" in verdict:
        verdict = f"**{verdict}**"
    interval = f"{shown(row, figure.low)} to {shown(row, figure.high)}"
    return (
        f"| {row.figure} | {bound} | {shown(row, figure.median)} ({interval}) | {verdict} | {figure.pairs} "
        f"| {measured.commit} |"
    )


def _absolute(results: Results) -> Iterable[str]:
    for experiment in EXPERIMENTS:
        conditions: dict[str, Sequence[Mapping[str, float]]] = {}
        seconds = 0.0
        for row in experiment.rows:
            if (measured := results.rows.get(row.key)) and measured.rounds:
                seconds = max(seconds, measured.seconds)
                for name in row.needs:
                    conditions[name] = [one[name] for one in measured.rounds]
        if not conditions:
            continue
        names = list(dict.fromkeys(name for rounds in conditions.values() for name in rounds[0] if name in _SHOWN))
        yield f"### {experiment.key} ({seconds:.0f} s)"
        yield ""
        yield f"| | {' | '.join(_SHOWN[name] for name in names)} |"
        yield f"| --- |{' --- |' * len(names)}"
        for condition, rounds in conditions.items():
            cells = [
                f"{statistics.median(one[name] for one in rounds):,.4g}" if name in rounds[0] else "" for name in names
            ]
            yield f"| {condition} | {' | '.join(cells)} |"
        yield ""


_SHOWN: Final = {
    "texts_per_s": "texts/s",
    "rows_per_s": "texts/s",
    "rate": "rate, 1/s",
    "cpu_ms": "CPU ms a text",
    "tokenize_cpu_ms": "tokenising, CPU ms",
    "gateway_cpu_ms": "gateway, CPU ms",
    "worker_cpu_ms": "workers, CPU ms",
    "batch_rows": "rows a batch",
    "padding": "padded / tokens",
    "prediction_error": "prediction error",
    "p50_ms": "p50 ms",
    "p99_ms": "p99 ms",
    "longest_ms": "longest ms",
    "samples": "samples",
    "echo_ms": "round trip, ms",
    "in_process_ms": "in one process, ms",
    "beside_execution_ms": "of a real batch, beside its execution, ms",
}


def _rows(results: Results) -> Iterable[Row]:
    """Return the rows of the report: those of every run, and of the others what was measured."""
    return (
        row for experiment in EXPERIMENTS for row in experiment.rows if not experiment.extra or row.key in results.rows
    )


def _dates(results: Results) -> str:
    dates = sorted({measured.measured_at[:10] for measured in results.rows.values() if measured.measured_at})
    loads = [measured.load for measured in results.rows.values() if measured.measured_at]
    if not dates:
        return "nothing yet"
    return (
        f"{' to '.join(dict.fromkeys([dates[0], dates[-1]]))}, load average before {min(loads):.1f} to {max(loads):.1f}"
    )


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()
