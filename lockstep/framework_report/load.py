"""Under load: one server for each model that stands for a framework, every backend of it in turns.

First a closed loop, which finds what each backend can do; then an open loop, the same arrivals for all of them at a
share of what the weakest can do. The load test is the client's own.
"""

from __future__ import annotations

import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from lockstep.clients import CallError
from lockstep.clients.loadtest import LoadPlan, LoadReport, LoadTestError, TextsUnreadable, run_loadtest
from lockstep.framework_report.gather import Gathered, ModelRow, plain_artifacts
from lockstep.framework_report.measurement import Measurement, MeasuringFailed, Say
from lockstep.framework_report.settings import Settings, fingerprint
from lockstep.local_server import ServerFailed, local_server
from lockstep.server.repository.manifest import backend_name

WARMUP_S = 0.5


def measurements(gathered: Gathered, settings: Settings, texts: Path) -> list[Measurement]:
    """List one measurement for each model that stands for a framework, where it is published."""
    found = []
    for row in gathered.rows:
        if row.published is None or row.id not in settings.load:
            continue
        of = fingerprint(
            "load",
            row.published.manifest.source.sha256,
            {
                "artifacts": [artifact.kind for artifact in plain_artifacts(row.published.manifest)],
                "plan": [settings.load_seconds, settings.load_rounds, settings.load_callers, settings.load_share],
            },
        )
        found.append(Measurement(f"load/{row.id}", of, partial(_measure, row, settings, texts)))
    return found


def _measure(row: ModelRow, settings: Settings, texts: Path, say: Say) -> dict[str, Any]:
    """Return `closed` and `open`: backend -> figures; `rate` of the open loop; and what the load test warns of."""
    assert row.published is not None
    backends = tuple(backend_name(artifact) for artifact in plain_artifacts(row.published.manifest))
    with tempfile.TemporaryDirectory(prefix="lockstep-") as temporary:
        repository = Path(temporary) / "models"
        version = row.published.folder
        shutil.copytree(version, repository / version.parent.name / version.name)
        say("starting a server")
        try:
            with local_server(
                repository, Path(temporary) / "server.log", "--state", str(Path(temporary) / "state")
            ) as server:
                common: dict[str, Any] = {
                    "model": row.id,
                    "address": server.grpc,
                    "http": server.http,
                    "backends": backends,
                    "texts": str(texts),
                    "rounds": settings.load_rounds,
                    "seconds": settings.load_seconds,
                    "warmup_s": WARMUP_S,
                }
                say(f"{settings.load_callers} callers in a closed loop")
                closed = run_loadtest(LoadPlan(**common, mode="closed", concurrency=settings.load_callers))
                weakest = min(backend.achieved_rows_per_s for backend in closed.backends)
                rate = max(1.0, round(weakest * settings.load_share))
                say(f"open loop, {rate:g} texts/s")
                opened = run_loadtest(LoadPlan(**common, mode="open", rate=rate))
        except (ServerFailed, CallError, LoadTestError, TextsUnreadable) as error:
            raise MeasuringFailed(str(error)) from error
    if closed.interrupted or opened.interrupted:
        raise KeyboardInterrupt
    return {
        "rate": rate,
        "callers": settings.load_callers,
        "closed": _figures(closed),
        "open": _figures(opened),
        "warnings": [*closed.warnings, *opened.warnings],
    }


def _figures(report: LoadReport) -> dict[str, Any]:
    return {
        backend.backend: {
            "rows_per_s": backend.achieved_rows_per_s,
            "p50_ms": backend.latency.p50_ms,
            "p99_ms": backend.latency.p99_ms,
            "failed_rows": backend.failed_rows,
            "rows": backend.rows,
            "mean_batch_rows": backend.mean_batch_rows,
            "padding_ratio": backend.padding_ratio,
            "cpu_ms": None if backend.cost is None else backend.cost.cpu_ms,
        }
        for backend in report.backends
    }
