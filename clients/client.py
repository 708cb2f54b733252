"""The async client. Owns deadlines and retries; how messages travel is the transport's."""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Literal, Self, TypeVar

import grpc

from lockstep.clients import transport as wires
from lockstep.clients.address import targets_of
from lockstep.clients.balanced_transport import BalancedTransport
from lockstep.clients.credentials import Credentials
from lockstep.clients.errors import CallError, ClientNotOpen, NotFound, OtherEventLoop, RowError
from lockstep.clients.forks import check_process
from lockstep.clients.in_flight import CallsInFlight
from lockstep.clients.reports import Comparison, LatencyReport, ModelList
from lockstep.clients.results import (
    ModelMetadata,
    ModelStatistics,
    Result,
    ServedModel,
    ServerMetadata,
    models_from_index,
    results_from_wire,
)
from lockstep.clients.retry import RetryPolicy
from lockstep.clients.stream_transport import StreamTransport
from lockstep.clients.transport import Connect, GrpcTransport, Method, Request, Response, Transport
from lockstep.protos import open_inference_pb2 as oip
from lockstep.protos import sentiment_pb2 as wire

Answer = TypeVar("Answer")
Mode = Literal["stream", "unary"]
LOAD_TIMEOUT_S = 300.0
"""A version is read, started and measured before it takes calls."""
TRANSPORTS: Mapping[Mode, type[StreamTransport] | type[GrpcTransport]] = {
    "stream": StreamTransport,
    "unary": GrpcTransport,
}


class SentimentClient:
    """Calls a server; made for many calls at once on one connection.

    They share one stream, which costs the server far less than a unary call each; `mode="unary"` makes
    unary calls. `credentials` say who calls, and bring TLS. `connect` replaces the transport. Several addresses
    (a sequence, or separated by commas) are servers of the same models: each call goes to the one with the fewest in
    flight, and what one cannot answer is sent to another.

    ::

        async with SentimentClient("127.0.0.1:8001") as client:
            for result in await client.classify(["A fine film.", "A dull one."]):
                print(result)

    Every call has a deadline: `timeout_s` seconds, retries and the waits between them included.
    UNAVAILABLE is retried always, RESOURCE_EXHAUSTED where the server says when to come back
    (`retry` tunes both). Cancelling the awaiting task cancels the call at the server too. Leaving the block
    ends what is in flight with `Cancelled`; the client can be opened again.
    """

    def __init__(
        self,
        address: str | Sequence[str],
        *,
        timeout_s: float = 30.0,
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008  frozen
        credentials: Credentials = Credentials(),  # noqa: B008  frozen
        mode: Mode = "stream",
        connect: Connect | None = None,
    ) -> None:
        self.addresses = targets_of(address)
        self.timeout_s = timeout_s
        self._retry = retry
        self._connect = connect or functools.partial(TRANSPORTS[mode], credentials=credentials)
        self._transport: Transport | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # the one that the transport belongs to
        self._calls = CallsInFlight()

    async def __aenter__(self) -> Self:
        if self._transport is not None:
            raise RuntimeError("the client is open already: share it, or make another")
        check_process()
        self._loop = asyncio.get_running_loop()
        first, *others = self.addresses
        self._transport = BalancedTransport(self.addresses, self._connect) if others else self._connect(first)
        self._calls = CallsInFlight()
        return self

    async def __aexit__(self, *_: object) -> None:
        transport = self._transport
        if transport is None:
            return
        try:
            await self._calls.close()
        finally:
            self._transport = None
            await transport.close()

    @property
    def transport(self) -> Transport:
        """The open transport, for callers that bring their own deadlines.

        Raises `ClientNotOpen`, `ForkedAfterUse` and `OtherEventLoop`.
        """
        check_process()
        if self._transport is None:
            raise ClientNotOpen("open the client first: `async with SentimentClient(...) as client:`")
        if self._loop is not asyncio.get_running_loop():
            raise OtherEventLoop("this client was opened in another event loop: open one in each, or use SyncClient")
        return self._transport

    async def classify(
        self,
        texts: Sequence[str],
        *,
        model: str | None = None,
        backend: str | None = None,
        truncate: bool = False,
        priority: int = 0,
        timeout_s: float | None = None,
    ) -> list[Result]:
        """Classify each text on its own; returns one result a text, in order.

        `model` may be left out where the server has one. A `backend` pins the rows to it.
        `truncate` cuts a text that is too long; without it that row is an error. Higher
        `priority` goes first. Rows that fail for the moment (UNAVAILABLE) are sent again, alone.

        Raises `CallError` where the call as a whole fails, `TypeError` for a bare string,
        `ValueError` for a backend without a model and for text that UTF-8 cannot encode.
        """
        texts = _several(texts)
        name = served_name(model, backend)
        if not texts:
            return []
        pending = list(range(len(texts)))
        results: dict[int, Result] = {}

        async def send_pending(remaining_s: float) -> None:
            request = classify_request([texts[row] for row in pending], name=name, truncate=truncate, priority=priority)
            response = await self.transport.classify(request, timeout_s=remaining_s)
            answers = results_from_wire(response, rows=len(pending))
            results.update(zip(pending, answers, strict=True))
            failed = [
                (row, answer)
                for row, answer in zip(pending, answers, strict=True)
                if isinstance(answer, RowError) and answer.may_retry
            ]
            pending[:] = [row for row, _ in failed]
            if failed:
                raise failed[0][1].as_exception()

        try:
            await self._until_final(send_pending, timeout_s)
        except CallError:
            # Once some call has answered, every row has a result: an error of its own, at worst.
            if not results:
                raise
        return [results[row] for row in range(len(texts))]

    async def compare(
        self,
        texts: Sequence[str],
        *,
        model: str | None = None,
        backends: Sequence[str] = (),
        truncate: bool = False,
        priority: int = 0,
        timeout_s: float | None = None,
    ) -> Comparison:
        """Ask several backends of a model (all, where none is named) for the same texts at once.

        A backend that fails has its error in the comparison and is not asked again; the others answer. Raises
        `CallError` where nobody can be asked, `TypeError` for a bare string, `ValueError` for text that UTF-8 cannot
        encode.
        """
        checked = classify_request(_several(texts), name=model or "", truncate=truncate, priority=priority)
        request = wire.CompareRequest(
            model=checked.model, texts=checked.texts, backends=backends, truncate=truncate, priority=priority
        )
        return Comparison.from_wire(await self._call(wires.COMPARE, request, timeout_s), texts=len(request.texts))

    async def list_models(self, model: str | None = None, *, timeout_s: float | None = None) -> ModelList:
        """Describe every model, or one: backends, devices, parity, what was refused or unloaded; raises `CallError`.

        `models` lists names and states alone, by the Open Inference Protocol, which other servers speak too.
        """
        request = wire.ListModelsRequest(model=model or "")
        return ModelList.from_wire(await self._call(wires.LIST_MODELS, request, timeout_s))

    async def latency_report(
        self,
        model: str | None = None,
        backend: str | None = None,
        *,
        window_s: float | None = None,
        timeout_s: float | None = None,
    ) -> LatencyReport:
        """Return how long rows took recently, by backend, phase and length; raises `CallError`.

        Of every model, of one, or of one of its backends; the server's window is a minute, where none is asked for.
        """
        request = wire.LatencyReportRequest(model=model or "", backend=backend or "", window_s=window_s or 0.0)
        return LatencyReport.from_wire(await self._call(wires.LATENCY_REPORT, request, timeout_s))

    async def models(self, *, timeout_s: float | None = None) -> tuple[ServedModel, ...]:
        """List the models with their backends, ready or not; raises `CallError`."""
        index = await self._call(wires.REPOSITORY_INDEX, oip.RepositoryIndexRequest(), timeout_s)
        return models_from_index(index)

    async def live(self, *, timeout_s: float | None = None) -> bool:
        """Ask whether the server runs; raises `CallError` where none answers."""
        return (await self._call(wires.SERVER_LIVE, oip.ServerLiveRequest(), timeout_s)).live

    async def ready(
        self, model: str | None = None, backend: str | None = None, *, timeout_s: float | None = None
    ) -> bool:
        """Ask whether the server (or one model, or one backend of it) would answer now; raises `CallError`."""
        name = served_name(model, backend)
        if not name:
            return (await self._call(wires.SERVER_READY, oip.ServerReadyRequest(), timeout_s)).ready
        return (await self._call(wires.MODEL_READY, oip.ModelReadyRequest(name=name), timeout_s)).ready

    async def server(self, *, timeout_s: float | None = None) -> ServerMetadata:
        """Ask who answers at this address; raises `CallError`."""
        found = await self._call(wires.SERVER_METADATA, oip.ServerMetadataRequest(), timeout_s)
        return ServerMetadata(found.name, found.version, tuple(found.extensions))

    async def metadata(
        self, model: str, backend: str | None = None, *, timeout_s: float | None = None
    ) -> ModelMetadata:
        """Describe a model's inputs and outputs; raises `CallError`."""
        request = oip.ModelMetadataRequest(name=served_name(model, backend))
        return ModelMetadata.from_wire(await self._call(wires.MODEL_METADATA, request, timeout_s))

    async def statistics(
        self, model: str, backend: str | None = None, *, timeout_s: float | None = None
    ) -> ModelStatistics:
        """Read a model's (or one backend's) counters; raises `CallError`."""
        name = served_name(model, backend)
        request = oip.ModelStatisticsRequest(name=name)
        response = await self._call(wires.MODEL_STATISTICS, request, timeout_s)
        for found in response.model_stats:
            if found.name == name:
                return ModelStatistics.from_wire(found)
        raise NotFound(f"the server keeps no statistics of {name!r}", code=grpc.StatusCode.NOT_FOUND)

    async def load(self, model: str, *, timeout_s: float = LOAD_TIMEOUT_S) -> None:
        """Have the server serve the model's highest published version; returns when that takes the calls.

        Where it fails, or the time is over, the server goes on with what it served before. Raises `CallError`:
        `NotFound` where there is no such model, `Conflict` where the version cannot be served, `NotPermitted` where
        loading is switched off or we may not; `ValueError` where this client has several addresses.
        """
        self._check_one_address()
        await self._call(wires.MODEL_LOAD, oip.RepositoryModelLoadRequest(model_name=model), timeout_s)

    async def unload(self, model: str, *, timeout_s: float = LOAD_TIMEOUT_S) -> None:
        """Have the server take no calls for the model; returns when what waited is answered and its workers are gone.

        Raises as `load` does.
        """
        self._check_one_address()
        await self._call(wires.MODEL_UNLOAD, oip.RepositoryModelUnloadRequest(model_name=model), timeout_s)

    def _check_one_address(self) -> None:
        """Raise `ValueError` where a call that changes a server would reach one of several, and not the others."""
        if len(self.addresses) > 1:
            raise ValueError(f"each server loads its own models: call {', '.join(self.addresses)} one by one")

    async def _call(self, method: Method[Request, Response], request: Request, timeout_s: float | None) -> Response:
        return await self._until_final(
            lambda remaining_s: self.transport.call(method, request, timeout_s=remaining_s), timeout_s
        )

    async def _until_final(self, send: Callable[[float], Awaitable[Answer]], timeout_s: float | None) -> Answer:
        """Send until an answer or a final error; `send` is told what is left of the deadline, seconds."""
        _ = self.transport  # who never opened the client hears that, and not that it was closed
        now = asyncio.get_running_loop().time
        deadline = now() + (self.timeout_s if timeout_s is None else timeout_s)
        attempt = 0
        async with self._calls.one():
            while True:
                attempt += 1
                try:
                    return await send(max(0.0, deadline - now()))
                except CallError as error:
                    remaining_s = deadline - now()
                    wait_s = self._retry.wait_s(error, attempt=attempt, remaining_s=remaining_s, dice=random.random())
                    if wait_s is None:
                        raise
                    why = error
                await asyncio.sleep(wait_s)
                if now() >= deadline:  # it slept too long: the failure says more than that no time is left
                    raise why


def _several(texts: Sequence[str]) -> tuple[str, ...]:
    """Return the texts; raises `TypeError` for a bare string, which is a sequence too, and for what is no string."""
    if isinstance(texts, str):
        raise TypeError("texts is a sequence of strings, not one string: pass [text]")
    texts = tuple(texts)  # the caller may change a list meanwhile
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise TypeError(f"text {index} is {text!r}, of type {type(text).__name__}: every text is a str")
    return texts


def served_name(model: str | None, backend: str | None = None) -> str:
    """Return `<model>`, `<model>@<backend>`, or the empty name of the only model.

    Raises `ValueError` for a backend without a model.
    """
    if backend is None:
        return model or ""
    if not model:
        raise ValueError(f"which model's backend {backend!r}? Name the model too")
    return f"{model}@{backend}"


def classify_request(texts: Sequence[str], *, name: str, truncate: bool, priority: int = 0) -> wire.ClassifyRequest:
    """Write a request; raises `ValueError` naming the text that UTF-8 cannot encode."""
    try:
        return wire.ClassifyRequest(model=name, texts=texts, truncate=truncate, priority=priority)
    except UnicodeEncodeError:
        for row, text in enumerate(texts):
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise ValueError(f"text {row} is not valid Unicode: {error}") from error
        raise


Client = SentimentClient
"""The same class: it classifies by any labels, not by sentiment only."""
