"""`python -m benchmarks.simulate`: policies and dispatch orders on given costs, in virtual time.

Without arguments: the tables of `benchmarks/costs`, with the lengths of the benchmark's texts; every policy, and every
order of `least_cost` at several bounds on waiting, at loads given as fractions of what `none` saturates at. Writes a
table and a page of plots into `reports/simulation/`.

    --costs FILE        a cost table, or a file of a server's state folder (`cost-*.json`); may be repeated
    --arrivals FILE     recorded arrivals instead of Poisson ones: JSON lines of {"at_s": 0.1, "tokens": 27}; the loads
                        are then factors of speed
    --rows N            rows of each run; a million takes minutes
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, get_args

import numpy as np
from numpy.typing import NDArray

from benchmarks import cost_tables
from benchmarks.cost_tables import CostTable
from benchmarks.simulation import Arrivals, Outcome, Setting, saturate, simulate
from lockstep.cores import usable_cores
from lockstep.server.scheduling.policies import POLICIES
from lockstep.server.scheduling.policy import Limits, Order

COSTS: Final = Path(__file__).parent / "costs"
LENGTHS: Final = COSTS / "lengths.json"
SATURATED: Final = "saturated"

_IN_FLIGHT: Final = 256
_MAX_ROWS: Final = 64
_LONGEST_SHARE: Final = 0.05  # of the rows, by length: whom an order that prefers short rows may starve


@dataclass(frozen=True, slots=True)
class Candidate:
    """A policy with its parameters."""

    policy: str
    order: Order | None = None  # of least_cost
    max_wait_ms: int | None = None  # of least_cost

    @property
    def name(self) -> str:
        """How it is called in tables."""
        return f"{self.order}, {self.max_wait_ms} ms" if self.order else self.policy

    def limits(self, table: CostTable) -> Limits:
        """Return the bounds that it runs under."""
        rows = min(32 if self.policy == "first_come" else _MAX_ROWS, table.max_rows)
        return Limits(
            max_rows=rows,
            max_wait_ns=(self.max_wait_ms or 1) * 1_000_000,
            order=self.order or "shortest",
        )


@dataclass(frozen=True, slots=True)
class Task:
    """One run."""

    table: CostTable
    lengths: NDArray[np.int64]
    candidate: Candidate
    load: str  # "saturated", or a fraction
    rate: float  # rows a second; 0 where saturated
    rows: int
    overhead_ms: float
    noise: float
    seed: int
    recorded: tuple[tuple[float, ...], tuple[int, ...]] | None = None  # at_s, tokens; `rate` is then a factor of speed


@dataclass(frozen=True, slots=True)
class Line:
    """One run's figures; ms where nothing else is said."""

    table: str
    policy: str
    order: str
    max_wait_ms: int | None
    load: str
    offered_per_s: float
    rows_per_s: float
    p50: float
    p99: float
    longest_wait: float
    p99_of_longest: float  # of the longest twentieth of the rows
    over_a_second: float  # share of the rows that waited longer than that
    batch_rows: float
    padding: float
    refused: float  # share of the rows

    @property
    def name(self) -> str:
        """How its candidate is called."""
        return f"{self.order}, {self.max_wait_ms} ms" if self.order else self.policy


def run(task: Task) -> Line:
    """Simulate one task; blocks."""
    table, candidate = task.table, task.candidate
    setting = Setting(
        POLICIES[candidate.policy],
        candidate.limits(table),
        table.cost_ns,
        workers=table.workers,
        overhead_ns=int(task.overhead_ms * 1e6),
        noise=task.noise,
        seed=task.seed,
    )
    lengths = np.minimum(task.lengths, table.max_length)
    if task.load == SATURATED:
        outcome = saturate(lengths, task.rows, _IN_FLIGHT, setting)
    elif task.recorded is not None:
        at_s, tokens = task.recorded
        cut = np.minimum(np.array(tokens), table.max_length).tolist()
        outcome = simulate(Arrivals.recorded(at_s, cut, task.rate), setting)
    else:
        outcome = simulate(Arrivals.poisson(lengths, task.rate, task.rows, task.seed), setting)
    return _line(task, outcome)


def capacity(table: CostTable, lengths: NDArray[np.int64], overhead_ms: float) -> float:
    """Return the rows a second that `none` saturates at: arithmetic, as every row is a batch."""
    costs_ms = table.cost_ns[1, np.minimum(lengths, table.max_length)] / 1e6 + overhead_ms
    return table.workers * 1e3 / float(costs_ms.mean())


def candidates(orders: Sequence[Order], waits_ms: Sequence[int]) -> list[Candidate]:
    """Return every policy, and `least_cost` in every order with every bound."""
    plain = [Candidate(name) for name in POLICIES if name != "least_cost"]
    return plain + [Candidate("least_cost", order, wait_ms) for order in orders for wait_ms in waits_ms]


def markdown(lines: Iterable[Line]) -> str:
    """Return a table a cost table and load."""
    parts: list[str] = []
    last = None
    for line in lines:
        if last != (line.table, line.load):
            last = (line.table, line.load)
            load = "saturated" if line.load == SATURATED else f"load {line.load}: {line.offered_per_s:,.0f} rows/s"
            parts += [f"\n## {line.table}, {load}\n", _HEAD, "| --- |" + " ---: |" * _HEAD.count(" | ")]
        parts.append(
            f"| {line.name} | {line.rows_per_s:,.0f} | {line.p50:.3g} | {line.p99:.3g} | {line.longest_wait:,.0f} | "
            f"{line.p99_of_longest:.3g} | {line.over_a_second:.2%} | {line.batch_rows:.1f} | {line.padding:.2f} | "
            f"{line.refused:.1%} |"
        )
    return "\n".join(parts) + "\n"


_HEAD: Final = (
    "| policy | rows/s | p50 ms | p99 ms | longest wait ms | p99 ms of the longest rows | waits over 1 s "
    "| rows a batch | padded / tokens | refused |"
)


def page(lines: Sequence[Line]) -> str:
    """Return a self-contained page: percentiles by load for each policy; orders and bounds against each other."""
    from plotly import graph_objects, io
    from plotly.subplots import make_subplots

    figures = []
    for table in dict.fromkeys(line.table for line in lines):
        mine = [line for line in lines if line.table == table]
        loads = [load for load in dict.fromkeys(line.load for line in mine) if load != SATURATED]
        shown = dict.fromkeys(line.name for line in mine)
        figure = make_subplots(1, 3, subplot_titles=("p50, ms", "p99, ms", "longest wait, ms"))
        for number, name in enumerate(shown):
            for column, value in enumerate(("p50", "p99", "longest_wait"), 1):
                points = {line.load: getattr(line, value) for line in mine if line.name == name}
                colour = _COLOURS[number % len(_COLOURS)]
                figure.add_trace(
                    graph_objects.Scatter(
                        x=[float(load) for load in loads if load in points],
                        y=[points[load] for load in loads if load in points],
                        name=name,
                        legendgroup=name,
                        showlegend=column == 1,
                        line={"color": colour, "dash": _DASHES[number // len(_COLOURS) % len(_DASHES)]},
                    ),
                    1,
                    column,
                )
        figure.update_xaxes(title="load, of what none saturates at")
        figure.update_yaxes(type="log")
        figure.update_layout(title=table, height=520, template="plotly_white")
        figures.append(figure)
        bars = graph_objects.Figure(layout={"title": f"{table}: saturated, rows a second", "height": 380})
        saturated = [line for line in mine if line.load == SATURATED]
        bars.add_trace(
            graph_objects.Bar(x=[line.name for line in saturated], y=[line.rows_per_s for line in saturated])
        )
        bars.update_layout(template="plotly_white")
        figures.append(bars)
    bodies = [
        io.to_html(figure, full_html=False, include_plotlyjs=number == 0) for number, figure in enumerate(figures)
    ]
    head = '<!doctype html><meta charset="utf-8"><title>Lockstep: policies in simulation</title>'
    return f"{head}<style>body{{font-family:sans-serif;margin:2em}}</style>{''.join(bodies)}"


_COLOURS: Final = ("#3b6fe0", "#e8812b", "#c2417c", "#2a9d7f", "#8b5fd6", "#b58a00", "#4ba3c7", "#707a8a")
_DASHES: Final = ("solid", "dot", "dash")


def main() -> None:
    """Simulate what the command line asks for."""
    options = _parse()
    tables = [cost_tables.read(path) for path in options.costs or sorted(COSTS.glob("*.json")) if path != LENGTHS]
    lengths = _lengths(options.lengths)
    recorded = _recorded(options.arrivals) if options.arrivals else None
    tasks = [task for table in tables for task in _tasks(table, lengths, recorded, options)]
    print(f"{len(tasks)} runs of {options.rows:,} rows")
    began_s = time.monotonic()
    lines: list[Line] = []
    with ProcessPoolExecutor(options.processes) as pool:
        for line in pool.map(run, tasks):
            lines.append(line)
            done = f"[{time.monotonic() - began_s:4.0f} s] {len(lines)}/{len(tasks)}"
            figures = f"{line.rows_per_s:,.0f}/s, p50 {line.p50:.3g} ms, p99 {line.p99:.3g} ms"
            print(f"{done} {line.table}, {line.load}, {line.name}: {figures}", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    notes = [f"- {table.label}: {'measured' if table.measured else 'NOT MEASURED'}. {table.note}" for table in tables]
    title = "# Policies in simulation\n\n" + "\n".join(notes) + "\n"
    (options.out / "simulation.md").write_text(title + markdown(lines), encoding="utf-8")
    (options.out / "simulation.json").write_text(json.dumps([asdict(line) for line in lines], indent=1) + "\n")
    (options.out / "simulation.html").write_text(page(lines), encoding="utf-8")
    print(f"{options.out}/simulation.md, .json and .html are written")


def _tasks(
    table: CostTable,
    lengths: NDArray[np.int64],
    recorded: tuple[tuple[float, ...], tuple[int, ...]] | None,
    options: argparse.Namespace,
) -> Iterable[Task]:
    saturation = capacity(table, lengths, options.overhead_ms)
    loads = [] if recorded is not None else [SATURATED]
    for load in [*loads, *options.loads]:
        rate = 0.0 if load == SATURATED else float(load) * (1.0 if recorded is not None else saturation)
        for candidate in candidates(options.orders, options.waits_ms):
            yield Task(
                table,
                lengths,
                candidate,
                str(load),
                rate,
                options.rows,
                options.overhead_ms,
                options.noise,
                options.seed,
                recorded,
            )


def _line(task: Task, outcome: Outcome) -> Line:
    latency, wait, served = outcome.latency_ms, outcome.wait_ms, outcome.served
    length = outcome.arrivals.length[served]
    longest = latency[length >= np.quantile(length, 1 - _LONGEST_SHARE)]
    return Line(
        table=task.table.label,
        policy=task.candidate.policy,
        order=task.candidate.order or "",
        max_wait_ms=task.candidate.max_wait_ms,
        load=task.load,
        offered_per_s=task.rate,
        rows_per_s=outcome.rows_per_s,
        p50=float(np.percentile(latency, 50)),
        p99=float(np.percentile(latency, 99)),
        longest_wait=float(wait.max()),
        p99_of_longest=float(np.percentile(longest, 99)),
        over_a_second=float((wait > 1_000).mean()),
        batch_rows=float(np.count_nonzero(served)) / outcome.batches,
        padding=outcome.padding,
        refused=outcome.refused / len(served),
    )


def _lengths(path: Path) -> NDArray[np.int64]:
    """Read {"length": count, ...} into one length a row, tokens."""
    counts = json.loads(path.read_text())
    lengths: NDArray[np.int64] = np.repeat(
        np.array([int(length) for length in counts], dtype=np.int64), np.array(list(counts.values()))
    )
    return lengths


def _recorded(path: Path) -> tuple[tuple[float, ...], tuple[int, ...]]:
    rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    return tuple(float(row["at_s"]) for row in rows), tuple(int(row["tokens"]) for row in rows)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.simulate", description=str(__doc__).partition("\n\n")[0])
    parser.add_argument("--costs", type=Path, action="append", metavar="FILE", help="a cost table; repeatable")
    parser.add_argument("--lengths", type=Path, default=LENGTHS, metavar="FILE", help='{"length": count, ...}')
    parser.add_argument("--arrivals", type=Path, metavar="FILE", help="recorded arrivals, JSON lines")
    parser.add_argument("--rows", type=int, default=20_000, metavar="N")
    parser.add_argument("--loads", type=_floats, default=[0.5, 0.8, 0.95, 1.3], metavar="A,B")
    parser.add_argument("--orders", type=_orders, default=list(get_args(Order)), metavar="A,B")
    parser.add_argument("--waits-ms", type=_integers, default=[50, 200, 400, 1_000], metavar="A,B")
    parser.add_argument("--overhead-ms", type=float, default=0.3, help="of a batch, beside its cost")
    parser.add_argument("--noise", type=float, default=0.1, help="standard deviation of ln(actual / predicted)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=usable_cores())
    parser.add_argument("--out", type=Path, default=Path("reports/simulation"), metavar="DIR")
    return parser.parse_args()


def _floats(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def _integers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _orders(text: str) -> list[Order]:
    by_name = {name: name for name in get_args(Order)}
    return [by_name[part] for part in text.split(",")]


if __name__ == "__main__":
    main()
