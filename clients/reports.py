"""What a server says of its models and backends: comparisons, lists, latencies. Typed and frozen, as `results` are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lockstep.clients.errors import RowError
from lockstep.clients.results import Result, malformed, result_from_wire
from lockstep.protos import sentiment_pb2 as wire


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far answers are apart, over the texts that were answered on both sides."""

    texts: int  # compared; where none was, the other fields say nothing
    largest_difference: float  # between two probabilities of one label of one text
    labels_differ: int  # texts that were not given one and the same label

    @classmethod
    def from_wire(cls, agreement: wire.Agreement) -> Agreement:
        """Read an agreement."""
        return cls(agreement.texts, agreement.largest_difference, agreement.labels_differ)


@dataclass(frozen=True, slots=True)
class BackendAnswers:
    """What one backend answered."""

    backend: str
    held_to_float32: bool  # published by the gate's bound on every logit; else a variant, such as int8
    results: tuple[Result, ...]  # one for each text, in order; none where there is an error
    error: RowError | None  # why the backend failed as a whole
    agreement: Agreement  # with the reference


@dataclass(frozen=True, slots=True)
class Comparison:
    """The answers of several backends to the same texts."""

    model: str
    version: int
    labels: tuple[str, ...]
    backends: tuple[BackendAnswers, ...]
    reference: str | None  # the backend that the others are measured from; None: none answered
    agreement: Agreement  # among the backends that are held to float32

    @classmethod
    def from_wire(cls, response: wire.CompareResponse, *, texts: int) -> Comparison:
        """Read an answer to so many texts; raises `ServerFailure` for a malformed one."""
        labels = tuple(response.labels)
        return cls(
            response.model,
            response.version,
            labels,
            tuple(_answers(answers, labels, texts) for answers in response.backends),
            response.reference or None,
            Agreement.from_wire(response.agreement),
        )


def _answers(answers: wire.BackendAnswers, labels: tuple[str, ...], texts: int) -> BackendAnswers:
    error = RowError.from_wire(answers.error) if answers.HasField("error") else None
    if len(answers.results) != (0 if error else texts):
        raise malformed(f"{len(answers.results)} results of {answers.backend} for {texts} texts")
    return BackendAnswers(
        answers.backend,
        answers.held_to_float32,
        tuple(result_from_wire(row, result, labels) for row, result in enumerate(answers.results)),
        error,
        Agreement.from_wire(answers.agreement),
    )


@dataclass(frozen=True, slots=True)
class Parity:
    """How an artifact compared with its source, on held-out text, when it was published."""

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

    @classmethod
    def from_wire(cls, parity: wire.Parity) -> Parity:
        """Read the figures."""
        return cls(
            parity.rows,
            parity.batches,
            parity.largest_difference,
            parity.padding_invariance,
            parity.label_agreement,
            parity.masks_beyond_end,
            parity.atol if parity.HasField("atol") else None,
            parity.rtol if parity.HasField("rtol") else None,
            parity.min_label_agreement if parity.HasField("min_label_agreement") else None,
            parity.max_accuracy_points if parity.HasField("max_accuracy_points") else None,
            parity.accuracy if parity.HasField("accuracy") else None,
            parity.source_accuracy if parity.HasField("source_accuracy") else None,
        )


@dataclass(frozen=True, slots=True)
class ListedBackend:
    """One backend: what it is and how it is now."""

    name: str
    runtime: str
    artifact: str  # its kind: onnx, onnx-int8, saved_model, torch
    method: str  # how it was converted
    device: str  # cpu, or cuda:N
    threads: int  # of computation, of each worker
    instances: int  # workers that are wanted
    workers: int  # workers that are ready
    state: str  # stopped, starting, ready, down
    reason: str  # where it is down: why
    restarts: int
    preferred: bool  # free rows go here now
    takes_free_rows: bool  # else a variant, which serves rows that name it
    artifact_bytes: int
    parity: Parity
    worker_cpu_s: float  # CPU time of the workers that live, since each started
    resident_bytes: int  # memory of the workers, now

    @classmethod
    def from_wire(cls, backend: wire.ListedBackend) -> ListedBackend:
        """Read one backend."""
        return cls(
            backend.name,
            backend.runtime,
            backend.artifact,
            backend.method,
            backend.device,
            backend.threads,
            backend.instances,
            backend.workers,
            backend.state,
            backend.reason,
            backend.restarts,
            backend.preferred,
            backend.takes_free_rows,
            backend.artifact_bytes,
            Parity.from_wire(backend.parity),
            backend.worker_cpu_us / 1e6,
            backend.resident_bytes,
        )


@dataclass(frozen=True, slots=True)
class ListedModel:
    """One model with its backends."""

    name: str
    version: int
    labels: tuple[str, ...]
    max_tokens: int
    framework: str  # of the source
    layer: str
    ready: bool
    queued_rows: int
    expected_wait_s: float  # of a row that came now and names no backend
    backends: tuple[ListedBackend, ...]
    refused_artifacts: Mapping[str, str]  # by kind: why the gate did not let it be published

    @classmethod
    def from_wire(cls, model: wire.ListedModel) -> ListedModel:
        """Read one model."""
        return cls(
            model.name,
            model.version,
            tuple(model.labels),
            model.max_tokens,
            model.framework,
            model.layer,
            model.ready,
            model.queued_rows,
            model.expected_wait_us / 1e6,
            tuple(map(ListedBackend.from_wire, model.backends)),
            dict(model.refused_artifacts),
        )


@dataclass(frozen=True, slots=True)
class RefusedModel:
    """A model that is not served, and why."""

    name: str
    version: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class UnloadedModel:
    """A model that was served, and takes no calls until it is loaded again."""

    name: str
    version: int  # that was served
    reason: str


@dataclass(frozen=True, slots=True)
class ModelList:
    """Everything in a server's repository."""

    models: tuple[ListedModel, ...]
    refused: tuple[RefusedModel, ...]
    unloaded: tuple[UnloadedModel, ...]

    @classmethod
    def from_wire(cls, response: wire.ListModelsResponse) -> ModelList:
        """Read a list."""
        return cls(
            tuple(map(ListedModel.from_wire, response.models)),
            tuple(RefusedModel(one.name, one.version or None, one.reason) for one in response.refused),
            tuple(UnloadedModel(one.name, one.version, one.reason) for one in response.unloaded),
        )


@dataclass(frozen=True, slots=True)
class PhaseLatency:
    """The time that rows spent in a phase, milliseconds."""

    count: int  # rows
    mean_ms: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float


def _phases(found: Iterable[wire.PhaseLatency]) -> dict[str, PhaseLatency]:
    return {
        one.phase: PhaseLatency(
            one.count, one.mean_us / 1e3, one.p50_us / 1e3, one.p90_us / 1e3, one.p99_us / 1e3, one.max_us / 1e3
        )
        for one in found
    }


@dataclass(frozen=True, slots=True)
class LengthLatency:
    """The phases of rows of some lengths."""

    longer_than: int  # tokens
    up_to: int | None  # tokens; None: no bound
    phases: Mapping[str, PhaseLatency]


@dataclass(frozen=True, slots=True)
class BackendLatency:
    """What one backend did within the window."""

    model: str
    version: int
    backend: str
    rows: int
    batches: int
    tokens: int  # without padding
    padded_tokens: int
    rows_per_s: float
    tokens_per_s: float
    padding_ratio: float  # padded tokens / tokens; 0: nothing was executed
    mean_batch_rows: float
    execute_cpu_s: float  # CPU time of the workers while they executed
    cpu_ms_per_row: float  # of it
    worker_cpu_s: float  # CPU time of the workers that live, since each started
    resident_bytes: int  # memory of the workers, now
    phases: Mapping[str, PhaseLatency]  # by name, in the order of a row's life; the last, request, is all together
    lengths: tuple[LengthLatency, ...]  # shortest first

    @classmethod
    def from_wire(cls, backend: wire.BackendLatency) -> BackendLatency:
        """Read one backend."""
        return cls(
            backend.model,
            backend.version,
            backend.backend,
            backend.rows,
            backend.batches,
            backend.tokens,
            backend.padded_tokens,
            backend.rows_per_s,
            backend.tokens_per_s,
            backend.padding_ratio,
            backend.mean_batch_rows,
            backend.execute_cpu_us / 1e6,
            backend.cpu_us_per_row / 1e3,
            backend.worker_cpu_us / 1e6,
            backend.resident_bytes,
            _phases(backend.phases),
            tuple(LengthLatency(one.longer_than, one.up_to or None, _phases(one.phases)) for one in backend.lengths),
        )


@dataclass(frozen=True, slots=True)
class GatewayLoad:
    """What the gateway's own process uses."""

    cpu_s: float  # since it started
    window_cpu_s: float  # of it, since the first row of the window
    resident_bytes: int


@dataclass(frozen=True, slots=True)
class LatencyReport:
    """How long rows took recently."""

    window_s: float  # what the figures are over: as asked for, and up to one slot of time more
    relative_error: float  # bound of the error of p50, p90 and p99; the other figures are exact
    backends: tuple[BackendLatency, ...]
    gateway: GatewayLoad

    @classmethod
    def from_wire(cls, response: wire.LatencyReportResponse) -> LatencyReport:
        """Read a report."""
        gateway = response.gateway
        return cls(
            response.window_s,
            response.relative_error,
            tuple(map(BackendLatency.from_wire, response.backends)),
            GatewayLoad(gateway.cpu_us / 1e6, gateway.window_cpu_us / 1e6, gateway.resident_bytes),
        )
