"""Writes log lines so that no line ever decides about a call, a start or a stop. Knows no format.

A thread does the writing. Whoever logs puts a line into a bounded queue and goes on, whether the reader of the log
reads, has gone, or the disk is full. Lines for which there is no room are dropped, and counted in the log itself.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from typing import Final

MOST_LINES: Final = 10_000
"""Lines that wait to be written; a few megabytes."""


class LogWriter:
    """A descriptor to write lines to, in order, without waiting for it."""

    def __init__(self, descriptor: int, most_lines: int = MOST_LINES) -> None:
        self._descriptor = descriptor
        self._lines: queue.Queue[str | None] = queue.Queue(most_lines)
        self._dropped = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._write_lines, name="log-writer", daemon=True)
        self._thread.start()

    def write(self, line: str) -> None:
        """Have a line written, with a line end of ours; drops it where too many wait. Never blocks, never raises."""
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            with self._lock:
                self._dropped += 1

    def close(self, patience_s: float) -> None:
        """Write what waits, for as long as `patience_s` seconds; what is not written by then is lost."""
        with contextlib.suppress(queue.Full):
            self._lines.put(None, timeout=patience_s)
        self._thread.join(patience_s)

    def _write_lines(self) -> None:
        while (line := self._lines.get()) is not None:
            with self._lock:
                dropped, self._dropped = self._dropped, 0
            if dropped:
                self._put(f"{dropped} log lines were dropped: the log was not read or not writable")
            self._put(line)

    def _put(self, line: str) -> None:
        left = memoryview((line + "\n").encode("utf-8", "backslashreplace"))
        with contextlib.suppress(OSError):  # its reader has gone, or the disk is full
            while left:
                left = left[os.write(self._descriptor, left) :]
