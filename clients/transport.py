"""How messages travel: the one seam of the client. Knows neither retries nor typed results.

`GrpcTransport` makes unary calls on one channel; `lockstep.clients.stream_transport` carries texts over a stream.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

import grpc
from google.protobuf.message import Message

from lockstep.clients.address import is_loopback
from lockstep.clients.credentials import Credentials
from lockstep.clients.errors import error_from_rpc
from lockstep.clients.forks import note_use
from lockstep.clients.in_flight import CallsInFlight
from lockstep.protos import open_inference_pb2 as oip
from lockstep.protos import sentiment_pb2 as wire

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)


@dataclass(frozen=True, slots=True)
class Method(Generic[Request, Response]):
    """A unary method: its path and the two messages."""

    path: str
    request: type[Request]
    response: type[Response]


def _inference(name: str, request: type[Request], response: type[Response]) -> Method[Request, Response]:
    return Method(f"/inference.GRPCInferenceService/{name}", request, response)


def _sentiment(name: str, request: type[Request], response: type[Response]) -> Method[Request, Response]:
    return Method(f"/sentiment.v1.SentimentService/{name}", request, response)


CLASSIFY: Final = _sentiment("Classify", wire.ClassifyRequest, wire.ClassifyResponse)
CLASSIFY_STREAM: Final = "/sentiment.v1.SentimentService/ClassifyStream"
COMPARE: Final = _sentiment("Compare", wire.CompareRequest, wire.CompareResponse)
LIST_MODELS: Final = _sentiment("ListModels", wire.ListModelsRequest, wire.ListModelsResponse)
LATENCY_REPORT: Final = _sentiment("LatencyReport", wire.LatencyReportRequest, wire.LatencyReportResponse)
SERVER_LIVE: Final = _inference("ServerLive", oip.ServerLiveRequest, oip.ServerLiveResponse)
SERVER_READY: Final = _inference("ServerReady", oip.ServerReadyRequest, oip.ServerReadyResponse)
SERVER_METADATA: Final = _inference("ServerMetadata", oip.ServerMetadataRequest, oip.ServerMetadataResponse)
MODEL_READY: Final = _inference("ModelReady", oip.ModelReadyRequest, oip.ModelReadyResponse)
MODEL_METADATA: Final = _inference("ModelMetadata", oip.ModelMetadataRequest, oip.ModelMetadataResponse)
MODEL_STATISTICS: Final = _inference("ModelStatistics", oip.ModelStatisticsRequest, oip.ModelStatisticsResponse)
REPOSITORY_INDEX: Final = _inference("RepositoryIndex", oip.RepositoryIndexRequest, oip.RepositoryIndexResponse)
MODEL_LOAD: Final = _inference("RepositoryModelLoad", oip.RepositoryModelLoadRequest, oip.RepositoryModelLoadResponse)
MODEL_UNLOAD: Final = _inference(
    "RepositoryModelUnload", oip.RepositoryModelUnloadRequest, oip.RepositoryModelUnloadResponse
)


class Transport(Protocol):
    """Carries messages to one server. Belongs to the event loop that it was made in.

    Both calls raise a `CallError`, or `ClientNotOpen` once closed (and nothing else but `CancelledError`); neither
    sends twice.
    """

    async def classify(self, request: wire.ClassifyRequest, *, timeout_s: float) -> wire.ClassifyResponse:
        """Send texts and return their answers."""
        ...

    async def call(self, method: Method[Request, Response], request: Request, *, timeout_s: float) -> Response:
        """Make any other unary call."""
        ...

    async def close(self) -> None:
        """Give up what is in flight (it fails with `Cancelled`), wait until it has unwound, and disconnect."""
        ...


Connect = Callable[[str], Transport]
"""Makes the transport to a `host:port`; called inside a running event loop."""

MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024
CONNECT_S: Final = 5.0
"""What an attempt to connect has at least: several round trips of a long way, TLS included."""
KEEPALIVE_S: Final = 15
"""Of silence on a connection with calls in flight, before it is probed. Servers of ours allow a probe each 10 s."""
KEEPALIVE_ANSWER_S: Final = 10
"""What a probe's answer may take; then the connection is dead, and its calls are UNAVAILABLE."""


class GrpcTransport:
    """One channel; every message is a unary call."""

    def __init__(self, address: str, credentials: Credentials = Credentials()) -> None:  # noqa: B008  frozen
        """Connect when the first call is made.

        Raises `ValueError` where others could read the token on its way, `OSError` for a certificate that is not there.
        """
        note_use()
        if credentials.encrypted:
            self._channel = grpc.aio.secure_channel(
                address, credentials.channel_credentials(), options=_options(address)
            )
        elif credentials.token is not None and not is_loopback(address):
            raise ValueError(f"a token for {address} would travel in the clear: use TLS")
        else:
            self._channel = grpc.aio.insecure_channel(address, options=_options(address))
        self._metadata = credentials.metadata
        self._calls = CallsInFlight()
        # Multicallables are made once: making one takes longer than a short call's own client work.
        self._callables: dict[str, grpc.aio.UnaryUnaryMultiCallable[Any, Any]] = {}
        self._classify = self._callable(CLASSIFY)

    async def classify(self, request: wire.ClassifyRequest, *, timeout_s: float) -> wire.ClassifyResponse:
        """Send texts and return their answers; raises `CallError`."""
        async with self._calls.one():
            try:
                return await self._classify(request, timeout=timeout_s, metadata=self._metadata)
            except grpc.aio.AioRpcError as error:
                raise error_from_rpc(error) from error

    async def call(self, method: Method[Request, Response], request: Request, *, timeout_s: float) -> Response:
        """Make a unary call; raises `CallError`."""
        async with self._calls.one():
            try:
                return await self._callable(method)(request, timeout=timeout_s, metadata=self._metadata)
            except grpc.aio.AioRpcError as error:
                raise error_from_rpc(error) from error

    def classify_stream(self) -> Any:
        """Open a ClassifyStream on the channel: `StreamRequest` in, `StreamResponse` out."""
        return self._channel.stream_stream(
            CLASSIFY_STREAM,
            request_serializer=wire.StreamRequest.SerializeToString,
            response_deserializer=wire.StreamResponse.FromString,
        )(metadata=self._metadata)

    async def close(self) -> None:
        """End what is in flight with `Cancelled` and disconnect."""
        try:
            await self._calls.close()
        finally:
            await self._channel.close()

    def _callable(self, method: Method[Request, Response]) -> grpc.aio.UnaryUnaryMultiCallable[Request, Response]:
        found = self._callables.get(method.path)
        if found is None:
            found = self._callables[method.path] = self._channel.unary_unary(
                method.path,
                request_serializer=method.request.SerializeToString,
                response_deserializer=method.response.FromString,
            )
        return found


def _options(address: str) -> list[tuple[str, Any]]:
    options: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        # A server that restarts is found again in at most two seconds; gRPC's own bound is two minutes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2000),
        # In spite of its name: how long an attempt to connect may take before it is given up.
        ("grpc.min_reconnect_backoff_ms", int(CONNECT_S * 1000)),
        # A server that hangs, or a connection that died without a word, is found out while calls wait for it. gRPC's
        # bound of two probes without data stays: servers that are not ours hang up on more.
        ("grpc.keepalive_time_ms", KEEPALIVE_S * 1000),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_ANSWER_S * 1000),
        ("grpc.http2.ping_timeout_ms", KEEPALIVE_ANSWER_S * 1000),  # else gRPC waits a minute all the same
        # Two clients of one process measure two connections, not one that they happen to share.
        ("grpc.use_local_subchannel_pool", 1),
    ]
    if is_loopback(address):
        # gRPC honours http_proxy, even for this machine, unless no_proxy says otherwise.
        options.append(("grpc.enable_http_proxy", 0))
    return options
