"""The rows of the performance report: what is measured for each, as experiments of interleaved conditions.

An experiment opens what it needs (servers, a crew of offline processes), all at once and idle, and offers conditions:
functions that measure for some seconds. A row's value comes from the conditions of one round. Figures are plain
numbers by name, so that results can be kept and read again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Final, get_args

import numpy as np

from benchmarks import generator, offline
from benchmarks.compare import Bound, median_absolute_error, percentile
from benchmarks.gateway import Generator, served
from benchmarks.generator import LonePlan, PoissonPlan, SaturatedPlan, Target, Way, Window
from benchmarks.hop import HopPlan, hop
from benchmarks.models import BenchModel, BenchName, prepare
from benchmarks.offline import BUCKETS, ByLength, Split, buckets_of
from benchmarks.workload import MAX_TOKENS, Workload
from lockstep.cores import usable_cores
from lockstep.server.core.messages import Ids
from lockstep.server.scheduling.policy import Order

Figures = dict[str, float]
Round = Mapping[str, Mapping[str, float]]  # by condition
Conditions = dict[str, Callable[[], Figures]]

ROWS_IN_FLIGHT: Final = 256
ROWS_A_CALL: Final = 64
CORES: Final = usable_cores()
_SPLITS: Final = (Split(CORES, 1), Split(1, CORES))
_POLICIES: Final[Mapping[str, tuple[str, ...]]] = {
    "least_cost": (),
    "none": ("--policy", "none"),
    "token_budget": ("--policy", "token_budget", "--budget-tokens", "512"),
    "first_come": ("--policy", "first_come", "--max-batch-rows", "32"),
    **{f"order {order}": ("--order", order) for order in get_args(Order)},
}
"""Flags by condition: the policies, and the orders of `least_cost`."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How long things are measured."""

    window_s: Mapping[BenchName, float]
    warm_s: Mapping[BenchName, float]  # until the mix of lengths in the queue is steady
    offline_texts: Mapping[BenchName, int]
    search_texts: Mapping[BenchName, int]
    poisson_calls: int  # a segment; those of all rounds are the samples
    poisson_warm_calls: int
    lone_texts: Mapping[BenchName, int]
    echoes: int


FULL: Final = Effort(
    window_s={"bench-bilstm": 6.0, "bench-minilm": 14.0},
    warm_s={"bench-bilstm": 2.5, "bench-minilm": 6.0},
    offline_texts={"bench-bilstm": 4_000, "bench-minilm": 1_000},
    search_texts={"bench-bilstm": 4_000, "bench-minilm": 400},
    poisson_calls=2_000,
    poisson_warm_calls=100,
    lone_texts={"bench-bilstm": 400, "bench-minilm": 150},
    echoes=3_000,
)
QUICK: Final = Effort(
    window_s={"bench-bilstm": 2.0, "bench-minilm": 4.0},
    warm_s={"bench-bilstm": 1.0, "bench-minilm": 3.0},
    offline_texts={"bench-bilstm": 1_000, "bench-minilm": 100},
    search_texts={"bench-bilstm": 1_000, "bench-minilm": 60},
    poisson_calls=150,
    poisson_warm_calls=10,
    lone_texts={"bench-bilstm": 60, "bench-minilm": 20},
    echoes=300,
)


@dataclass(frozen=True, slots=True)
class Row:
    """A figure of the report. `value` reads it off one round."""

    key: str  # what `--only` takes
    figure: str  # in words
    bound: Bound | None
    needs: tuple[str, ...]  # conditions
    value: Callable[[Round], float]
    unit: str = ""  # "" for a ratio


@dataclass(frozen=True, slots=True)
class Experiment:
    """Conditions measured in rotation, and the rows that come of them."""

    key: str
    rows: tuple[Row, ...]
    open: Callable[[Bench, ExitStack, frozenset[str]], Conditions]
    extra: bool = False  # measured only where `--only` names it: evidence for a default, not a row of the table


@dataclass(slots=True)
class Bench:
    """What all experiments share. `bounds` keeps the offline bound of each model once it was searched."""

    cache: Path
    servers: Path
    workload: Workload
    effort: Effort
    generator: Generator
    say: Callable[[str], None]
    bounds: dict[str, dict[str, float]] = field(default_factory=dict)
    models: dict[BenchName, BenchModel] = field(default_factory=dict)

    def model(self, name: BenchName) -> BenchModel:
        """Return a model, made at its first use."""
        if name not in self.models:
            self.models[name] = prepare(name, self.cache, self.say)
        return self.models[name]

    def rows(self, name: BenchName, texts: int) -> list[Ids]:
        """Return the first texts of the workload, tokenised."""
        return offline.encode(self.model(name).tokenizer, MAX_TOKENS, self.workload.first(texts).texts)

    def crew(self, name: BenchName, texts: int) -> Callable[[Split], offline.Crew]:
        """Return what makes a crew for the first texts of the workload."""
        model = self.model(name)
        return offline.crew_of(model.onnx, self.rows(name, texts), model.published.manifest.pad_id)

    def bound(self, name: BenchName) -> tuple[Split, int, ByLength]:
        """Return the best split and area, and what a text costs there, tokenising included; searched once."""
        if name not in self.bounds:
            self.say(f"searching the offline bound of {name}")
            found = offline.search(self.crew(name, self.effort.search_texts[name]), _SPLITS, offline.AREAS)
            for one in found:
                self.say(
                    f"  {one.split}, {one.area:,} padded tokens: {one.cpu_ms:.3f} CPU ms, {one.texts_per_s:,.0f}/s"
                )
            cost = found[0].cost + self.tokenizing(name)[1]
            self.bounds[name] = {
                "processes": found[0].split.processes,
                "threads": found[0].split.threads,
                "area": found[0].area,
                **_of_cost(cost),
            }
        best = self.bounds[name]
        split = Split(int(best["processes"]), int(best["threads"]))
        return split, int(best["area"]), _cost(best)

    def tokenizing(self, name: BenchName) -> tuple[float, ByLength]:
        """Return the CPU time of tokenising a text, ms, and its parts."""
        texts = self.workload.first(1_000).texts
        return offline.tokenizing_cost(self.model(name).tokenizer, MAX_TOKENS, texts)

    @contextmanager
    def server(self, name: BenchName, *flags: str) -> Iterator[Target]:
        """Serve a model with one worker a core of one thread each."""
        with served(self.model(name), self.servers, *flags, instances=CORES) as target:
            yield target

    def saturated(self, name: BenchName, target: Target, way: Way, rows_a_call: int, stretch: float = 1.0) -> Figures:
        """Measure a server at saturation; `stretch` makes the window longer where few batches fit into it."""
        plan = SaturatedPlan(
            target,
            self.workload.texts,
            way,
            rows_a_call,
            ROWS_IN_FLIGHT,
            self.effort.warm_s[name],
            self.effort.window_s[name] * stretch,
        )
        window = self.generator.run(generator.saturate, plan)
        return figures_of(window, self.bound(name)[2])

    def offline(self, name: BenchName, crew: offline.Crew) -> Figures:
        """Measure the offline bound once more, in its best area."""
        run = crew.run(self.bound(name)[1])
        tokenize_ms, tokenizing = self.tokenizing(name)
        whole = run.cost + tokenizing
        return {
            "texts_per_s": run.texts_per_s,
            "cpu_ms": run.cpu_ms,
            "tokenize_cpu_ms": tokenize_ms,
            "padding": run.padding,
            **_of_cost(whole),
        }


def _of_cost(cost: ByLength) -> Figures:
    """Return a cost as figures, one a bucket."""
    return {f"bucket_{number}_ms": value for number, value in enumerate(cost.row_ms)}


def _cost(figures: Mapping[str, float]) -> ByLength:
    """Read what `_of_cost` made."""
    return ByLength(tuple(figures[f"bucket_{number}_ms"] for number in range(BUCKETS)))


def _rows_by_length(figures: Mapping[str, float]) -> list[float]:
    return [figures[f"bucket_{number}_rows"] for number in range(BUCKETS)]


def figures_of(window: Window, cost: ByLength) -> Figures:
    """Return a window's figures; `work_per_s` is what its rows cost at the offline bound, CPU ms a second."""
    found: Figures = {name: float(value) for name, value in asdict(window).items() if isinstance(value, int | float)}
    found |= {f"bucket_{number}_rows": float(rows) for number, rows in enumerate(window.rows_by_length)}
    found |= {
        "rows_per_s": window.rows_per_s,
        "cpu_ms": window.cpu_ms,
        "gateway_cpu_ms": window.gateway_cpu_s * 1e3 / window.rows,
        "worker_cpu_ms": window.worker_cpu_s * 1e3 / window.rows,
        "batch_rows": window.rows / window.batches,
        "padding": window.padding,
        "work_per_s": cost.ms(window.rows_by_length) / window.seconds,
    }
    if any(name.startswith("predicted_cost_ratio") for name in window.counters):
        found["prediction_error"] = median_absolute_error(window.counters)
    return found


def _efficiency(condition: str) -> Callable[[Round], float]:
    def value(measured: Round) -> float:
        window = measured[condition]
        return _cost(measured["offline"]).ms(_rows_by_length(window)) / (window["cpu_ms"] * window["rows"])

    return value


def _figure(condition: str, name: str) -> Callable[[Round], float]:
    return lambda measured: measured[condition][name]


def _over(condition: str, other: str, name: str) -> Callable[[Round], float]:
    return lambda measured: measured[condition][name] / measured[other][name]


def _minus(condition: str, other: str, name: str) -> Callable[[Round], float]:
    return lambda measured: measured[condition][name] - measured[other][name]


def _open_efficiency(name: BenchName, bench: Bench, stack: ExitStack, wanted: frozenset[str]) -> Conditions:
    split, _, _ = bench.bound(name)
    crew = stack.enter_context(bench.crew(name, bench.effort.offline_texts[name])(split))
    target = stack.enter_context(bench.server(name))
    conditions: Conditions = {
        "offline": lambda: bench.offline(name, crew),
        "unary": lambda: bench.saturated(name, target, "unary", 1),
        "stream": lambda: bench.saturated(name, target, "stream", 1),
        "stream_apart": lambda: bench.saturated(name, target, "stream_apart", 1),
        "calls_of_64": lambda: bench.saturated(name, target, "unary", ROWS_A_CALL),
    }
    return {key: condition for key, condition in conditions.items() if key in wanted}


def _open_policies(name: BenchName, bench: Bench, stack: ExitStack, wanted: frozenset[str]) -> Conditions:
    bench.bound(name)
    conditions: Conditions = {}
    for policy in _POLICIES:
        if policy in wanted:
            target = stack.enter_context(bench.server(name, *_POLICIES[policy]))
            stretch = 2.5 if policy == "first_come" else 1.0  # its batches take seconds
            conditions[policy] = partial(bench.saturated, name, target, "unary", ROWS_A_CALL, stretch)
    return conditions


def _open_poisson(name: BenchName, load: float, bench: Bench, stack: ExitStack, wanted: frozenset[str]) -> Conditions:
    targets = {policy: stack.enter_context(bench.server(name, *_POLICIES[policy])) for policy in sorted(wanted)}
    saturated = bench.saturated(name, targets["none"], "unary", 1)
    # rows a second of a load that has the workload's own mix of lengths, whatever the window's was
    lengths = [len(row) for row in bench.rows(name, len(bench.workload.texts))]
    shares = np.bincount(buckets_of(lengths), minlength=BUCKETS) / len(lengths)
    typical_ms = bench.bound(name)[2].ms(shares.tolist())
    rate = load * saturated["work_per_s"] / typical_ms
    bench.say(f"{name}: none saturates at {rate / load:,.0f}/s; Poisson arrivals at {rate:,.0f}/s")
    seeds = dict.fromkeys(targets, 0)

    def measure(policy: str) -> Figures:
        # the same arrivals of the same texts for both policies of a pair
        seeds[policy] += 1
        effort = bench.effort
        plan = PoissonPlan(
            targets[policy],
            bench.workload.texts,
            rate,
            effort.poisson_calls,
            effort.poisson_warm_calls,
            seeds[policy],
        )
        latencies = bench.generator.run(generator.poisson, plan)
        return {**_latency(latencies), "rate": rate}

    return {policy: partial(measure, policy) for policy in targets}


def _open_lone(name: BenchName, bench: Bench, stack: ExitStack, wanted: frozenset[str]) -> Conditions:
    target = stack.enter_context(bench.server(name))
    model, texts = bench.model(name), bench.workload.first(bench.effort.lone_texts[name]).texts
    bare = partial(offline.bare_ms, model.onnx, model.tokenizer, MAX_TOKENS, model.published.manifest.pad_id)

    def measure(way: Way) -> Figures:
        return _latency(bench.generator.run(generator.lone, LonePlan(target, texts, way)))

    conditions: Conditions = {
        "bare": lambda: _latency(bench.generator.run(bare, texts)),
        "unary": lambda: measure("unary"),
        "stream": lambda: measure("stream"),
    }
    return {key: condition for key, condition in conditions.items() if key in wanted}


def _open_hop(bench: Bench, stack: ExitStack, wanted: frozenset[str]) -> Conditions:
    artifact = bench.model("bench-bilstm").onnx
    plan = HopPlan(artifact, echoes=bench.effort.echoes)
    return {"hop": lambda: asdict(bench.generator.run(hop, plan))}


def _latency(latencies_ms: Sequence[float]) -> Figures:
    return {
        "p50_ms": percentile(latencies_ms, 50),
        "p99_ms": percentile(latencies_ms, 99),
        "mean_ms": sum(latencies_ms) / len(latencies_ms),
        "longest_ms": max(latencies_ms),
        "samples": float(len(latencies_ms)),
    }


def _efficiency_rows(model: str, unary: float, batch: float, stream: float | None) -> tuple[Row, ...]:
    def row(key: str, condition: str, words: str, bound: Bound | None) -> Row:
        figure = f"{words}: CPU efficiency, saturated, {_TITLE[model]}"
        return Row(f"cpu-efficiency-{model}-{key}", figure, bound, ("offline", condition), _efficiency(condition))

    return (
        Row(
            f"offline-{model}",
            f"offline bound, {_TITLE[model]}: CPU of a text, tokenising included",
            None,
            ("offline",),
            lambda measured: measured["offline"]["cpu_ms"] + measured["offline"]["tokenize_cpu_ms"],
            "ms",
        ),
        row("unary", "unary", "one text a call", Bound(">=", unary)),
        row("stream", "stream", "one text a message on a stream", None if stream is None else Bound(">=", stream)),
        row("stream-apart", "stream_apart", "the same, each answer in a message of its own", None),
        row("64", "calls_of_64", "64 texts a call", Bound(">=", batch)),
    )


def _policy_rows(model: str, first_come: float, none: float, token_budget: float) -> tuple[Row, ...]:
    bounds = {"first_come": first_come, "none": none, "token_budget": token_budget}
    words = {"first_come": "first_come (32 rows)", "none": "none", "token_budget": "token_budget (512)"}
    rows = [
        Row(
            f"least-cost-over-{policy.replace('_', '-')}-{model}",
            f"least_cost over {words[policy]}: throughput, 64 texts a call, {_TITLE[model]}",
            Bound(">=", bound),
            ("least_cost", policy),
            _over("least_cost", policy, "work_per_s"),
        )
        for policy, bound in bounds.items()
    ]
    padding = Row(
        f"padding-{model}",
        f"padded tokens / tokens at saturation, 64 texts a call, {_TITLE[model]}",
        Bound("<=", 1.10),
        ("least_cost",),
        _figure("least_cost", "padding"),
    )
    prediction = Row(
        f"prediction-{model}",
        f"predicted / actual CPU time of a batch, median absolute error, {_TITLE[model]}",
        Bound("<=", 0.15),
        ("least_cost",),
        _figure("least_cost", "prediction_error"),
    )
    return (*rows, padding, prediction)


def _poisson_rows(load: int, p50: float, p99: float) -> tuple[Row, ...]:
    return tuple(
        Row(
            f"poisson-{load}-{name}",
            f"least_cost over none: {name}, Poisson at {load} % of what none saturates at, MiniLM",
            Bound("<=", bound),
            ("none", "least_cost"),
            _over("least_cost", "none", f"{name}_ms"),
        )
        for name, bound in (("p50", p50), ("p99", p99))
    )


def _lone_rows(model: str) -> tuple[Row, ...]:
    return tuple(
        Row(
            f"lone-{model}-{way}",
            f"lone request, {words}: p50 minus the bare tokenise + run, {_TITLE[model]}",
            Bound("<=", 1.5),
            ("bare", way),
            _minus(way, "bare", "p50_ms"),
            "ms",
        )
        for way, words in (("unary", "a call"), ("stream", "a message on a stream"))
    )


def _order_rows(model: str) -> tuple[Row, ...]:
    return tuple(
        Row(
            f"order-{order.replace('_', '-')}-{model}",
            f"order {order} over oldest: throughput, 64 texts a call, {_TITLE[model]}",
            None,
            ("order oldest", f"order {order}"),
            _over(f"order {order}", "order oldest", "work_per_s"),
        )
        for order in get_args(Order)
        if order != "oldest"
    )


def _order_latency_rows() -> tuple[Row, ...]:
    return tuple(
        Row(
            f"order-{order.replace('_', '-')}-95-{name}",
            f"order {order} over none: {name}, Poisson at 95 % of what none saturates at, MiniLM",
            None,
            ("none", f"order {order}"),
            _over(f"order {order}", "none", f"{name}_ms"),
        )
        for order in get_args(Order)
        for name in ("p50", "p99")
    )


_TITLE: Final = {"bilstm": "BiLSTM", "minilm": "MiniLM"}

EXPERIMENTS: Final = (
    Experiment(
        "efficiency-bilstm",
        _efficiency_rows("bilstm", unary=0.53, batch=0.85, stream=0.70),
        partial(_open_efficiency, "bench-bilstm"),
    ),
    Experiment(
        "efficiency-minilm",
        _efficiency_rows("minilm", unary=0.93, batch=0.95, stream=None),
        partial(_open_efficiency, "bench-minilm"),
    ),
    Experiment(
        "policies-bilstm",
        _policy_rows("bilstm", first_come=3.0, none=1.5, token_budget=1.4),
        partial(_open_policies, "bench-bilstm"),
    ),
    Experiment(
        "policies-minilm",
        _policy_rows("minilm", first_come=5.0, none=1.05, token_budget=1.4),
        partial(_open_policies, "bench-minilm"),
    ),
    Experiment("poisson-80", _poisson_rows(80, p50=0.7, p99=1.25), partial(_open_poisson, "bench-minilm", 0.80)),
    Experiment("poisson-95", _poisson_rows(95, p50=0.45, p99=1.2), partial(_open_poisson, "bench-minilm", 0.95)),
    Experiment("lone-bilstm", _lone_rows("bilstm"), partial(_open_lone, "bench-bilstm")),
    Experiment("lone-minilm", _lone_rows("minilm"), partial(_open_lone, "bench-minilm")),
    Experiment(
        "hop",
        (
            Row(
                "worker-round-trip",
                "worker round trip over a bare in-process call, 32 x 64",
                Bound("<=", 0.1),
                ("hop",),
                lambda measured: measured["hop"]["echo_ms"] - measured["hop"]["in_process_ms"],
                "ms",
            ),
        ),
        _open_hop,
    ),
    Experiment("orders-bilstm", _order_rows("bilstm"), partial(_open_policies, "bench-bilstm"), extra=True),
    Experiment("orders-minilm", _order_rows("minilm"), partial(_open_policies, "bench-minilm"), extra=True),
    Experiment("orders-95", _order_latency_rows(), partial(_open_poisson, "bench-minilm", 0.95), extra=True),
)
