from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class StreamRequest(_message.Message):
    __slots__ = ("classify", "cancel", "timeout_us", "together")
    CLASSIFY_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_US_FIELD_NUMBER: _ClassVar[int]
    TOGETHER_FIELD_NUMBER: _ClassVar[int]
    classify: ClassifyRequest
    cancel: str
    timeout_us: int
    together: bool
    def __init__(self, classify: _Optional[_Union[ClassifyRequest, _Mapping]] = ..., cancel: _Optional[str] = ..., timeout_us: _Optional[int] = ..., together: _Optional[bool] = ...) -> None: ...

class StreamResponse(_message.Message):
    __slots__ = ("id", "response", "error", "more")
    ID_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    id: str
    response: ClassifyResponse
    error: Error
    more: _containers.RepeatedCompositeFieldContainer[StreamResponse]
    def __init__(self, id: _Optional[str] = ..., response: _Optional[_Union[ClassifyResponse, _Mapping]] = ..., error: _Optional[_Union[Error, _Mapping]] = ..., more: _Optional[_Iterable[_Union[StreamResponse, _Mapping]]] = ...) -> None: ...

class ClassifyRequest(_message.Message):
    __slots__ = ("model", "texts", "truncate", "priority", "id")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATE_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    model: str
    texts: _containers.RepeatedScalarFieldContainer[str]
    truncate: bool
    priority: int
    id: str
    def __init__(self, model: _Optional[str] = ..., texts: _Optional[_Iterable[str]] = ..., truncate: _Optional[bool] = ..., priority: _Optional[int] = ..., id: _Optional[str] = ...) -> None: ...

class ClassifyResponse(_message.Message):
    __slots__ = ("model", "version", "id", "labels", "results")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    id: str
    labels: _containers.RepeatedScalarFieldContainer[str]
    results: _containers.RepeatedCompositeFieldContainer[Result]
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ..., id: _Optional[str] = ..., labels: _Optional[_Iterable[str]] = ..., results: _Optional[_Iterable[_Union[Result, _Mapping]]] = ...) -> None: ...

class Result(_message.Message):
    __slots__ = ("prediction", "error")
    PREDICTION_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    prediction: Prediction
    error: Error
    def __init__(self, prediction: _Optional[_Union[Prediction, _Mapping]] = ..., error: _Optional[_Union[Error, _Mapping]] = ...) -> None: ...

class Prediction(_message.Message):
    __slots__ = ("label", "probabilities", "truncated", "tokens", "backend", "phases", "batch_rows", "batch_tokens")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    PROBABILITIES_FIELD_NUMBER: _ClassVar[int]
    TRUNCATED_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    PHASES_FIELD_NUMBER: _ClassVar[int]
    BATCH_ROWS_FIELD_NUMBER: _ClassVar[int]
    BATCH_TOKENS_FIELD_NUMBER: _ClassVar[int]
    label: str
    probabilities: _containers.RepeatedScalarFieldContainer[float]
    truncated: bool
    tokens: int
    backend: str
    phases: Phases
    batch_rows: int
    batch_tokens: int
    def __init__(self, label: _Optional[str] = ..., probabilities: _Optional[_Iterable[float]] = ..., truncated: _Optional[bool] = ..., tokens: _Optional[int] = ..., backend: _Optional[str] = ..., phases: _Optional[_Union[Phases, _Mapping]] = ..., batch_rows: _Optional[int] = ..., batch_tokens: _Optional[int] = ...) -> None: ...

class Phases(_message.Message):
    __slots__ = ("decode_us", "tokenize_us", "queue_us", "pad_us", "transfer_us", "execute_us", "respond_us")
    DECODE_US_FIELD_NUMBER: _ClassVar[int]
    TOKENIZE_US_FIELD_NUMBER: _ClassVar[int]
    QUEUE_US_FIELD_NUMBER: _ClassVar[int]
    PAD_US_FIELD_NUMBER: _ClassVar[int]
    TRANSFER_US_FIELD_NUMBER: _ClassVar[int]
    EXECUTE_US_FIELD_NUMBER: _ClassVar[int]
    RESPOND_US_FIELD_NUMBER: _ClassVar[int]
    decode_us: int
    tokenize_us: int
    queue_us: int
    pad_us: int
    transfer_us: int
    execute_us: int
    respond_us: int
    def __init__(self, decode_us: _Optional[int] = ..., tokenize_us: _Optional[int] = ..., queue_us: _Optional[int] = ..., pad_us: _Optional[int] = ..., transfer_us: _Optional[int] = ..., execute_us: _Optional[int] = ..., respond_us: _Optional[int] = ...) -> None: ...

class Error(_message.Message):
    __slots__ = ("kind", "code", "message", "retry_after_ms")
    KIND_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    kind: str
    code: int
    message: str
    retry_after_ms: int
    def __init__(self, kind: _Optional[str] = ..., code: _Optional[int] = ..., message: _Optional[str] = ..., retry_after_ms: _Optional[int] = ...) -> None: ...

class CompareRequest(_message.Message):
    __slots__ = ("model", "texts", "backends", "truncate", "priority")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    BACKENDS_FIELD_NUMBER: _ClassVar[int]
    TRUNCATE_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    model: str
    texts: _containers.RepeatedScalarFieldContainer[str]
    backends: _containers.RepeatedScalarFieldContainer[str]
    truncate: bool
    priority: int
    def __init__(self, model: _Optional[str] = ..., texts: _Optional[_Iterable[str]] = ..., backends: _Optional[_Iterable[str]] = ..., truncate: _Optional[bool] = ..., priority: _Optional[int] = ...) -> None: ...

class CompareResponse(_message.Message):
    __slots__ = ("model", "version", "labels", "backends", "reference", "agreement")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    BACKENDS_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    AGREEMENT_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    labels: _containers.RepeatedScalarFieldContainer[str]
    backends: _containers.RepeatedCompositeFieldContainer[BackendAnswers]
    reference: str
    agreement: Agreement
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ..., labels: _Optional[_Iterable[str]] = ..., backends: _Optional[_Iterable[_Union[BackendAnswers, _Mapping]]] = ..., reference: _Optional[str] = ..., agreement: _Optional[_Union[Agreement, _Mapping]] = ...) -> None: ...

class BackendAnswers(_message.Message):
    __slots__ = ("backend", "held_to_float32", "results", "error", "agreement")
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    HELD_TO_FLOAT32_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    AGREEMENT_FIELD_NUMBER: _ClassVar[int]
    backend: str
    held_to_float32: bool
    results: _containers.RepeatedCompositeFieldContainer[Result]
    error: Error
    agreement: Agreement
    def __init__(self, backend: _Optional[str] = ..., held_to_float32: _Optional[bool] = ..., results: _Optional[_Iterable[_Union[Result, _Mapping]]] = ..., error: _Optional[_Union[Error, _Mapping]] = ..., agreement: _Optional[_Union[Agreement, _Mapping]] = ...) -> None: ...

class Agreement(_message.Message):
    __slots__ = ("texts", "largest_difference", "labels_differ")
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    LARGEST_DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    LABELS_DIFFER_FIELD_NUMBER: _ClassVar[int]
    texts: int
    largest_difference: float
    labels_differ: int
    def __init__(self, texts: _Optional[int] = ..., largest_difference: _Optional[float] = ..., labels_differ: _Optional[int] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models", "refused", "unloaded")
    MODELS_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    UNLOADED_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[ListedModel]
    refused: _containers.RepeatedCompositeFieldContainer[RefusedModel]
    unloaded: _containers.RepeatedCompositeFieldContainer[UnloadedModel]
    def __init__(self, models: _Optional[_Iterable[_Union[ListedModel, _Mapping]]] = ..., refused: _Optional[_Iterable[_Union[RefusedModel, _Mapping]]] = ..., unloaded: _Optional[_Iterable[_Union[UnloadedModel, _Mapping]]] = ...) -> None: ...

class ListedModel(_message.Message):
    __slots__ = ("name", "version", "labels", "max_tokens", "framework", "layer", "ready", "queued_rows", "expected_wait_us", "backends", "refused_artifacts")
    class RefusedArtifactsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    FRAMEWORK_FIELD_NUMBER: _ClassVar[int]
    LAYER_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    QUEUED_ROWS_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_WAIT_US_FIELD_NUMBER: _ClassVar[int]
    BACKENDS_FIELD_NUMBER: _ClassVar[int]
    REFUSED_ARTIFACTS_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    labels: _containers.RepeatedScalarFieldContainer[str]
    max_tokens: int
    framework: str
    layer: str
    ready: bool
    queued_rows: int
    expected_wait_us: int
    backends: _containers.RepeatedCompositeFieldContainer[ListedBackend]
    refused_artifacts: _containers.ScalarMap[str, str]
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., labels: _Optional[_Iterable[str]] = ..., max_tokens: _Optional[int] = ..., framework: _Optional[str] = ..., layer: _Optional[str] = ..., ready: _Optional[bool] = ..., queued_rows: _Optional[int] = ..., expected_wait_us: _Optional[int] = ..., backends: _Optional[_Iterable[_Union[ListedBackend, _Mapping]]] = ..., refused_artifacts: _Optional[_Mapping[str, str]] = ...) -> None: ...

class ListedBackend(_message.Message):
    __slots__ = ("name", "runtime", "artifact", "method", "device", "threads", "instances", "workers", "state", "reason", "restarts", "preferred", "takes_free_rows", "artifact_bytes", "parity", "worker_cpu_us", "resident_bytes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    RUNTIME_FIELD_NUMBER: _ClassVar[int]
    ARTIFACT_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    RESTARTS_FIELD_NUMBER: _ClassVar[int]
    PREFERRED_FIELD_NUMBER: _ClassVar[int]
    TAKES_FREE_ROWS_FIELD_NUMBER: _ClassVar[int]
    ARTIFACT_BYTES_FIELD_NUMBER: _ClassVar[int]
    PARITY_FIELD_NUMBER: _ClassVar[int]
    WORKER_CPU_US_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    runtime: str
    artifact: str
    method: str
    device: str
    threads: int
    instances: int
    workers: int
    state: str
    reason: str
    restarts: int
    preferred: bool
    takes_free_rows: bool
    artifact_bytes: int
    parity: Parity
    worker_cpu_us: int
    resident_bytes: int
    def __init__(self, name: _Optional[str] = ..., runtime: _Optional[str] = ..., artifact: _Optional[str] = ..., method: _Optional[str] = ..., device: _Optional[str] = ..., threads: _Optional[int] = ..., instances: _Optional[int] = ..., workers: _Optional[int] = ..., state: _Optional[str] = ..., reason: _Optional[str] = ..., restarts: _Optional[int] = ..., preferred: _Optional[bool] = ..., takes_free_rows: _Optional[bool] = ..., artifact_bytes: _Optional[int] = ..., parity: _Optional[_Union[Parity, _Mapping]] = ..., worker_cpu_us: _Optional[int] = ..., resident_bytes: _Optional[int] = ...) -> None: ...

class Parity(_message.Message):
    __slots__ = ("rows", "batches", "largest_difference", "padding_invariance", "label_agreement", "masks_beyond_end", "atol", "rtol", "min_label_agreement", "max_accuracy_points", "accuracy", "source_accuracy")
    ROWS_FIELD_NUMBER: _ClassVar[int]
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    LARGEST_DIFFERENCE_FIELD_NUMBER: _ClassVar[int]
    PADDING_INVARIANCE_FIELD_NUMBER: _ClassVar[int]
    LABEL_AGREEMENT_FIELD_NUMBER: _ClassVar[int]
    MASKS_BEYOND_END_FIELD_NUMBER: _ClassVar[int]
    ATOL_FIELD_NUMBER: _ClassVar[int]
    RTOL_FIELD_NUMBER: _ClassVar[int]
    MIN_LABEL_AGREEMENT_FIELD_NUMBER: _ClassVar[int]
    MAX_ACCURACY_POINTS_FIELD_NUMBER: _ClassVar[int]
    ACCURACY_FIELD_NUMBER: _ClassVar[int]
    SOURCE_ACCURACY_FIELD_NUMBER: _ClassVar[int]
    rows: int
    batches: int
    largest_difference: float
    padding_invariance: float
    label_agreement: float
    masks_beyond_end: bool
    atol: float
    rtol: float
    min_label_agreement: float
    max_accuracy_points: float
    accuracy: float
    source_accuracy: float
    def __init__(self, rows: _Optional[int] = ..., batches: _Optional[int] = ..., largest_difference: _Optional[float] = ..., padding_invariance: _Optional[float] = ..., label_agreement: _Optional[float] = ..., masks_beyond_end: _Optional[bool] = ..., atol: _Optional[float] = ..., rtol: _Optional[float] = ..., min_label_agreement: _Optional[float] = ..., max_accuracy_points: _Optional[float] = ..., accuracy: _Optional[float] = ..., source_accuracy: _Optional[float] = ...) -> None: ...

class RefusedModel(_message.Message):
    __slots__ = ("name", "version", "reason")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    reason: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class UnloadedModel(_message.Message):
    __slots__ = ("name", "version", "reason")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    reason: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class LatencyReportRequest(_message.Message):
    __slots__ = ("model", "backend", "window_s")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    WINDOW_S_FIELD_NUMBER: _ClassVar[int]
    model: str
    backend: str
    window_s: float
    def __init__(self, model: _Optional[str] = ..., backend: _Optional[str] = ..., window_s: _Optional[float] = ...) -> None: ...

class LatencyReportResponse(_message.Message):
    __slots__ = ("window_s", "relative_error", "backends", "gateway")
    WINDOW_S_FIELD_NUMBER: _ClassVar[int]
    RELATIVE_ERROR_FIELD_NUMBER: _ClassVar[int]
    BACKENDS_FIELD_NUMBER: _ClassVar[int]
    GATEWAY_FIELD_NUMBER: _ClassVar[int]
    window_s: float
    relative_error: float
    backends: _containers.RepeatedCompositeFieldContainer[BackendLatency]
    gateway: GatewayLoad
    def __init__(self, window_s: _Optional[float] = ..., relative_error: _Optional[float] = ..., backends: _Optional[_Iterable[_Union[BackendLatency, _Mapping]]] = ..., gateway: _Optional[_Union[GatewayLoad, _Mapping]] = ...) -> None: ...

class BackendLatency(_message.Message):
    __slots__ = ("model", "version", "backend", "rows", "batches", "tokens", "padded_tokens", "rows_per_s", "tokens_per_s", "padding_ratio", "mean_batch_rows", "execute_cpu_us", "cpu_us_per_row", "worker_cpu_us", "resident_bytes", "phases", "lengths")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    BACKEND_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    BATCHES_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    PADDED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ROWS_PER_S_FIELD_NUMBER: _ClassVar[int]
    TOKENS_PER_S_FIELD_NUMBER: _ClassVar[int]
    PADDING_RATIO_FIELD_NUMBER: _ClassVar[int]
    MEAN_BATCH_ROWS_FIELD_NUMBER: _ClassVar[int]
    EXECUTE_CPU_US_FIELD_NUMBER: _ClassVar[int]
    CPU_US_PER_ROW_FIELD_NUMBER: _ClassVar[int]
    WORKER_CPU_US_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    PHASES_FIELD_NUMBER: _ClassVar[int]
    LENGTHS_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    backend: str
    rows: int
    batches: int
    tokens: int
    padded_tokens: int
    rows_per_s: float
    tokens_per_s: float
    padding_ratio: float
    mean_batch_rows: float
    execute_cpu_us: int
    cpu_us_per_row: float
    worker_cpu_us: int
    resident_bytes: int
    phases: _containers.RepeatedCompositeFieldContainer[PhaseLatency]
    lengths: _containers.RepeatedCompositeFieldContainer[LengthLatency]
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ..., backend: _Optional[str] = ..., rows: _Optional[int] = ..., batches: _Optional[int] = ..., tokens: _Optional[int] = ..., padded_tokens: _Optional[int] = ..., rows_per_s: _Optional[float] = ..., tokens_per_s: _Optional[float] = ..., padding_ratio: _Optional[float] = ..., mean_batch_rows: _Optional[float] = ..., execute_cpu_us: _Optional[int] = ..., cpu_us_per_row: _Optional[float] = ..., worker_cpu_us: _Optional[int] = ..., resident_bytes: _Optional[int] = ..., phases: _Optional[_Iterable[_Union[PhaseLatency, _Mapping]]] = ..., lengths: _Optional[_Iterable[_Union[LengthLatency, _Mapping]]] = ...) -> None: ...

class LengthLatency(_message.Message):
    __slots__ = ("longer_than", "up_to", "phases")
    LONGER_THAN_FIELD_NUMBER: _ClassVar[int]
    UP_TO_FIELD_NUMBER: _ClassVar[int]
    PHASES_FIELD_NUMBER: _ClassVar[int]
    longer_than: int
    up_to: int
    phases: _containers.RepeatedCompositeFieldContainer[PhaseLatency]
    def __init__(self, longer_than: _Optional[int] = ..., up_to: _Optional[int] = ..., phases: _Optional[_Iterable[_Union[PhaseLatency, _Mapping]]] = ...) -> None: ...

class PhaseLatency(_message.Message):
    __slots__ = ("phase", "count", "mean_us", "p50_us", "p90_us", "p99_us", "max_us")
    PHASE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    MEAN_US_FIELD_NUMBER: _ClassVar[int]
    P50_US_FIELD_NUMBER: _ClassVar[int]
    P90_US_FIELD_NUMBER: _ClassVar[int]
    P99_US_FIELD_NUMBER: _ClassVar[int]
    MAX_US_FIELD_NUMBER: _ClassVar[int]
    phase: str
    count: int
    mean_us: float
    p50_us: float
    p90_us: float
    p99_us: float
    max_us: float
    def __init__(self, phase: _Optional[str] = ..., count: _Optional[int] = ..., mean_us: _Optional[float] = ..., p50_us: _Optional[float] = ..., p90_us: _Optional[float] = ..., p99_us: _Optional[float] = ..., max_us: _Optional[float] = ...) -> None: ...

class GatewayLoad(_message.Message):
    __slots__ = ("cpu_us", "window_cpu_us", "resident_bytes")
    CPU_US_FIELD_NUMBER: _ClassVar[int]
    WINDOW_CPU_US_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    cpu_us: int
    window_cpu_us: int
    resident_bytes: int
    def __init__(self, cpu_us: _Optional[int] = ..., window_cpu_us: _Optional[int] = ..., resident_bytes: _Optional[int] = ...) -> None: ...
