"""What answers are: typed, frozen, in the caller's words. Knows the wire's messages, not how they travel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TypeAlias

import grpc

from lockstep.clients.errors import RowError, RowsFailed, ServerFailure
from lockstep.protos import open_inference_pb2 as oip
from lockstep.protos import sentiment_pb2 as wire


@dataclass(frozen=True, slots=True)
class Phases:
    """The time a row spent in each phase at the server, milliseconds; together they are its whole stay."""

    decode_ms: float
    tokenize_ms: float
    queue_ms: float
    pad_ms: float
    transfer_ms: float
    execute_ms: float
    respond_ms: float

    @property
    def total_ms(self) -> float:
        """From the arrival of the call at the server to its answer, milliseconds."""
        return sum(self.as_dict().values())

    def as_dict(self) -> dict[str, float]:
        """Return milliseconds by the phase's name, in the order of a row's life."""
        return {field.name.removesuffix("_ms"): getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_wire(cls, phases: wire.Phases) -> Phases:
        """Read microseconds from the wire."""
        return cls(  # by position, in the order of the fields: rows come by the million, and names cost a third
            phases.decode_us / 1000,
            phases.tokenize_us / 1000,
            phases.queue_us / 1000,
            phases.pad_us / 1000,
            phases.transfer_us / 1000,
            phases.execute_us / 1000,
            phases.respond_us / 1000,
        )


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer to one text."""

    label: str
    score: float  # the probability of `label`
    probabilities: Mapping[str, float]  # by label, in the model's order
    truncated: bool  # the text was too long and was cut, as the call allowed
    tokens: int  # after truncation
    backend: str
    phases: Phases
    batch_rows: int  # rows executed together
    batch_tokens: int  # the longest of them: what this row was padded to

    @classmethod
    def from_wire(cls, prediction: wire.Prediction, labels: Sequence[str]) -> Prediction:
        """Read one row of a model with these labels."""
        probabilities = dict(zip(labels, prediction.probabilities[:], strict=True))  # a list: read at once
        label = prediction.label
        return cls(
            label,
            probabilities[label],
            probabilities,
            prediction.truncated,
            prediction.tokens,
            prediction.backend,
            Phases.from_wire(prediction.phases),
            prediction.batch_rows,
            prediction.batch_tokens,
        )


Result: TypeAlias = Prediction | RowError


def raise_for_errors(results: Sequence[Result]) -> list[Prediction]:
    """Return the predictions if every row has one; raises `RowsFailed` otherwise."""
    errors = {row: result for row, result in enumerate(results) if isinstance(result, RowError)}
    if errors:
        raise RowsFailed(errors, len(results))
    return [result for result in results if isinstance(result, Prediction)]


def results_from_wire(response: wire.ClassifyResponse, *, rows: int) -> list[Result]:
    """Read every row of an answer to `rows` texts, in order; raises `ServerFailure` for a malformed one."""
    labels = tuple(response.labels)
    if len(response.results) != rows:
        raise malformed(f"{len(response.results)} results for {rows} texts")
    return [result_from_wire(row, result, labels) for row, result in enumerate(response.results)]


def result_from_wire(row: int, result: wire.Result, labels: tuple[str, ...]) -> Result:
    """Read one row of an answer; raises `ServerFailure` for a malformed one."""
    match result.WhichOneof("outcome"):
        case "prediction":
            prediction = result.prediction
            if prediction.label not in labels or len(prediction.probabilities) != len(labels):
                raise malformed(f"row {row} does not fit the labels {labels}")
            return Prediction.from_wire(prediction, labels)
        case "error":
            return RowError.from_wire(result.error)
        case _:
            raise malformed(f"row {row} is neither a prediction nor an error")


def malformed(what: str) -> ServerFailure:
    """Return the error of an answer that is not what the contract says."""
    return ServerFailure(f"malformed answer: {what}", code=grpc.StatusCode.INTERNAL)


@dataclass(frozen=True, slots=True)
class ServedBackend:
    """One backend of a model, as the server lists it."""

    name: str
    version: str
    state: str  # READY, LOADING, UNAVAILABLE, ...
    reason: str  # why it is not ready; empty otherwise

    @property
    def ready(self) -> bool:
        """Whether it would answer now."""
        return self.state == "READY"


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One model, as the server lists it, with its backends."""

    name: str
    version: str
    state: str
    reason: str
    backends: tuple[ServedBackend, ...]

    @property
    def ready(self) -> bool:
        """Whether some backend of it would answer now."""
        return self.state == "READY"


def models_from_index(index: oip.RepositoryIndexResponse) -> tuple[ServedModel, ...]:
    """Group the index, which lists `<model>` and `<model>@<backend>`, by model; keeps the server's order."""
    backends: dict[str, list[ServedBackend]] = {}
    models: dict[str, oip.RepositoryIndexResponse.ModelIndex] = {}
    for entry in index.models:
        model, at, backend = entry.name.partition("@")
        listed = backends.setdefault(model, [])
        if at:
            listed.append(ServedBackend(backend, entry.version, entry.state, entry.reason))
        else:
            models[model] = entry
    return tuple(
        ServedModel(name, entry.version, entry.state, entry.reason, tuple(backends[name]))
        for name, entry in models.items()
    )


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output of a model in the Open Inference Protocol."""

    name: str
    datatype: str
    shape: tuple[int, ...]  # -1: any size


@dataclass(frozen=True, slots=True)
class ModelMetadata:
    """What a model takes and gives in the Open Inference Protocol."""

    name: str
    versions: tuple[str, ...]
    platform: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @classmethod
    def from_wire(cls, metadata: oip.ModelMetadataResponse) -> ModelMetadata:
        """Read a metadata answer."""

        def tensors(found: Sequence[oip.ModelMetadataResponse.TensorMetadata]) -> tuple[Tensor, ...]:
            return tuple(Tensor(t.name, t.datatype, tuple(t.shape)) for t in found)

        return cls(
            metadata.name,
            tuple(metadata.versions),
            metadata.platform,
            tensors(metadata.inputs),
            tensors(metadata.outputs),
        )


@dataclass(frozen=True, slots=True)
class ServerMetadata:
    """Who answers at the address."""

    name: str
    version: str
    extensions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Duration:
    """How often something happened, and how long it took in all (nanoseconds)."""

    count: int
    ns: int

    def since(self, earlier: Duration) -> Duration:
        """Return what was added after `earlier`."""
        return Duration(self.count - earlier.count, self.ns - earlier.ns)

    @property
    def mean_ms(self) -> float:
        """The mean in milliseconds; 0 where nothing was counted."""
        return self.ns / self.count / 1e6 if self.count else 0.0

    @classmethod
    def from_wire(cls, duration: oip.StatisticDuration) -> Duration:
        """Read a statistic."""
        return cls(duration.count, duration.ns)


@dataclass(frozen=True, slots=True)
class ModelStatistics:
    """A model's (or `<model>@<backend>`'s) counters since its server started; subtract two with `since`."""

    name: str
    version: str
    rows: int
    batches: int
    success: Duration  # calls
    fail: Duration  # calls
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration

    def since(self, earlier: ModelStatistics) -> ModelStatistics:
        """Return what was added after `earlier`, which is of the same model."""
        return ModelStatistics(
            self.name,
            self.version,
            self.rows - earlier.rows,
            self.batches - earlier.batches,
            self.success.since(earlier.success),
            self.fail.since(earlier.fail),
            self.queue.since(earlier.queue),
            self.compute_input.since(earlier.compute_input),
            self.compute_infer.since(earlier.compute_infer),
            self.compute_output.since(earlier.compute_output),
        )

    @classmethod
    def from_wire(cls, statistics: oip.ModelStatistics) -> ModelStatistics:
        """Read one model's counters."""
        stats = statistics.inference_stats
        return cls(
            statistics.name,
            statistics.version,
            statistics.inference_count,
            statistics.execution_count,
            Duration.from_wire(stats.success),
            Duration.from_wire(stats.fail),
            Duration.from_wire(stats.queue),
            Duration.from_wire(stats.compute_input),
            Duration.from_wire(stats.compute_infer),
            Duration.from_wire(stats.compute_output),
        )
