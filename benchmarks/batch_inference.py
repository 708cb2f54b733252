"""Batch inference against the server's own pace: rows a second of `lockstep batch` / those of a bare load of 64 a call.

    python -m benchmarks.batch_inference --repository models --model torch-bilstm

Both send the same texts, 64 a call, as many rows in flight, to the same server, in turns. The load is the generator's:
requests serialised beforehand, answers read when the window is over. The run reads a file and writes one; it counts
from its first answers to its last, on a machine that both share with the server.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import click
import psutil

from benchmarks.compare import PAIRS, Bound, Estimate, interleaved
from benchmarks.experiments import ROWS_A_CALL
from benchmarks.gateway import Generator
from benchmarks.generator import SaturatedPlan, Target, saturate
from benchmarks.workload import of_corpus
from clients.batch import FORMATS, BatchPlan, Format, Progress, run_batch
from lockstep.local_server import local_server
from zoo.corpus import fetch

BOUND = Bound(">=", 0.9)
_CALLS = 8
_WARM_S = 1.5


@dataclass(frozen=True, slots=True)
class RunPlan:
    """Carry a file through a server; what is answered in the first `_WARM_S` seconds is not counted."""

    address: str
    model: str
    source: Path
    target: Path
    kind: Format


def carry(plan: RunPlan) -> float:
    """Return rows a second; blocks."""
    seen: list[tuple[float, int]] = []

    def note(progress: Progress) -> None:
        if progress.stage == "classify":
            seen.append((time.monotonic(), progress.rows))

    asyncio.run(
        run_batch(
            BatchPlan(
                plan.source,
                plan.target,
                plan.address,
                plan.kind,
                plan.kind,
                model=plan.model,
                truncate=True,
                calls=_CALLS,
                overwrite=True,
            ),
            note,
        )
    )
    warm = next(one for one in seen if one[0] - seen[0][0] >= _WARM_S)
    return (seen[-1][1] - warm[1]) / (seen[-1][0] - warm[0])


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
            load = SaturatedPlan(target, texts, "unary", ROWS_A_CALL, _CALLS * ROWS_A_CALL, _WARM_S, seconds)
            peak = generator.run(saturate, load).rows_per_s  # starts every worker, and says how long a file must be
            rows = int(peak * (seconds + _WARM_S))
            sent = [texts[row % len(texts)] for row in range(rows)]
            conditions = {"load": lambda: generator.run(saturate, load).rows_per_s}
            for kind in kinds:
                source = write(folder / f"in.{kind}", kind, sent)
                run = RunPlan(server.grpc, model, source, folder / f"out.{kind}", kind)
                conditions[kind] = partial(generator.run, carry, run)
            found = []
            for one in interleaved(conditions, rounds, lambda number, key, rate: _tell(number, key, rate)):
                found.append(one)
    report = {}
    for kind in kinds:
        ratio = Estimate.of([one[kind] / one["load"] for one in found])
        report[kind] = {
            "ratio": ratio.median,
            "low": ratio.low,
            "high": ratio.high,
            "verdict": ratio.verdict(BOUND),
            "rows_per_s": Estimate.of([one[kind] for one in found]).median,
        }
    load_per_s = Estimate.of([one["load"] for one in found]).median
    click.echo(json.dumps({"model": model, "rounds": rounds, "load_rows_per_s": load_per_s, **report}, indent=1))


def _tell(number: int, key: str, rate: float) -> None:
    click.echo(f"round {number + 1}, {key}: {rate:,.0f} rows/s", err=True)


if __name__ == "__main__":
    main()
