"""Asks the server for a chunk's answers, and tells a row's fault from the server's.

A call that fails for the moment (nothing listens, a full queue) is sent again until its deadline, by the client; one
that the server cancels because it stops, here. Where that does not help, the run stops: the rows are not to blame, and
go on another time. A call that fails for what is in it is asked again in halves, until the row stands alone whose fault
it is: the others have their answers. A server that fails on every text, a proxy for one, is no row's fault: rows are
blamed for its failure only while it answers another.
"""

from __future__ import annotations

import asyncio
from typing import Final

import grpc

from lockstep.clients.batch.rows import Chunk
from lockstep.clients.client import SentimentClient
from lockstep.clients.errors import CallError, Cancelled, InvalidInput, Overloaded, RowError, ServerFailure
from lockstep.clients.results import Result

PROBE: Final = "A film to remember."
"""A text that every model takes."""

_CANCELLED_WAITS_S: Final = (0.05, 0.2, 1.0)
"""What follows is UNAVAILABLE until the server is back, which the client waits for by itself."""
_ROW_S_FAULT: Final = (InvalidInput, ServerFailure)
"""A row that kills its worker, or that a backend fails on, is answered with INTERNAL."""


class Caller:
    """Asks for chunks; many at once."""

    def __init__(self, client: SentimentClient, model: str, backend: str | None, *, truncate: bool) -> None:
        self._client = client
        self._model = model
        self._backend = backend
        self._truncate = truncate

    async def ask(self, chunk: Chunk) -> list[Result]:
        """Return a result for each row, in order. Raises the `CallError` for which no row is to blame."""
        texts = [text for text in chunk.texts if isinstance(text, str)]
        results = await self._classify(texts)
        if results and all(map(_failed_inside, results)):
            await self._ask_another()
        answers = iter(results)
        return [next(answers) if isinstance(text, str) else _not_sent(text.message) for text in chunk.texts]

    async def _classify(self, texts: list[str]) -> list[Result]:
        try:
            results = await self._sent(texts)
        except CallError as error:
            if not _may_be_a_row_s(error):
                raise
            if len(texts) == 1:
                if isinstance(error, ServerFailure):
                    await self._ask_another()
                return [RowError(type(error).__name__, error.code, str(error))]
            half = len(texts) // 2
            return [*await self._classify(texts[:half]), *await self._classify(texts[half:])]
        for result in results:
            if isinstance(result, RowError) and not isinstance(failure := result.as_exception(), _ROW_S_FAULT):
                raise failure
        return results

    async def _sent(self, texts: list[str]) -> list[Result]:
        """Send texts; again if the server cancels the call, as one does with what is in flight when it stops."""
        for wait_s in _CANCELLED_WAITS_S:
            try:
                return await self._once(texts)
            except Cancelled:
                await asyncio.sleep(wait_s)
        return await self._once(texts)

    async def _once(self, texts: list[str]) -> list[Result]:
        return await self._client.classify(texts, model=self._model, backend=self._backend, truncate=self._truncate)

    async def _ask_another(self) -> None:
        """Raise what a text fails with that was answered before: then it is not for the rows that they fail."""
        (answer,) = await self._client.classify([PROBE], model=self._model, backend=self._backend, truncate=True)
        if isinstance(answer, RowError):
            raise answer.as_exception()


def _failed_inside(result: Result) -> bool:
    return isinstance(result, RowError) and isinstance(result.as_exception(), ServerFailure)


def _may_be_a_row_s(error: CallError) -> bool:
    """Whether what was sent can be the cause, rather than who it was sent to."""
    if isinstance(error, Overloaded):  # without a word on when to come back, a message that is too large
        return error.pushback_s is None
    return isinstance(error, _ROW_S_FAULT)


def _not_sent(message: str) -> RowError:
    return RowError("InvalidInput", grpc.StatusCode.INVALID_ARGUMENT, message)
