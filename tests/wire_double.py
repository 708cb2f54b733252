"""A real gRPC server that answers as a test says. Speaks sentiment.v1 and the Open Inference calls that clients use.

Each `Classify` call takes the next reply of `replies` (an answer, where none is left). Leaving the block
with a reply that nobody asked for is an error: the test expected a call that never came.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import grpc

from lockstep.protos import open_inference_pb2 as oip
from lockstep.protos import open_inference_pb2_grpc as oip_grpc
from lockstep.protos import sentiment_pb2 as wire
from lockstep.protos import sentiment_pb2_grpc as wire_grpc

LABELS = ("negative", "positive")
PHASES = wire.Phases(
    decode_us=100, tokenize_us=200, queue_us=300, pad_us=400, transfer_us=500, execute_us=6000, respond_us=700
)


@dataclass(frozen=True)
class Fail:
    """The call fails with this status; `pushback_ms` travels as trailing metadata."""

    code: grpc.StatusCode
    details: str = "as the test asked"
    pushback_ms: str | None = None


@dataclass(frozen=True)
class FailRows:
    """These rows of the call carry errors, the others answer."""

    errors: Mapping[int, tuple[str, grpc.StatusCode, str]]


@dataclass(frozen=True)
class Hold:
    """The call answers when `release` is set; `arrived` tells that it came."""

    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    release: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True)
class Malformed:
    """The call answers with this message, whatever it was asked."""

    response: wire.ClassifyResponse


Reply = Fail | FailRows | Hold | Malformed


def tokens_of(text: str) -> int:
    """The double's tokenizer: words."""
    return max(1, len(text.split()))


def prediction_of(text: str, backend: str, *, batch_rows: int = 1, batch_tokens: int = 0) -> wire.Prediction:
    """The double's model: positive where the text says "good"."""
    positive = 0.875 if "good" in text else 0.25
    return wire.Prediction(
        label=LABELS[positive > 0.5],
        probabilities=[1 - positive, positive],
        tokens=tokens_of(text),
        backend=backend,
        phases=PHASES,
        batch_rows=batch_rows,
        batch_tokens=batch_tokens or tokens_of(text),
    )


CANCELLED = wire.Error(kind="Cancelled", code=grpc.StatusCode.CANCELLED.value[0], message="the request was cancelled")


class _Aborted(Exception):
    """A message of a stream fails with this error."""

    def __init__(self, error: wire.Error) -> None:
        super().__init__(error.message)
        self.error = error


class _MessageContext:
    """What a message of a stream has for a call's context."""

    async def abort(self, code: grpc.StatusCode, details: str, trailing: Sequence[tuple[str, str]] = ()) -> None:
        pushback_ms = dict(trailing).get("grpc-retry-pushback-ms", "")
        retry_after_ms = int(pushback_ms) if pushback_ms.isdecimal() else 0
        raise _Aborted(wire.Error(kind="Double", code=code.value[0], message=details, retry_after_ms=retry_after_ms))


class ServerDouble(wire_grpc.SentimentServiceServicer, oip_grpc.GRPCInferenceServiceServicer):
    """Serves `models` (backends by model) on a free port; every call's rows are one batch."""

    def __init__(self, *replies: Reply, models: Mapping[str, tuple[str, ...]] | None = None, port: int = 0) -> None:
        self.models = dict(models or {"tiny": ("onnxruntime", "tensorflow")})
        self.replies: deque[Reply] = deque(replies)
        self.calls: list[wire.ClassifyRequest] = []
        self.messages: list[wire.StreamRequest] = []
        self.answers_left: int | None = None  # calls beyond wait until who sent them has gone
        self.streams = 0
        self.rows: dict[str, int] = {}
        self.batches: dict[str, int] = {}
        self.server = grpc.aio.server()
        self.port = self.server.add_insecure_port(f"127.0.0.1:{port}")
        wire_grpc.add_SentimentServiceServicer_to_server(self, self.server)
        oip_grpc.add_GRPCInferenceServiceServicer_to_server(self, self.server)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self.server.start()
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        await self.server.stop(None)
        if kind is None:
            assert not self.replies, f"never asked for: {list(self.replies)}"

    async def Classify(self, request: Any, context: Any) -> wire.ClassifyResponse:  # noqa: N802
        self.calls.append(request)
        if self.answers_left is not None:
            if self.answers_left == 0:
                await asyncio.Event().wait()
            self.answers_left -= 1
        model, _, backend = request.model.partition("@")
        if not model and len(self.models) == 1:
            (model,) = self.models
        if model not in self.models:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no model {model!r} is served")
        backend = backend or self.models[model][0]
        if backend not in self.models[model]:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"model {model!r} has no backend {backend!r}")
        errors: Mapping[int, tuple[str, grpc.StatusCode, str]] = {}
        match self.replies.popleft() if self.replies else None:
            case Fail(code, details, pushback_ms):
                trailing = () if pushback_ms is None else (("grpc-retry-pushback-ms", pushback_ms),)
                await context.abort(code, details, trailing)
            case FailRows(found):
                errors = found
            case Hold() as hold:
                hold.arrived.set()
                try:
                    await hold.release.wait()
                except asyncio.CancelledError:
                    hold.cancelled.set()
                    raise
            case Malformed(response):
                return response
        for name in (model, f"{model}@{backend}"):
            self.rows[name] = self.rows.get(name, 0) + len(request.texts)
            self.batches[name] = self.batches.get(name, 0) + 1
        longest = max((tokens_of(text) for text in request.texts), default=0)
        response = wire.ClassifyResponse(model=model, version=1, id=request.id, labels=LABELS)
        for row, text in enumerate(request.texts):
            if row in errors:
                kind, code, message = errors[row]
                response.results.add(error=wire.Error(kind=kind, code=code.value[0], message=message))
            else:
                response.results.add(
                    prediction=prediction_of(text, backend, batch_rows=len(request.texts), batch_tokens=longest)
                )
        return response

    async def ClassifyStream(self, _: Any, context: Any) -> None:  # noqa: N802
        running: dict[str, asyncio.Task[wire.ClassifyResponse]] = {}

        async def answer(request_id: str) -> None:
            asked = running[request_id]
            try:
                response = wire.StreamResponse(id=request_id, response=await asked)
            except _Aborted as aborted:
                response = wire.StreamResponse(id=request_id, error=aborted.error)
            except asyncio.CancelledError:
                this = asyncio.current_task()
                if this is None or this.cancelling():  # the stream ends
                    raise
                response = wire.StreamResponse(id=request_id, error=CANCELLED)
            async with writing:
                await context.write(response)

        writing = asyncio.Lock()
        self.streams += 1
        async with asyncio.TaskGroup() as group:
            while isinstance(message := await context.read(), wire.StreamRequest):
                self.messages.append(message)
                if message.WhichOneof("message") == "cancel":
                    running[message.cancel].cancel()
                else:
                    asked = asyncio.create_task(self.Classify(message.classify, _MessageContext()))
                    running[message.classify.id] = asked
                    group.create_task(answer(message.classify.id))

    async def ServerLive(self, request: Any, context: Any) -> oip.ServerLiveResponse:  # noqa: N802
        return oip.ServerLiveResponse(live=True)

    async def ServerReady(self, request: Any, context: Any) -> oip.ServerReadyResponse:  # noqa: N802
        return oip.ServerReadyResponse(ready=True)

    async def ServerMetadata(self, request: Any, context: Any) -> oip.ServerMetadataResponse:  # noqa: N802
        return oip.ServerMetadataResponse(name="double", version="1", extensions=["statistics"])

    async def ModelReady(self, request: Any, context: Any) -> oip.ModelReadyResponse:  # noqa: N802
        return oip.ModelReadyResponse(ready=request.name in self._names())

    async def ModelMetadata(self, request: Any, context: Any) -> oip.ModelMetadataResponse:  # noqa: N802
        if request.name not in self._names():
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no model {request.name!r} is served")
        tensor = oip.ModelMetadataResponse.TensorMetadata
        return oip.ModelMetadataResponse(
            name=request.name,
            versions=["1"],
            platform="lockstep",
            inputs=[tensor(name="text", datatype="BYTES", shape=[-1])],
            outputs=[tensor(name="probabilities", datatype="FP32", shape=[-1, 2])],
        )

    async def ModelStatistics(self, request: Any, context: Any) -> oip.ModelStatisticsResponse:  # noqa: N802
        names = [request.name] if request.name else self._names()
        return oip.ModelStatisticsResponse(
            model_stats=[
                oip.ModelStatistics(
                    name=name,
                    version="1",
                    inference_count=self.rows.get(name, 0),
                    execution_count=self.batches.get(name, 0),
                    inference_stats=oip.InferStatistics(
                        success=oip.StatisticDuration(
                            count=self.batches.get(name, 0), ns=self.batches.get(name, 0) * 8_200_000
                        )
                    ),
                )
                for name in names
                if name in self._names()
            ]
        )

    async def RepositoryIndex(self, request: Any, context: Any) -> oip.RepositoryIndexResponse:  # noqa: N802
        index = oip.RepositoryIndexResponse.ModelIndex
        return oip.RepositoryIndexResponse(
            models=[index(name=name, version="1", state="READY") for name in self._names()]
        )

    def _names(self) -> list[str]:
        return [
            name
            for model, backends in self.models.items()
            for name in (model, *(f"{model}@{backend}" for backend in backends))
        ]


@contextmanager
def double_in_a_thread(*replies: Reply, models: Mapping[str, tuple[str, ...]] | None = None) -> Iterator[ServerDouble]:
    """A caller that blocks its thread needs a server in another."""
    made: list[ServerDouble] = []
    started, stop = threading.Event(), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def serve() -> None:
        async with ServerDouble(*replies, models=models) as server:
            made.append(server)
            loops.append(asyncio.get_running_loop())
            started.set()
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    started.wait()
    try:
        yield made[0]
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join()
