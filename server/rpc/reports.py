"""The messages of ListModels and LatencyReport, written from the use cases' own descriptions."""

from __future__ import annotations

from collections.abc import Sequence

from lockstep.protos import sentiment_pb2 as pb
from lockstep.server.latency_report import BackendLatency, LatencyReport, PhaseLatency
from lockstep.server.listing import ListedBackend, ListedModel, ModelList, Parity


def models_response(found: ModelList) -> pb.ListModelsResponse:
    """Write a list of models."""
    return pb.ListModelsResponse(
        models=[_model(one) for one in found.models],
        refused=[pb.RefusedModel(name=one.name, version=one.version, reason=one.reason) for one in found.refused],
        unloaded=[pb.UnloadedModel(name=one.name, version=one.version, reason=one.reason) for one in found.unloaded],
    )


def _model(model: ListedModel) -> pb.ListedModel:
    return pb.ListedModel(
        name=model.name,
        version=model.version,
        labels=model.labels,
        max_tokens=model.max_tokens,
        framework=model.framework,
        layer=model.layer,
        ready=model.ready,
        queued_rows=model.queued_rows,
        expected_wait_us=model.expected_wait_us,
        backends=[_backend(one) for one in model.backends],
        refused_artifacts=model.refused_artifacts,
    )


def _backend(backend: ListedBackend) -> pb.ListedBackend:
    return pb.ListedBackend(
        name=backend.name,
        runtime=backend.runtime,
        artifact=backend.artifact,
        method=backend.method,
        device=backend.device,
        threads=backend.threads,
        instances=backend.instances,
        workers=backend.workers,
        state=backend.state,
        reason=backend.reason,
        restarts=backend.restarts,
        preferred=backend.preferred,
        takes_free_rows=backend.takes_free_rows,
        artifact_bytes=backend.artifact_bytes,
        parity=_parity(backend.parity),
        worker_cpu_us=backend.worker_cpu_us,
        resident_bytes=backend.resident_bytes,
    )


def _parity(parity: Parity) -> pb.Parity:
    return pb.Parity(
        rows=parity.rows,
        batches=parity.batches,
        largest_difference=parity.largest_difference,
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
        relative_error=report.relative_error,
        backends=[_backend_latency(one) for one in report.backends],
        gateway=pb.GatewayLoad(
            cpu_us=report.gateway.cpu_us,
            window_cpu_us=report.gateway.window_cpu_us,
            resident_bytes=report.gateway.resident_bytes,
        ),
    )


def _backend_latency(backend: BackendLatency) -> pb.BackendLatency:
    return pb.BackendLatency(
        model=backend.model,
        version=backend.version,
        backend=backend.backend,
        rows=backend.rows,
        batches=backend.batches,
        tokens=backend.tokens,
        padded_tokens=backend.padded_tokens,
        rows_per_s=backend.rows_per_s,
        tokens_per_s=backend.tokens_per_s,
        padding_ratio=backend.padding_ratio,
        mean_batch_rows=backend.mean_batch_rows,
        execute_cpu_us=backend.execute_cpu_us,
        cpu_us_per_row=backend.cpu_us_per_row,
        worker_cpu_us=backend.worker_cpu_us,
        resident_bytes=backend.resident_bytes,
        phases=_phases(backend.phases),
        lengths=[
            pb.LengthLatency(longer_than=one.longer_than, up_to=one.up_to, phases=_phases(one.phases))
            for one in backend.lengths or ()
        ],
    )


def _phases(phases: Sequence[PhaseLatency]) -> list[pb.PhaseLatency]:
    return [
        pb.PhaseLatency(
            phase=one.phase,
            count=one.count,
            mean_us=one.mean_us,
            p50_us=one.p50_us,
            p90_us=one.p90_us,
            p99_us=one.p99_us,
            max_us=one.max_us,
        )
        for one in phases
    ]
