"""Open Inference Protocol v2 on the wire: protobuf <-> core types, nothing more."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence

import grpc

from lockstep.protos import open_inference_pb2 as oip
from lockstep.server import __version__
from lockstep.server.core.errors import InvalidInput, LockstepError, NotPermitted
from lockstep.server.core.messages import Answer, ModelRef, Prediction, PredictRequest
from lockstep.server.core.timing import now_ns
from lockstep.server.gateway import Gateway, ServedModel
from lockstep.server.inference_statistics import Counts, Duration, Statistics
from lockstep.server.loading import Loader
from lockstep.server.rpc.model_config import INPUTS, model_config, outputs
from lockstep.server.rpc.status import CallInstants, parse, told, unary, unimplemented
from lockstep.server.rpc.stream import CancelRequest, Opened, Refused, StreamLimits, Streams
from lockstep.server.rpc.tensors import check_outputs, outputs_of, rows_of
from lockstep.server.runtimes.usage import Usage, usage_of
from lockstep.server.scheduling.backend import Backend, State

SERVICE = "inference.GRPCInferenceService"
EXTENSIONS = ("statistics", "model_repository", "model_configuration")
_NO_SHARED_MEMORY = "this server takes tensors in messages only: send them in the request"
_NOT_HERE = {
    "TraceSetting": "there is no tracing here: every answer carries the time of its phases",
    "LogSettings": "logs are configured when the server starts",
    **dict.fromkeys(
        (
            f"{kind}SharedMemory{action}"
            for kind in ("System", "Cuda")
            for action in ("Status", "Register", "Unregister")
        ),
        _NO_SHARED_MEMORY,
    ),
}
"""Methods of the protocol's best-known server that this one does not have, and what to do instead."""
_ASKS_FOR_THE_LAST, _IS_THE_LAST = "triton_enable_empty_final_response", "triton_final_response"
"""Parameters of streams: a client that is ready for several responses to a request asks which is the last."""
_MOST_DIGITS = 18
_PRIORITIES = range(-(2**31), 2**31)
_PARAMETERS = {
    "truncate": ("bool_param",),
    "priority": ("int64_param", "uint64_param"),
    "timeout": ("int64_param", "uint64_param"),
}


class InferenceService:
    """The service over a gateway."""

    def __init__(
        self, gateway: Gateway, statistics: Statistics, limits: StreamLimits, loader: Loader | None = None
    ) -> None:
        """`loader`: None where models are neither loaded nor unloaded by call."""
        self._gateway = gateway
        self._loader = loader
        self.streams = Streams("ModelStreamInfer", gateway, _StreamDialect(gateway), limits)
        self._statistics = statistics

    def handler(self) -> grpc.GenericRpcHandler:
        """Return what a server needs to route calls here."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "ServerLive": unary("ServerLive", oip.ServerLiveRequest, self.server_live),
                "ServerReady": unary("ServerReady", oip.ServerReadyRequest, self.server_ready),
                "ModelReady": unary("ModelReady", oip.ModelReadyRequest, self.model_ready),
                "ServerMetadata": unary("ServerMetadata", oip.ServerMetadataRequest, self.server_metadata),
                "ModelMetadata": unary("ModelMetadata", oip.ModelMetadataRequest, self.model_metadata),
                "ModelConfig": unary("ModelConfig", oip.ModelConfigRequest, self.model_config),
                "ModelInfer": unary("ModelInfer", oip.ModelInferRequest, self.model_infer),
                "ModelStreamInfer": self.streams.handler(),
                "ModelStatistics": unary("ModelStatistics", oip.ModelStatisticsRequest, self.model_statistics),
                "RepositoryIndex": unary("RepositoryIndex", oip.RepositoryIndexRequest, self.repository_index),
                "RepositoryModelLoad": unary(
                    "RepositoryModelLoad", oip.RepositoryModelLoadRequest, self.repository_model_load
                ),
                "RepositoryModelUnload": unary(
                    "RepositoryModelUnload", oip.RepositoryModelUnloadRequest, self.repository_model_unload
                ),
                **{method: unimplemented(method, reason) for method, reason in _NOT_HERE.items()},
            },
        )

    async def server_live(self, request: oip.ServerLiveRequest, instants: CallInstants) -> oip.ServerLiveResponse:
        """Say that the server answers."""
        return oip.ServerLiveResponse(live=True)

    async def server_ready(self, request: oip.ServerReadyRequest, instants: CallInstants) -> oip.ServerReadyResponse:
        """Say whether every accepted model can execute."""
        return oip.ServerReadyResponse(ready=self._gateway.ready)

    async def model_ready(self, request: oip.ModelReadyRequest, instants: CallInstants) -> oip.ModelReadyResponse:
        """Say whether a model, or the backend that is named, can execute."""
        return oip.ModelReadyResponse(ready=self._gateway.is_ready(_ref(request.name, request.version)))

    async def server_metadata(
        self, request: oip.ServerMetadataRequest, instants: CallInstants
    ) -> oip.ServerMetadataResponse:
        """Say what the server is."""
        return oip.ServerMetadataResponse(name="lockstep", version=__version__, extensions=EXTENSIONS)

    async def model_metadata(
        self, request: oip.ModelMetadataRequest, instants: CallInstants
    ) -> oip.ModelMetadataResponse:
        """Say what a model takes and answers. Text, or ids with a mask or lengths: one of the two."""
        ref = _ref(request.name, request.version)
        manifest = self._gateway.model(ref).manifest
        platform = self._gateway.backend(ref).name if ref.backend else "lockstep"
        tensor = oip.ModelMetadataResponse.TensorMetadata
        return oip.ModelMetadataResponse(
            name=request.name,
            versions=[str(manifest.version)],
            platform=platform,
            inputs=[tensor(name=one.name, datatype=one.datatype, shape=one.shape) for one in INPUTS],
            outputs=[
                tensor(name=one.name, datatype=one.datatype, shape=one.shape) for one in outputs(len(manifest.labels))
            ],
        )

    async def model_config(self, request: oip.ModelConfigRequest, instants: CallInstants) -> oip.ModelConfigResponse:
        """Say how a model, or a backend of it, is batched and where it runs."""
        ref = _ref(request.name, request.version)
        served = self._gateway.model(ref)
        backends = self._backends(ref, served)
        platform = backends[0].name if ref.backend else "lockstep"
        return oip.ModelConfigResponse(config=model_config(request.name, served, backends, platform))

    async def model_infer(self, request: oip.ModelInferRequest, instants: CallInstants) -> oip.ModelInferResponse:
        """Answer a call as a whole; the first row at fault fails it, and is named."""
        return _infer_response(request, await self._gateway.predict(_read(self._gateway, request, instants)))

    async def model_statistics(
        self, request: oip.ModelStatisticsRequest, instants: CallInstants
    ) -> oip.ModelStatisticsResponse:
        """Report a model, or a backend of it; every one of both where none is named."""
        if request.name:
            ref = _ref(request.name, request.version)
            return oip.ModelStatisticsResponse(model_stats=[self._model_stats(ref, self._gateway.model(ref))])
        return oip.ModelStatisticsResponse(
            model_stats=[self._model_stats(ref, served) for ref, served in self._references()]
        )

    async def repository_index(
        self, request: oip.RepositoryIndexRequest, instants: CallInstants
    ) -> oip.RepositoryIndexResponse:
        """List models and backends, and what was refused with the reason."""
        _check_repository(request.repository_name)
        index = oip.RepositoryIndexResponse.ModelIndex
        models = []
        for ref, served in self._references():
            backends = self._backends(ref, served)
            if self._gateway.is_ready(ref):
                state, reason = "READY", ""
            else:
                state = "LOADING" if any(one.state is State.STARTING for one in backends) else "UNAVAILABLE"
                told = [": ".join(filter(None, [one.state, one.reason])) for one in backends]
                reason = told[0] if ref.backend else "no backend is ready yet"
            models.append(index(name=str(ref), version=str(served.manifest.version), state=state, reason=reason))
        for name, number in sorted(self._gateway.unloaded.items()):
            models.append(index(name=name, version=str(number), state="UNAVAILABLE", reason="unloaded"))
        for refused in self._gateway.refused.values():
            version = "" if refused.version is None else str(refused.version)
            models.append(index(name=refused.name, version=version, state="UNAVAILABLE", reason=refused.reason))
        if request.ready:
            models = [model for model in models if model.state == "READY"]
        return oip.RepositoryIndexResponse(models=models)

    async def repository_model_load(
        self, request: oip.RepositoryModelLoadRequest, instants: CallInstants
    ) -> oip.RepositoryModelLoadResponse:
        """Serve a model's highest version in the repository; answers when it takes the calls."""
        loader = self._allowed()
        _check_repository(request.repository_name)
        for name in sorted(request.parameters):
            raise InvalidInput(
                f"parameter {name!r} is not taken: a version is served as it was published; publish another one instead"
            )
        await loader.load(_model_name(request.model_name))
        return oip.RepositoryModelLoadResponse()

    async def repository_model_unload(
        self, request: oip.RepositoryModelUnloadRequest, instants: CallInstants
    ) -> oip.RepositoryModelUnloadResponse:
        """Serve a model no more; answers when its rows are answered and its workers gone."""
        loader = self._allowed()
        _check_repository(request.repository_name)
        for name, parameter in sorted(request.parameters.items()):
            if name != "unload_dependents":
                raise InvalidInput(f"parameter {name!r} is not known, only unload_dependents")
            if parameter.WhichOneof("parameter_choice") != "bool_param":
                raise InvalidInput("parameter unload_dependents must be a bool")
        await loader.unload(_model_name(request.model_name))
        return oip.RepositoryModelUnloadResponse()

    def _allowed(self) -> Loader:
        if self._loader is None:
            raise NotPermitted("this server loads and unloads no model by call: start it with --allow-load for that")
        return self._loader

    def _references(self) -> Iterator[tuple[ModelRef, ServedModel]]:
        for name, served in sorted(self._gateway.models.items()):
            yield ModelRef(name), served
            for backend in served.batcher.backends:
                yield ModelRef(name, backend=backend.name), served

    def _model_stats(self, ref: ModelRef, served: ServedModel) -> oip.ModelStatistics:
        name, version = served.manifest.name, served.manifest.version
        backends = self._backends(ref, served)
        if ref.backend:
            counts = self._statistics.backend(name, version, ref.backend)
        else:
            counts = self._statistics.model(name, version)
        used = usage_of(worker.pid for backend in backends for worker in backend.workers)
        return _statistics(str(ref), version, counts, used)

    def _backends(self, ref: ModelRef, served: ServedModel) -> Sequence[Backend]:
        """Return the backend that is named, or every one of the model."""
        return [self._gateway.backend(ref)] if ref.backend else served.batcher.backends


class _StreamDialect:
    """The messages of ModelStreamInfer."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def open(self, payload: bytes, received_ns: int) -> Opened | Refused | CancelRequest:
        """Read a ModelInferRequest."""
        request = parse(oip.ModelInferRequest, payload)
        try:
            predict = _read(self._gateway, request, CallInstants(received_ns, now_ns(), None))
        except InvalidInput as error:
            return Refused(request.id, _stream_error(request, error))
        return Opened(
            id=request.id,
            request=predict,
            answer=functools.partial(_stream_answer, request),
            error=functools.partial(_stream_error, request),
        )


def _stream_answer(request: oip.ModelInferRequest, prediction: Prediction) -> bytes:
    response = _infer_response(request, prediction)
    if _ASKS_FOR_THE_LAST in request.parameters and request.parameters[_ASKS_FOR_THE_LAST].bool_param:
        response.parameters[_IS_THE_LAST].bool_param = True  # the only one
    return oip.ModelStreamInferResponse(infer_response=response).SerializeToString()


def _stream_error(request: oip.ModelInferRequest, error: LockstepError) -> bytes:
    """Return an answer with the error; the response that goes with it says whose it is, and so does the message.

    tritonclient hands its caller nothing but the message.
    """
    whose = oip.ModelInferResponse(model_name=request.model_name, id=request.id)
    message = f"request {request.id}: {told(error)}" if request.id else told(error)
    return oip.ModelStreamInferResponse(error_message=message, infer_response=whose).SerializeToString()


def _read(gateway: Gateway, request: oip.ModelInferRequest, instants: CallInstants) -> PredictRequest:
    """Read a request; one that cannot be read is a failed call of the model that it names."""
    try:
        return _predict_request(request, instants, gateway.check_rows)
    except InvalidInput as error:
        gateway.count_failure(ModelRef.parse(request.model_name), instants.received_ns, error)
        raise


def _predict_request(
    request: oip.ModelInferRequest, instants: CallInstants, check_rows: Callable[[int], None]
) -> PredictRequest:
    parameters = _parameters(request)
    check_outputs(request)
    rows = rows_of(request, check_rows)
    return PredictRequest(
        ref=_ref(request.model_name, request.model_version),
        rows=rows,
        received_ns=instants.received_ns,
        decoded_ns=now_ns(),
        truncate=bool(parameters.get("truncate", False)),
        priority=int(parameters.get("priority", 0)),
        deadline_ns=_deadline_ns(instants, parameters.get("timeout")),
        all_or_none=True,
    )


def _infer_response(request: oip.ModelInferRequest, prediction: Prediction) -> oip.ModelInferResponse:
    answers = [outcome for outcome in prediction.outcomes if isinstance(outcome, Answer)]
    tensors, contents = outputs_of(request, prediction.labels, answers)
    return oip.ModelInferResponse(
        model_name=request.model_name,
        model_version=str(prediction.version),
        id=request.id,
        parameters=_response_parameters(prediction),
        outputs=tensors,
        raw_output_contents=contents,
    )


def _statistics(name: str, version: int, counts: Counts, used: Usage) -> oip.ModelStatistics:
    return oip.ModelStatistics(
        name=name,
        version=str(version),
        last_inference=counts.last_inference_ms,
        inference_count=counts.rows,
        execution_count=counts.batches,
        inference_stats=oip.InferStatistics(
            success=_duration(counts.success),
            fail=_duration(counts.fail),
            queue=_duration(counts.queue),
            compute_input=_duration(counts.compute_input),
            compute_infer=_duration(counts.compute_infer),
            compute_output=_duration(counts.compute_output),
        ),
        batch_stats=[
            oip.InferBatchStatistics(
                batch_size=rows,
                compute_input=_duration(size.compute_input),
                compute_infer=_duration(size.compute_infer),
                compute_output=_duration(size.compute_output),
            )
            for rows, size in sorted(counts.sizes.items())
        ],
        memory_usage=[oip.MemoryUsage(type="CPU", id=0, byte_size=used.resident_bytes)],
    )


def _duration(duration: Duration) -> oip.StatisticDuration:
    return oip.StatisticDuration(count=duration.count, ns=duration.ns)


def _check_repository(name: str) -> None:
    if name:
        raise InvalidInput(f"no repository named {name!r}: this server has one, without a name")


def _model_name(name: str) -> str:
    """Return the name of a model as a whole."""
    if not name:
        raise InvalidInput("no model is named")
    if "@" in name:
        raise InvalidInput(f"{name!r} names a backend: models are loaded and unloaded with all their backends")
    return name


def _ref(name: str, version: str) -> ModelRef:
    if not name:
        raise InvalidInput("no model is named")
    if version and not (version.isascii() and version.isdigit() and len(version) <= _MOST_DIGITS):
        raise InvalidInput(f"version {version!r} is not a positive integer of at most {_MOST_DIGITS} digits")
    return ModelRef.parse(name, int(version) if version else None)


def _parameters(request: oip.ModelInferRequest) -> dict[str, bool | int]:
    values: dict[str, bool | int] = {}
    for name, kinds in _PARAMETERS.items():  # the protocol lets a server ignore those that it does not know
        if name not in request.parameters:
            continue
        parameter = request.parameters[name]
        kind = parameter.WhichOneof("parameter_choice")
        if kind not in kinds:
            raise InvalidInput(f"parameter {name} must be a {kinds[0].removesuffix('_param')}")
        values[name] = getattr(parameter, kind)
    if values.get("priority", 0) not in _PRIORITIES:
        bounds = f"{_PRIORITIES[0]} to {_PRIORITIES[-1]}"
        raise InvalidInput(f"parameter priority is {values['priority']}, it must be within {bounds}")
    return values


def _deadline_ns(instants: CallInstants, timeout_us: int | None) -> int | None:
    if timeout_us is None:
        return instants.deadline_ns
    if timeout_us < 0:
        raise InvalidInput(f"parameter timeout is {timeout_us} microseconds: it must not be negative")
    if timeout_us == 0:  # the protocol's "none"
        return instants.deadline_ns
    own = instants.received_ns + timeout_us * 1000
    return own if instants.deadline_ns is None else min(own, instants.deadline_ns)


def _response_parameters(prediction: Prediction) -> dict[str, oip.InferParameter]:
    last = prediction.last()
    if last is None:
        return {}
    parameters = {"backend": oip.InferParameter(string_param=last.batch.backend)}
    for phase, duration_ns in prediction.phases(last)._asdict().items():
        parameters[f"{phase}_us"] = oip.InferParameter(int64_param=duration_ns // 1000)
    return parameters
