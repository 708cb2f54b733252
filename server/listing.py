"""The use case of listing: every model and backend as it is now, and what is not served, with the reason.

A list holds what the wires tell, in their words and units: they only write it down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lockstep.server.core.messages import ModelRef
from lockstep.server.gateway import UNLOADED, Gateway, ServedModel
from lockstep.server.repository import manifest
from lockstep.server.runtimes.usage import usage_of
from lockstep.server.scheduling.backend import Backend


@dataclass(frozen=True, slots=True)
class Parity:
    """How an artifact compared with its source, on held-out text, before it was published."""

    rows: int
    batches: int  # of unequal sizes and lengths
    largest_difference: float  # |artifact - source| over all outputs
    padding_invariance: float  # largest |row in a batch - row alone|
    label_agreement: float  # share of rows with the source's label, 0 to 1
    masks_beyond_end: bool  # random ids beyond each row's end changed nothing
    atol: float | None  # the bound: |difference| <= atol + rtol * |source|; None: a variant
    rtol: float | None
    min_label_agreement: float | None  # a variant's bounds
    max_accuracy_points: float | None
    accuracy: float | None  # on labelled rows, 0 to 1
    source_accuracy: float | None


@dataclass(frozen=True, slots=True)
class ListedBackend:
    """One backend: what it is, and how it is now."""

    name: str
    runtime: str
    artifact: str  # its kind
    method: str  # how it was converted
    device: str
    threads: int  # of computation, of each worker
    instances: int  # workers that are wanted
    workers: int  # workers that are ready
    state: str
    reason: str  # where it is down: why
    restarts: int
    preferred: bool  # free rows go here now
    takes_free_rows: bool  # else a variant, which serves rows that name it
    artifact_bytes: int
    worker_cpu_us: int  # CPU time of the workers that live, since each started
    resident_bytes: int  # memory of the workers, now
    parity: Parity


@dataclass(frozen=True, slots=True)
class ListedModel:
    """One model with its backends."""

    name: str
    version: int
    labels: Sequence[str]
    max_tokens: int
    framework: str  # of the source
    layer: str
    ready: bool  # a backend can execute now
    queued_rows: int
    expected_wait_us: int  # of a free row that came now
    backends: Sequence[ListedBackend]
    refused_artifacts: Mapping[str, str]  # by kind: why the gate did not let it be published


@dataclass(frozen=True, slots=True)
class NotServed:
    """A model that takes no calls, and why."""

    name: str
    version: int  # 0: there is none
    reason: str


@dataclass(frozen=True, slots=True)
class ModelList:
    """What a server has."""

    models: Sequence[ListedModel]
    refused: Sequence[NotServed]
    unloaded: Sequence[NotServed]


def list_models(gateway: Gateway, name: str = "") -> ModelList:
    """Describe every model, or one, wherever it is listed; raises `ModelNotFound` where there is none of that name."""
    refused = [
        NotServed(one.name, one.version or 0, one.reason)
        for _, one in sorted(gateway.refused.items())
        if not name or one.name == name
    ]
    unloaded = [
        NotServed(one, version, UNLOADED)
        for one, version in sorted(gateway.unloaded.items())
        if not name or one == name
    ]
    if not name:
        models = [served for _, served in sorted(gateway.models.items())]
    else:
        models = [] if refused or unloaded else [gateway.model(ModelRef(name))]
    return ModelList([_model(one) for one in models], refused, unloaded)


def _model(served: ServedModel) -> ListedModel:
    published, batcher = served.manifest, served.batcher
    return ListedModel(
        name=published.name,
        version=published.version,
        labels=published.labels,
        max_tokens=published.max_tokens,
        framework=published.source.framework,
        layer=published.source.layer,
        ready=batcher.ready,
        queued_rows=batcher.queued_rows,
        expected_wait_us=int(batcher.expected_wait_s() * 1e6),
        backends=[_backend(served, backend) for backend in batcher.backends],
        refused_artifacts=published.refused,
    )


def _backend(served: ServedModel, backend: Backend) -> ListedBackend:
    artifact, budget = served.artifact(backend), backend.spec.launch.budget
    usage = usage_of(worker.pid for worker in backend.workers)
    return ListedBackend(
        name=backend.name,
        runtime=artifact.runtime,
        artifact=artifact.kind,
        method=artifact.method,
        device=budget.device,
        threads=budget.threads,
        instances=backend.spec.instances,
        workers=len(backend.workers),
        state=str(backend.state),
        reason=backend.reason,
        restarts=backend.restarts,
        preferred=backend is served.batcher.preferred,
        takes_free_rows=backend.spec.takes_free_rows,
        artifact_bytes=served.published.bytes_of(artifact),
        worker_cpu_us=round(usage.cpu_s * 1e6),
        resident_bytes=usage.resident_bytes,
        parity=_parity(artifact.parity),
    )


def _parity(measured: manifest.Parity) -> Parity:
    return Parity(
        rows=measured.rows,
        batches=measured.batches,
        largest_difference=measured.max_abs_diff,
        padding_invariance=measured.padding_invariance,
        label_agreement=measured.label_agreement,
        masks_beyond_end=measured.masks_beyond_end,
        atol=measured.atol,
        rtol=measured.rtol,
        min_label_agreement=measured.min_label_agreement,
        max_accuracy_points=measured.max_accuracy_points,
        accuracy=measured.accuracy,
        source_accuracy=measured.source_accuracy,
    )
