"""Tokenises long texts off the event loop: one call at a time, in their order, and only so much of it waits.

Owns the bound; knows no model. What nobody waits for any more is not begun: a caller that has gone, or whose deadline
has passed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from lockstep.server.core.errors import DeadlineExceeded, InvalidInput, Overloaded
from lockstep.server.core.messages import Encoding
from lockstep.server.text.encoder import TextEncoder

_LIMIT: Final = "max_tokenize_characters"
_RETRY_S: Final = 0.2


class LongTexts:
    """A thread that tokenises, and the characters that wait for it."""

    def __init__(self, max_characters: int, clock_ns: Callable[[], int], limit_reached: Callable[[str], None]) -> None:
        """`limit_reached` hears the limit's name whenever it refuses something."""
        self.characters = 0  # that wait, or are being tokenised
        self._max_characters = max_characters
        self._clock_ns = clock_ns
        self._limit_reached = limit_reached
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="lockstep-tokenize")

    async def encode(
        self, encoder: TextEncoder, texts: Sequence[str], *, truncate: bool, deadline_ns: int | None
    ) -> list[Encoding | InvalidInput]:
        """Encode as `TextEncoder.encode` does.

        Raises `Overloaded` where too much waits before it (a call that finds nothing waiting is taken, whatever its
        size), `DeadlineExceeded` where its turn comes too late.
        """
        characters = sum(map(len, texts))
        if self.characters and self.characters + characters > self._max_characters:
            self._limit_reached(_LIMIT)
            raise Overloaded(
                f"{self.characters} characters of long texts wait to be tokenised, {characters} more do not fit, "
                f"at most {self._max_characters} may wait (--max-tokenize-characters): retry later",
                retry_after_s=_RETRY_S,
                limit=_LIMIT,
            )

        def encode() -> list[Encoding | InvalidInput]:
            if deadline_ns is not None and deadline_ns <= self._clock_ns():
                raise DeadlineExceeded("the deadline passed while the text waited to be tokenised")
            return encoder.encode(texts, truncate=truncate)

        loop = asyncio.get_running_loop()

        def ended(_: Future[list[Encoding | InvalidInput]]) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._forget, characters)

        self.characters += characters
        job = self._thread.submit(encode)
        job.add_done_callback(ended)
        return await asyncio.wrap_future(job)  # cancelling it takes a job that has not begun out of the queue

    def close(self) -> None:
        """Begin no other; the process may end when the one under way has ended."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _forget(self, characters: int) -> None:
        self.characters -= characters
