"""The messages of ListModels and LatencyReport: what the gateway knows of its models, on the wire."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from protos import sentiment_pb2 as pb
from server.durations import RELATIVE_ERROR
from server.gateway import ServedModel
from server.latency import BackendLatency, LatencyReport, PhaseSummaries
from server.repository.catalog import Refused
from server.repository.manifest import Artifact
from server.repository.manifest import Parity as Report
from server.scheduling.backend import Backend


def listed_model(served: ServedModel) -> pb.ListedModel:
    """Describe a model and its backends as they are now."""
    manifest, batcher = served.manifest, served.batcher
    return pb.ListedModel(
        name=manifest.name,
        version=manifest.version,
        labels=manifest.labels,
        max_tokens=manifest.max_tokens,
        framework=manifest.source.framework,
        layer=manifest.source.layer,
        ready=batcher.ready,
        queued_rows=batcher.queued_rows,
        expected_wait_us=int(batcher.expected_wait_s() * 1e6),
        backends=[_listed_backend(served, backend) for backend in batcher.backends],
        refused_artifacts=manifest.refused,
    )


def refused_model(refused: Refused) -> pb.RefusedModel:
    """Say why a model is not served."""
    return pb.RefusedModel(name=refused.name, version=refused.version or 0, reason=refused.reason)


def _listed_backend(served: ServedModel, backend: Backend) -> pb.ListedBackend:
    artifact, budget = served.artifact(backend), backend.spec.launch.budget
    return pb.ListedBackend(
        name=backend.name,
        runtime=artifact.runtime,
        artifact=artifact.kind,
        method=artifact.method,
        device=budget.device,
        threads=budget.threads,
        instances=backend.spec.instances,
        workers=len(backend.workers),
        state=backend.state,
        reason=backend.reason,
        restarts=backend.restarts,
        preferred=backend is served.batcher.preferred,
        takes_free_rows=backend.spec.takes_free_rows,
        artifact_bytes=_bytes_of(served.published.folder, artifact),
        parity=_parity(artifact.parity),
    )


def _bytes_of(folder: Path, artifact: Artifact) -> int:
    return sum((folder / file).stat().st_size for file in artifact.files)


def _parity(parity: Report) -> pb.Parity:
    return pb.Parity(
        rows=parity.rows,
        batches=parity.batches,
        largest_difference=parity.max_abs_diff,
        padding_invariance=parity.padding_invariance,
        label_agreement=parity.label_agreement,
        masks_beyond_end=parity.masks_beyond_end,
        atol=parity.atol,
        rtol=parity.rtol,
        min_label_agreement=parity.min_label_agreement,
        max_accuracy_points=parity.max_accuracy_points,
        accuracy=parity.accuracy,
        source_accuracy=parity.source_accuracy,
    )


def latency_response(report: LatencyReport) -> pb.LatencyReportResponse:
    """Write a report."""
    return pb.LatencyReportResponse(
        window_s=report.window_s,
        relative_error=RELATIVE_ERROR,
        backends=[_backend_latency(backend, report.window_s) for backend in report.backends],
        gateway=pb.GatewayLoad(
            cpu_us=int(report.gateway.cpu_s * 1e6),
            window_cpu_us=int(report.gateway_window_cpu_s * 1e6),
            resident_bytes=report.gateway.resident_bytes,
        ),
    )


def _backend_latency(backend: BackendLatency, window_s: float) -> pb.BackendLatency:
    work = backend.work
    return pb.BackendLatency(
        model=backend.model,
        version=backend.version,
        backend=backend.backend,
        rows=work.rows,
        batches=work.batches,
        tokens=work.tokens,
        padded_tokens=work.padded_tokens,
        rows_per_s=_ratio(work.rows, window_s),
        tokens_per_s=_ratio(work.tokens, window_s),
        padding_ratio=_ratio(work.padded_tokens, work.tokens),
        mean_batch_rows=_ratio(work.rows, work.batches),
        execute_cpu_us=work.cpu_ns // 1000,
        cpu_us_per_row=_ratio(work.cpu_ns / 1000, work.rows),
        worker_cpu_us=int(backend.workers.cpu_s * 1e6),
        resident_bytes=backend.workers.resident_bytes,
        phases=_phases(backend.phases),
        lengths=[
            pb.LengthLatency(longer_than=one.longer_than, up_to=one.up_to or 0, phases=_phases(one.phases))
            for one in backend.lengths
        ],
    )


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _phases(summaries: PhaseSummaries) -> Iterable[pb.PhaseLatency]:
    return [
        pb.PhaseLatency(
            phase=name,
            count=summary.count,
            mean_us=summary.mean / 1000,
            p50_us=summary.p50 / 1000,
            p90_us=summary.p90 / 1000,
            p99_us=summary.p99 / 1000,
            max_us=summary.most / 1000,
        )
        for name, summary in summaries
    ]
