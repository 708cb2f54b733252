"""`python -m benchmarks.options`: evidence for defaults: session options, thread split, a batch prepared ahead.

    sessions    options of ONNX Runtime, each against the adapter's own: CPU and wall time of the same sorted batches
    splits      instances x threads of the real server, saturated
    ahead       one batch or two under way in each worker: what closing the gap between batches would gain

Every comparison runs in rotation; figures are medians of the rounds with their minimum and maximum.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.compare import Estimate, interleaved
from benchmarks.experiments import CORES, FULL, QUICK, ROWS_A_CALL, Bench, Figures
from benchmarks.gateway import Generator, served
from benchmarks.models import NAMES, BenchName
from benchmarks.offline import batches_of
from benchmarks.run import say
from benchmarks.workload import of_corpus
from lockstep.server.core.artifact import ArtifactSpec, Budget
from lockstep.server.core.messages import Ids
from lockstep.server.runtimes.base import feeds
from lockstep.server.runtimes.registry import ADAPTERS
from lockstep.server.runtimes.worker_process import Launch, WorkerProcess
from lockstep.server.text.padding import pad
from lockstep.zoo.corpus import fetch

if TYPE_CHECKING:
    import onnxruntime

_AREA: Final[Mapping[BenchName, int]] = {"bench-bilstm": 1_024, "bench-minilm": 512}
_TEXTS: Final[Mapping[BenchName, int]] = {"bench-bilstm": 1_500, "bench-minilm": 120}
_LEVELS: Final = ("ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL")


@dataclass(frozen=True, slots=True)
class Variant:
    """Session options. The defaults are what the adapter uses on a CPU."""

    threads: int = 1
    level: str = "ORT_ENABLE_ALL"
    disabled: tuple[str, ...] = ("SkipLayerNormFusion",)
    arena: bool = True
    pattern: bool = True
    spinning: bool = False
    entries: Mapping[str, str] = field(default_factory=dict)


VARIANTS: Final[Mapping[str, Variant]] = {
    "adapter": Variant(),
    "SkipLayerNormFusion on": Variant(disabled=()),
    "no arena": Variant(arena=False),
    "no memory pattern": Variant(pattern=False),
    "denormals as zero": Variant(entries={"session.set_denormal_as_zero": "1"}),
    **{level: Variant(level=level) for level in _LEVELS[:-1]},
    f"{CORES} threads": Variant(threads=CORES),
    f"{CORES} threads, spinning": Variant(threads=CORES, spinning=True),
}


def session(artifact: ArtifactSpec, variant: Variant) -> onnxruntime.InferenceSession:
    """Open a session."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = variant.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, variant.level)
    options.enable_cpu_mem_arena = variant.arena
    options.enable_mem_pattern = variant.pattern
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(variant.spinning)))
    for name, value in variant.entries.items():
        options.add_session_config_entry(name, value)
    return onnxruntime.InferenceSession(
        artifact.path, options, providers=["CPUExecutionProvider"], disabled_optimizers=list(variant.disabled)
    )


def sessions(artifact: ArtifactSpec, rows: list[Ids], area: int, rounds: int) -> list[dict[str, Figures]]:
    """Execute the same batches under every variant, in rotation; blocks."""
    padded = [pad([rows[row] for row in batch], 0) for batch in batches_of([len(row) for row in rows], area)]
    fed = [feeds(artifact, batch.ids, batch.lengths) for batch in padded]

    def measure(opened: Any) -> Figures:
        for inputs in (fed[0], fed[-1]):
            opened.run([artifact.logits.name], inputs)
        cpu_ns, wall_ns = time.process_time_ns(), time.monotonic_ns()
        for inputs in fed:
            opened.run([artifact.logits.name], inputs)
        return {
            "cpu_ms": (time.process_time_ns() - cpu_ns) / 1e6 / len(rows),
            "wall_ms": (time.monotonic_ns() - wall_ns) / 1e6 / len(rows),
        }

    found = []
    # a session that spins takes a core while others run: each is opened for its own turn
    conditions = {name: partial(_opened, artifact, variant, measure) for name, variant in VARIANTS.items()}
    for one in interleaved(conditions, rounds):
        found.append(one)
    return found


def ahead(artifact: ArtifactSpec, rows: list[Ids], area: int, rounds: int) -> list[dict[str, Figures]]:
    """Feed one worker a core with one batch under way in each, then with two; blocks."""
    return asyncio.run(_ahead(artifact, rows, area, rounds))


def _opened(artifact: ArtifactSpec, variant: Variant, measure: Callable[[Any], Figures]) -> Figures:
    return measure(session(artifact, variant))


async def _ahead(artifact: ArtifactSpec, rows: list[Ids], area: int, rounds: int) -> list[dict[str, Figures]]:
    padded = [pad([rows[row] for row in batch], 0) for batch in batches_of([len(row) for row in rows], area)]
    launch = Launch(ADAPTERS["onnxruntime"], artifact, Budget(1))
    workers = [await WorkerProcess.start(launch) for _ in range(CORES)]

    async def measure(depth: int) -> Figures:
        waiting = iter(padded)

        async def feed(worker: WorkerProcess) -> int:
            executed_ns = 0
            for batch in waiting:
                executed = await worker.execute(batch.ids, batch.lengths)
                executed_ns += executed.execute_end_ns - executed.execute_start_ns
            return executed_ns

        began_ns = time.monotonic_ns()
        executed_ns = await asyncio.gather(*(feed(worker) for worker in workers for _ in range(depth)))
        wall_ns = time.monotonic_ns() - began_ns
        return {"wall_ms": wall_ns / 1e6 / len(rows), "busy": sum(executed_ns) / wall_ns / len(workers)}

    try:
        found = []
        await measure(1)  # warms up
        for number in range(rounds):
            depths = (1, 2) if number % 2 == 0 else (2, 1)
            figures = {f"{depth} under way": await measure(depth) for depth in depths}
            found.append(dict(sorted(figures.items())))
        return found
    finally:
        await asyncio.gather(*(worker.stop() for worker in workers))


def splits(bench: Bench, name: BenchName, rounds: int) -> list[dict[str, Figures]]:
    """Saturate servers of several splits of the cores, in rotation; blocks."""
    with ExitStack() as stack:
        conditions: dict[str, Callable[[], Figures]] = {}
        for instances, threads in dict.fromkeys([(CORES, 1), (1, CORES), (1, 1), (CORES, CORES)]):
            server = served(bench.model(name), bench.servers, instances=instances, threads=threads)
            target = stack.enter_context(server)
            for rows_a_call in (1, ROWS_A_CALL):
                key = f"{instances} x {threads}, {rows_a_call} a call"
                conditions[key] = partial(bench.saturated, name, target, "unary", rows_a_call)
        return list(interleaved(conditions, rounds, lambda number, key, _: say(f"  round {number + 1}, {key}")))


def markdown(title: str, rounds: list[dict[str, Figures]], names: Iterable[str]) -> str:
    """Return a table: medians with minimum and maximum."""
    shown = list(names)
    lines = [f"## {title}", "", f"| | {' | '.join(shown)} |", f"| --- |{' ---: |' * len(shown)}"]
    for condition in rounds[0]:
        cells = []
        for name in shown:
            figure = Estimate.of([one[condition][name] for one in rounds])
            cells.append(f"{figure.median:.4g} ({figure.low:.4g} to {figure.high:.4g})")
        lines.append(f"| {condition} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", ""])


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(prog="benchmarks.options", description=str(__doc__).partition("\n\n")[0])
    parser.add_argument("--only", choices=("sessions", "splits", "ahead"), action="append", default=[])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="short windows")
    parser.add_argument("--cache", type=Path, default=Path(".cache"))
    parser.add_argument("--out", type=Path, default=Path("reports/options.md"))
    options = parser.parse_args()
    wanted = set(options.only or ("sessions", "splits", "ahead"))
    workload = of_corpus(fetch(options.cache / "corpus"))
    text, raw = "# Options, measured\n\n", {}
    with Generator() as generator:
        servers = options.cache / "bench" / "servers"
        bench = Bench(options.cache, servers, workload, QUICK if options.quick else FULL, generator, say)
        for name in NAMES:
            artifact, rows, area = bench.model(name).onnx, bench.rows(name, _TEXTS[name]), _AREA[name]
            if "sessions" in wanted:
                say(f"{name}: sessions")
                raw[f"{name} sessions"] = generator.run(partial(sessions, artifact, rows, area), options.rounds)
                title = f"{name}: session options, batches of {area} padded tokens"
                text += markdown(title, raw[f"{name} sessions"], ("cpu_ms", "wall_ms"))
            if "ahead" in wanted:
                say(f"{name}: ahead")
                raw[f"{name} ahead"] = generator.run(partial(ahead, artifact, rows, area), options.rounds)
                text += markdown(f"{name}: batches under way in each worker", raw[f"{name} ahead"], ("wall_ms", "busy"))
            if "splits" in wanted:
                say(f"{name}: splits")
                raw[f"{name} splits"] = splits(bench, name, options.rounds)
                names = ("rows_per_s", "cpu_ms", "gateway_cpu_ms", "worker_cpu_ms", "batch_rows")
                text += markdown(f"{name}: instances x threads of the server", raw[f"{name} splits"], names)
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(text, encoding="utf-8")
            options.out.with_suffix(".json").write_text(json.dumps(raw, indent=1) + "\n")
    print(text)


if __name__ == "__main__":
    main()
