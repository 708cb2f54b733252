"""What each artifact takes, over lengths and in batches; and its source's modes beside it: eager against graph."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lockstep.exporters.conversion import ExportError
from lockstep.exporters.export import described
from lockstep.framework_report.gather import Gathered, ModelRow, description
from lockstep.framework_report.interleaved_benchmark import RunFailed, contest, full_batches, source, workers
from lockstep.framework_report.measurement import Measurement, MeasuringFailed, Say
from lockstep.framework_report.settings import MODE_SHAPES, Settings, fingerprint
from lockstep.framework_report.texts import held_out_rows
from lockstep.server.core.errors import BackendUnavailable
from lockstep.server.runtimes.worker_process import BatchFailed


def measurements(gathered: Gathered, settings: Settings, verify_with: Path) -> list[Measurement]:
    """List one measurement for each published model."""
    found = []
    for row in gathered.rows:
        if row.published is None or row.record is None:
            continue
        of = fingerprint(
            "latency",
            row.published.manifest.source.sha256,
            {
                "artifacts": sorted(artifact.kind for artifact in row.published.manifest.artifacts),
                "lengths": [settings.lengths_alone, settings.lengths_together],
                "modes": MODE_SHAPES,
                "rounds": [settings.rounds, settings.shape_seconds],
            },
        )
        found.append(Measurement(f"latency/{row.id}", of, partial(_measure_now, row, gathered, settings, verify_with)))
    return found


def _measure_now(row: ModelRow, gathered: Gathered, settings: Settings, verify_with: Path, say: Say) -> dict[str, Any]:
    return asyncio.run(_measure(row, gathered, settings, verify_with, say))


async def _measure(
    row: ModelRow, gathered: Gathered, settings: Settings, verify_with: Path, say: Say
) -> dict[str, Any]:
    """Return `lengths` and `modes`: who -> shape -> figures."""
    assert row.published is not None
    manifest = row.published.manifest
    stream = np.concatenate(held_out_rows(row.published, verify_with))
    alone = [(1, length) for length in settings.lengths_alone]
    together = [(32, length) for length in settings.lengths_together]
    try:
        files, _ = await described(*description(row, gathered.cache))
        say("opening its source and its artifacts")
        async with source(files) as modes, workers(row.published, manifest.artifacts) as backends:
            say(f"{len(backends)} artifacts over lengths")
            shapes = full_batches(stream, [*alone, *together], manifest.max_tokens)
            lengths = await contest(backends, shapes, rounds=settings.rounds, seconds=settings.shape_seconds)
            say("its source, eager and as a graph")
            shapes = full_batches(stream, MODE_SHAPES, manifest.max_tokens)
            # The source's answer is the one that the others are held against.
            compared = await contest(
                {**modes, **backends}, shapes, rounds=settings.rounds, seconds=settings.shape_seconds
            )
    except (ExportError, BackendUnavailable, BatchFailed, RunFailed) as error:
        raise MeasuringFailed(str(error)) from error
    return {"lengths": lengths, "modes": compared}
