"""`python -m benchmarks.record_costs`: measure what batches of the benchmark's models cost, for the simulation.

Writes a table a model, and how long the workload's texts are, into `benchmarks/costs/`. Every batch of a grid is
executed by a worker's own adapter on one thread, once for each core at the same time, as two workers do; costs are CPU
time, the median of several where one is short.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import time
from collections import Counter
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks import cost_tables, offline
from benchmarks.cost_tables import CostTable
from benchmarks.models import NAMES, prepare
from benchmarks.report import machine
from benchmarks.simulate import COSTS, LENGTHS
from benchmarks.workload import MAX_TOKENS, of_corpus
from lockstep.cores import usable_cores
from lockstep.server.core.artifact import ArtifactSpec, Budget
from lockstep.zoo.corpus import fetch

ROWS: Final = (1, 2, 4, 8, 16, 32, 64)
TOKENS: Final = (4, 8, 16, 32, 64, 128, 256)
_CHEAP_MS: Final = 50.0
_TIMES: Final = 9


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(prog="benchmarks.record_costs", description=str(__doc__).partition("\n\n")[0])
    parser.add_argument("--cache", type=Path, default=Path(".cache"))
    cache = parser.parse_args().cache
    cores = usable_cores()
    for name in NAMES:
        model = prepare(name, cache, print)
        with multiprocessing.get_context("spawn").Pool(cores) as pool:
            measured = pool.map(measure, [model.onnx] * cores, chunksize=1)
        costs_ms = np.mean(measured, axis=0)
        note = f"{model.source}; ONNX Runtime, one thread a worker, CPU time. {machine()['machine']}."
        document = {
            "label": name.removeprefix("bench-"),
            "note": note,
            "measured": True,
            "workers": cores,
            "rows": list(ROWS),
            "lengths": list(TOKENS),
            "cost_ms": [[float(f"{cost:.4g}") for cost in line] for line in costs_ms],
        }
        path = COSTS / f"{name.removeprefix('bench-')}-cpu.json"
        path.write_text(json.dumps(document, indent=2) + "\n")
        table: CostTable = cost_tables.read(path)
        print(
            f"{path}: 1 x 32 tokens {table.cost_ns[1, 32] / 1e6:.3g} ms, 32 x 64 {table.cost_ns[32, 64] / 1e6:.3g} ms"
        )
        if name == NAMES[-1]:
            workload = of_corpus(fetch(cache / "corpus"))
            lengths = Counter(len(row) for row in offline.encode(model.tokenizer, MAX_TOKENS, workload.texts))
            LENGTHS.write_text(json.dumps({str(length): lengths[length] for length in sorted(lengths)}) + "\n")


def measure(artifact: ArtifactSpec) -> list[list[float]]:
    """Return CPU times, ms, [rows, length] of the grid."""
    from lockstep.server.runtimes.onnxruntime_adapter import OnnxRuntimeAdapter

    adapter = OnnxRuntimeAdapter.load(artifact, Budget(1))
    random = np.random.default_rng(0)

    def cost_ms(rows: int, length: int) -> float:
        ids, lengths = random.integers(5, 1_000, (rows, length)), np.full(rows, length)
        found: list[float] = []
        for _ in range(_TIMES + 1):
            began_ns = time.process_time_ns()
            adapter.execute(ids, lengths)
            found.append((time.process_time_ns() - began_ns) / 1e6)
            if len(found) == 2 and found[-1] > _CHEAP_MS:
                break
        return statistics.median(found[1:])  # a first time is never like the others

    return [[cost_ms(rows, length) for length in TOKENS] for rows in ROWS]


if __name__ == "__main__":
    main()
