"""Batch inference against the server's own pace: rows a second of `lockstep batch` / those of a bare load of 64 a call.

    python -m benchmarks.batch_inference --repository models --model torch-bilstm

Both send the same texts, 64 a call, as many rows in flight, to the same server, in turns. The load is the generator's:
requests serialised beforehand, answers read when the window is over. The run reads a file and writes one; it counts
from its first answers to its last, on a machine that both share with the server.

Where others use the machine too, rows a second say little: CPU time does. `cpu_ratio` is what the ratio comes to on a
machine that the server and its client fill: the server's CPU time for a row under the bare load / that of the server
and the run together. The generator's own CPU time is not counted, which is to the run's disadvantage.
"""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import click
import psutil

from benchmarks.compare import PAIRS, Bound, Estimate, interleaved
from benchmarks.experiments import ROWS_A_CALL
from benchmarks.gateway import Generator
from benchmarks.generator import Reading, SaturatedPlan, Target, saturate
from benchmarks.workload import of_corpus
from lockstep.clients.batch import FORMATS, BatchPlan, Format, Progress, run_batch
from lockstep.local_server import local_server
from lockstep.zoo.corpus import fetch

BOUND = Bound(">=", 0.9)
_CALLS = 8
_WARM_S = 1.5


@dataclass(frozen=True, slots=True)
class RunPlan:
    """Carry a file through a server; what is answered in the first `_WARM_S` seconds is not counted."""

    server: Target
    source: Path
    target: Path
    kind: Format


Figures = dict[str, float]


def load(plan: SaturatedPlan) -> Figures:
    """Return the bare load's pace, and the server's CPU time for a row; blocks."""
    window = saturate(plan)
    return {"rows_per_s": window.rows_per_s, "server_cpu_ms": window.cpu_ms, "client_cpu_ms": 0.0}


def carry(plan: RunPlan) -> Figures:
    """Return a run's pace, and the CPU time for a row of the server and of the run; blocks."""
    seen: list[tuple[float, int]] = []
    before, cpu_s = Reading.take(plan.server), time.process_time()

    def note(progress: Progress) -> None:
        if progress.stage == "classify":
            seen.append((time.monotonic(), progress.rows))

    asyncio.run(
        run_batch(
            BatchPlan(
                plan.source,
                plan.target,
                plan.server.grpc,
                plan.kind,
                plan.kind,
                model=plan.server.model,
                truncate=True,
                calls=_CALLS,
                overwrite=True,
            ),
            note,
        )
    )
    warm = next(one for one in seen if one[0] - seen[0][0] >= _WARM_S)
    window = before.until(Reading.take(plan.server), plan.server)
    return {
        "rows_per_s": (seen[-1][1] - warm[1]) / (seen[-1][0] - warm[0]),
        "server_cpu_ms": window.cpu_ms,
        "client_cpu_ms": (time.process_time() - cpu_s) * 1e3 / seen[-1][1],
    }


def write(path: Path, kind: Format, texts: list[str]) -> Path:
    """Write the texts, with an id each."""
    match kind:
        case "jsonl":
            path.write_text("".join(json.dumps({"id": row, "text": text}) + "\n" for row, text in enumerate(texts)))
        case "csv":
            import csv

            with path.open("w", newline="") as file:
                csv.writer(file).writerows([("id", "text"), *enumerate(texts)])
        case "parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            pq.write_table(pa.table({"id": range(len(texts)), "text": texts}), path)
    return path


@click.command()
@click.option("--repository", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--model", required=True)
@click.option("--seconds", type=float, default=8.0, show_default=True, help="Of each measurement, about.")
@click.option("--rounds", type=int, default=PAIRS, show_default=True)
@click.option("--format", "kinds", type=click.Choice(FORMATS), multiple=True, default=FORMATS, show_default=True)
@click.option("--cache", type=click.Path(path_type=Path), default=Path(".cache"), show_default=True)
def main(repository: Path, model: str, seconds: float, rounds: int, kinds: tuple[Format, ...], cache: Path) -> None:
    """Print a ratio for each format, as JSON."""
    texts = of_corpus(fetch(cache / "corpus")).texts
    with tempfile.TemporaryDirectory() as name, Generator() as generator:
        folder = Path(name)
        with local_server(repository, folder / "log", "--state", str(folder / "state")) as server:
            pid = next(one.pid for one in psutil.Process().children() if server.grpc in one.cmdline())
            target = Target(server.grpc, server.http, pid, model)
            bare = SaturatedPlan(target, texts, "unary", ROWS_A_CALL, _CALLS * ROWS_A_CALL, _WARM_S, seconds)
            peak = generator.run(load, bare)["rows_per_s"]  # starts every worker, and says how long a file must be
            rows = int(peak * (seconds + _WARM_S))
            sent = [texts[row % len(texts)] for row in range(rows)]
            conditions = {"load": partial(generator.run, load, bare)}
            for kind in kinds:
                source = write(folder / f"in.{kind}", kind, sent)
                run = RunPlan(target, source, folder / f"out.{kind}", kind)
                conditions[kind] = partial(generator.run, carry, run)
            found = list(interleaved(conditions, rounds, _tell))
    report = {}
    for kind in kinds:
        pace = Estimate.of([one[kind]["rows_per_s"] / one["load"]["rows_per_s"] for one in found])
        cpu = Estimate.of([one["load"]["server_cpu_ms"] / _cpu_ms(one[kind]) for one in found])
        report[kind] = {
            "ratio": asdict(pace) | {"verdict": pace.verdict(BOUND)},
            "cpu_ratio": asdict(cpu) | {"verdict": cpu.verdict(BOUND)},
            **{figure: Estimate.of([one[kind][figure] for one in found]).median for figure in found[0][kind]},
        }
    bare_load = {figure: Estimate.of([one["load"][figure] for one in found]).median for figure in found[0]["load"]}
    click.echo(json.dumps({"model": model, "machine_load": os.getloadavg()[0], "load": bare_load, **report}, indent=1))


def _cpu_ms(figures: Figures) -> float:
    return figures["server_cpu_ms"] + figures["client_cpu_ms"]


def _tell(number: int, key: str, figures: Figures) -> None:
    shown = ", ".join(f"{name} {value:,.3f}" for name, value in figures.items())
    click.echo(f"round {number + 1}, {key}: {shown}", err=True)


if __name__ == "__main__":
    main()
