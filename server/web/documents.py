"""What the use cases tell, as JSON documents: the fields of sentiment.v1's messages, by the same names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from server.compare import Comparison
from server.core.errors import LockstepError
from server.core.messages import Answer, Prediction
from server.durations import RELATIVE_ERROR
from server.gateway import ServedModel
from server.latency import BackendLatency, LatencyReport, PhaseSummaries
from server.repository.catalog import Refused
from server.repository.manifest import Parity
from server.runtimes.usage import usage_of
from server.scheduling.backend import Backend

Document = dict[str, Any]
"""A JSON object."""


def comparison(found: Comparison) -> Document:
    """Write a CompareResponse."""
    return {
        "model": found.model,
        "version": found.version,
        "labels": found.labels,
        "reference": found.reference or "",
        "agreement": asdict(found.agreement),
        "backends": [
            {
                "backend": one.backend,
                "held_to_float32": one.held_to_float32,
                "agreement": asdict(one.agreement),
                "error": _error(one.outcome) if isinstance(one.outcome, LockstepError) else None,
                "results": [] if isinstance(one.outcome, LockstepError) else _results(one.outcome),
            }
            for one in found.backends
        ],
    }


def failure(outcome: Prediction | LockstepError) -> LockstepError | None:
    """Return why a backend has no answer to the first text, where it has none."""
    first = outcome if isinstance(outcome, LockstepError) else outcome.outcomes[0]
    return first if isinstance(first, LockstepError) else None


def _results(prediction: Prediction) -> Sequence[Document]:
    return [
        {"error": _error(outcome)}
        if isinstance(outcome, LockstepError)
        else {"prediction": _prediction(prediction, outcome)}
        for outcome in prediction.outcomes
    ]


def _prediction(prediction: Prediction, answer: Answer) -> Document:
    return {
        "label": prediction.labels[answer.label],
        "probabilities": list(map(float, answer.probabilities)),
        "truncated": answer.encoding.truncated,
        "tokens": len(answer.encoding.ids),
        "backend": answer.batch.backend,
        "phases": {f"{name}_us": ns // 1000 for name, ns in prediction.phases(answer)._asdict().items()},
        "batch_rows": answer.batch.rows,
        "batch_tokens": answer.batch.length,
    }


def _error(error: LockstepError) -> Document:
    return {"kind": type(error).__name__, "message": error.message}


def listed_model(served: ServedModel) -> Document:
    """Write a ListedModel, with what its workers use."""
    manifest, batcher = served.manifest, served.batcher
    return {
        "name": manifest.name,
        "version": manifest.version,
        "labels": manifest.labels,
        "max_tokens": manifest.max_tokens,
        "framework": manifest.source.framework,
        "layer": manifest.source.layer,
        "ready": batcher.ready,
        "queued_rows": batcher.queued_rows,
        "expected_wait_us": int(batcher.expected_wait_s() * 1e6),
        "refused_artifacts": manifest.refused,
        "backends": [_listed_backend(served, backend) for backend in batcher.backends],
    }


def refused_model(refused: Refused) -> Document:
    """Write a RefusedModel."""
    return {"name": refused.name, "version": refused.version or 0, "reason": refused.reason}


def _listed_backend(served: ServedModel, backend: Backend) -> Document:
    artifact, budget = served.artifact(backend), backend.spec.launch.budget
    usage = usage_of(worker.pid for worker in backend.workers)
    return {
        "name": backend.name,
        "runtime": artifact.runtime,
        "artifact": artifact.kind,
        "method": artifact.method,
        "device": budget.device,
        "threads": budget.threads,
        "instances": backend.spec.instances,
        "workers": len(backend.workers),
        "state": backend.state,
        "reason": backend.reason,
        "restarts": backend.restarts,
        "preferred": backend is served.batcher.preferred,
        "takes_free_rows": backend.spec.takes_free_rows,
        "worker_cpu_us": _us(usage.cpu_s),
        "resident_bytes": usage.resident_bytes,
        "parity": _parity(artifact.parity),
    }


def _parity(parity: Parity) -> Document:
    return {
        "rows": parity.rows,
        "batches": parity.batches,
        "largest_difference": parity.max_abs_diff,
        "padding_invariance": parity.padding_invariance,
        "label_agreement": parity.label_agreement,
        "masks_beyond_end": parity.masks_beyond_end,
        "atol": parity.atol,
        "rtol": parity.rtol,
        "accuracy": parity.accuracy,
        "source_accuracy": parity.source_accuracy,
    }


def latency(report: LatencyReport, *, by_length: bool = True) -> Document:
    """Write a LatencyReportResponse; `by_length` with what is told of each length."""
    return {
        "window_s": report.window_s,
        "relative_error": RELATIVE_ERROR,
        "backends": [_backend_latency(one, report.window_s, by_length) for one in report.backends],
        "gateway": {
            "cpu_us": _us(report.gateway.cpu_s),
            "window_cpu_us": _us(report.gateway_window_cpu_s),
            "resident_bytes": report.gateway.resident_bytes,
        },
    }


def _backend_latency(one: BackendLatency, window_s: float, by_length: bool) -> Document:
    work = one.work
    document: Document = {
        "model": one.model,
        "version": one.version,
        "backend": one.backend,
        "rows": work.rows,
        "batches": work.batches,
        "tokens": work.tokens,
        "padded_tokens": work.padded_tokens,
        "rows_per_s": work.rows / window_s,
        "tokens_per_s": work.tokens / window_s,
        "padding_ratio": work.padded_tokens / work.tokens if work.tokens else 0.0,
        "mean_batch_rows": work.rows / work.batches if work.batches else 0.0,
        "execute_cpu_us": work.cpu_ns // 1000,
        "cpu_us_per_row": work.cpu_ns / 1000 / work.rows if work.rows else 0.0,
        "worker_cpu_us": _us(one.workers.cpu_s),
        "resident_bytes": one.workers.resident_bytes,
        "phases": _phases(one.phases),
    }
    if by_length:
        document["lengths"] = [
            {"longer_than": found.longer_than, "up_to": found.up_to or 0, "phases": _phases(found.phases)}
            for found in one.lengths
        ]
    return document


def _phases(summaries: PhaseSummaries) -> Sequence[Document]:
    return [
        {
            "phase": name,
            "count": found.count,
            "mean_us": found.mean / 1000,
            "p50_us": found.p50 / 1000,
            "p90_us": found.p90 / 1000,
            "p99_us": found.p99 / 1000,
            "max_us": found.most / 1000,
        }
        for name, found in summaries
    ]


def _us(seconds: float) -> int:
    return round(seconds * 1e6)
