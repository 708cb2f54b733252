"""The sync face: runs the async client on an event loop in a thread of its own; holds no logic."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from typing import Any, Self, TypeVar

from clients.client import LOAD_TIMEOUT_S, Mode, SentimentClient
from clients.credentials import Credentials
from clients.errors import ClientNotOpen
from clients.reports import Comparison, LatencyReport, ModelList
from clients.results import ModelMetadata, ModelStatistics, Result, ServedModel, ServerMetadata
from clients.retry import RetryPolicy
from clients.transport import Connect

Answer = TypeVar("Answer")


class SyncSentimentClient:
    """`SentimentClient` for code without an event loop; any number of threads may share one.

    ::

        with SyncSentimentClient("127.0.0.1:8001") as client:
            print(client.classify(["A fine film."]))

    Each method blocks until its answer and raises what the async one of that name raises.
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
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        loop = asyncio.new_event_loop()
        # A daemon: a program that forgets to leave the block can still end.
        thread = threading.Thread(target=loop.run_forever, name="lockstep-client", daemon=True)
        thread.start()
        self._loop, self._thread = loop, thread
        try:
            self._run(self._client.__aenter__())
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._run(self._client.__aexit__())
        finally:
            self._stop()

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
        if self._loop is None:
            call.close()
            raise ClientNotOpen("open the client first: `with SyncSentimentClient(...) as client:`")
        future = asyncio.run_coroutine_threadsafe(call, self._loop)
        try:
            return future.result()
        except BaseException:
            # Ctrl-C while waiting: the call is cancelled at the server too. Does nothing to one that is done.
            future.cancel()
            raise

    def _stop(self) -> None:
        loop, thread = self._loop, self._thread
        self._loop = self._thread = None
        if loop is None or thread is None:
            return
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
