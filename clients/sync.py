"""The sync face: runs the async client on an event loop in a thread of its own; holds no logic."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import grpc

from lockstep.clients.client import LOAD_TIMEOUT_S, Mode, SentimentClient
from lockstep.clients.credentials import Credentials
from lockstep.clients.errors import Cancelled, ClientNotOpen, ForkedAfterUse
from lockstep.clients.forks import check_process
from lockstep.clients.reports import Comparison, LatencyReport, ModelList
from lockstep.clients.results import ModelMetadata, ModelStatistics, Result, ServedModel, ServerMetadata
from lockstep.clients.retry import RetryPolicy
from lockstep.clients.transport import Connect

Answer = TypeVar("Answer")


class SyncSentimentClient:
    """`SentimentClient` for code without an event loop; any number of threads may share one.

    ::

        with SyncSentimentClient("127.0.0.1:8001") as client:
            print(client.classify(["A fine film."]))

    Each method blocks until its answer and raises what the async one of that name raises. Leaving the block ends the
    calls of other threads with `Cancelled`.
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
        self._client = SentimentClient(
            address, timeout_s=timeout_s, retry=retry, credentials=credentials, mode=mode, connect=connect
        )
        self._running: _Running | None = None
        self._lock = threading.Lock()  # of handing over a call: none is handed over to a loop that stops

    def __enter__(self) -> Self:
        check_process()
        with self._lock:
            if self._running is not None:
                raise RuntimeError("the client is open already: share it, or make another")
            self._running = _Running.start(self._client)
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            running, self._running = self._running, None
        if running is not None:
            running.close()

    def classify(
        self,
        texts: Sequence[str],
        *,
        model: str | None = None,
        backend: str | None = None,
        truncate: bool = False,
        priority: int = 0,
        timeout_s: float | None = None,
    ) -> list[Result]:
        """See `SentimentClient.classify`."""
        return self._run(
            self._client.classify(
                texts,
                model=model,
                backend=backend,
                truncate=truncate,
                priority=priority,
                timeout_s=timeout_s,
            )
        )

    def compare(
        self,
        texts: Sequence[str],
        *,
        model: str | None = None,
        backends: Sequence[str] = (),
        truncate: bool = False,
        priority: int = 0,
        timeout_s: float | None = None,
    ) -> Comparison:
        """See `SentimentClient.compare`."""
        return self._run(
            self._client.compare(
                texts, model=model, backends=backends, truncate=truncate, priority=priority, timeout_s=timeout_s
            )
        )

    def list_models(self, model: str | None = None, *, timeout_s: float | None = None) -> ModelList:
        """See `SentimentClient.list_models`."""
        return self._run(self._client.list_models(model, timeout_s=timeout_s))

    def latency_report(
        self,
        model: str | None = None,
        backend: str | None = None,
        *,
        window_s: float | None = None,
        timeout_s: float | None = None,
    ) -> LatencyReport:
        """See `SentimentClient.latency_report`."""
        return self._run(self._client.latency_report(model, backend, window_s=window_s, timeout_s=timeout_s))

    def models(self, *, timeout_s: float | None = None) -> tuple[ServedModel, ...]:
        """See `SentimentClient.models`."""
        return self._run(self._client.models(timeout_s=timeout_s))

    def live(self, *, timeout_s: float | None = None) -> bool:
        """See `SentimentClient.live`."""
        return self._run(self._client.live(timeout_s=timeout_s))

    def ready(self, model: str | None = None, backend: str | None = None, *, timeout_s: float | None = None) -> bool:
        """See `SentimentClient.ready`."""
        return self._run(self._client.ready(model, backend, timeout_s=timeout_s))

    def server(self, *, timeout_s: float | None = None) -> ServerMetadata:
        """See `SentimentClient.server`."""
        return self._run(self._client.server(timeout_s=timeout_s))

    def metadata(self, model: str, backend: str | None = None, *, timeout_s: float | None = None) -> ModelMetadata:
        """See `SentimentClient.metadata`."""
        return self._run(self._client.metadata(model, backend, timeout_s=timeout_s))

    def statistics(self, model: str, backend: str | None = None, *, timeout_s: float | None = None) -> ModelStatistics:
        """See `SentimentClient.statistics`."""
        return self._run(self._client.statistics(model, backend, timeout_s=timeout_s))

    def load(self, model: str, *, timeout_s: float = LOAD_TIMEOUT_S) -> None:
        """See `SentimentClient.load`."""
        self._run(self._client.load(model, timeout_s=timeout_s))

    def unload(self, model: str, *, timeout_s: float = LOAD_TIMEOUT_S) -> None:
        """See `SentimentClient.unload`."""
        self._run(self._client.unload(model, timeout_s=timeout_s))

    def _run(self, call: Coroutine[Any, Any, Answer]) -> Answer:
        try:
            check_process()
        except ForkedAfterUse:
            call.close()
            raise
        with self._lock:
            if self._running is None:
                call.close()
                raise ClientNotOpen("open the client first: `with SyncSentimentClient(...) as client:`")
            future = asyncio.run_coroutine_threadsafe(call, self._running.loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise Cancelled("the client was closed", code=grpc.StatusCode.CANCELLED) from None
        except BaseException:
            # Ctrl-C while waiting: the call is cancelled at the server too. Does nothing to one that is done.
            future.cancel()
            raise


@dataclass(frozen=True, slots=True)
class _Running:
    """A thread with an event loop in which the async client is open until `stop` has a result."""

    thread: threading.Thread
    loop: asyncio.AbstractEventLoop
    stop: Future[None]
    ended: Future[None]  # holds what closing raised

    @classmethod
    def start(cls, client: SentimentClient) -> Self:
        """Open the client in a new thread; raises what that raises."""
        opened: Future[asyncio.AbstractEventLoop] = Future()
        stop: Future[None] = Future()
        ended: Future[None] = Future()

        async def live() -> None:
            async with client:
                opened.set_result(asyncio.get_running_loop())
                await asyncio.wrap_future(stop)

        def serve() -> None:
            try:
                asyncio.run(live())  # which cancels and awaits what is left when the client is closed
            except BaseException as error:
                (ended if opened.done() else opened).set_exception(error)
            else:
                ended.set_result(None)

        # A daemon: a program that forgets to leave the block can still end.
        thread = threading.Thread(target=serve, name="lockstep-client", daemon=True)
        thread.start()
        try:
            return cls(thread, opened.result(), stop, ended)
        except BaseException:
            stop.set_result(None)  # Ctrl-C while opening; one that failed to open hears nothing
            raise

    def close(self) -> None:
        """Close the client and wait until its calls are told; raises what that raises.

        Calls that other threads handed over before this one are begun already: the loop takes both in order.
        """
        self.stop.set_result(None)
        self.thread.join()
        self.ended.result()


SyncClient = SyncSentimentClient
"""The same class: it classifies by any labels, not by sentiment only."""
