"""Bytes in and out: files, gzip, pipes, and lines of a bounded length. Knows no format."""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import io
import os
import select
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from clients.batch.errors import InputUnreadable, OutputFailed
from clients.batch.rows import Position
from clients.output_files import destination

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

MAX_ROW_BYTES: Final = 64 * 1024 * 1024
"""A row beyond this is no row: a quote that is never closed, or a file of another format."""
_END_BYTES: Final = 64 * 1024
_BUFFER_BYTES: Final = 1024 * 1024
_READER_EVERY_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What tells whether a file is still the one that was read: cheap, whatever its size."""

    size_bytes: int
    modified_ns: int
    ends_sha256: str  # of the first and the last 64 KiB

    @classmethod
    def of(cls, path: Path) -> Fingerprint:
        """Read a file's; raises `OSError`."""
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            digest = hashlib.sha256(file.read(_END_BYTES))
            file.seek(max(0, found.st_size - _END_BYTES))
            digest.update(file.read(_END_BYTES))
        return cls(found.st_size, found.st_mtime_ns, digest.hexdigest())


def is_pipe(path: Path | None) -> bool:
    """Whether bytes can pass there only once: standard input or output, a FIFO, a device."""
    if path is None:
        return True
    try:
        return not stat.S_ISREG(path.stat().st_mode) and not path.is_dir()
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def told(where: object) -> Iterator[None]:
    """Have what goes wrong in the block raised as `OutputFailed`, but for a reader that has gone."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputFailed(f"{where}: {error.strerror or error}") from error


@contextlib.contextmanager
def unreadable(path: Path | None) -> Iterator[None]:
    """Have what goes wrong in the block raised as `InputUnreadable`."""
    try:
        yield
    except OSError as error:
        raise InputUnreadable(f"{path or 'standard input'}: {error.strerror or error}") from error


class InterruptibleInput(io.RawIOBase):
    """Reads a descriptor that may stay silent for ever; `interrupt`, from any thread, ends the reading."""

    def __init__(self, path: Path | None) -> None:
        """Open a pipe, or standard input for `None`; raises `OSError`."""
        # Opened like this, a FIFO does not wait for its writer: `select` does, until there was one.
        self._descriptor = os.dup(0) if path is None else os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self._wakeup, self._waker = os.pipe()

    def readable(self) -> bool:
        """Say that this is an input."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read what is there; waits for the first byte. Raises `InputUnreadable` once it was interrupted."""
        view = memoryview(buffer)
        while True:
            ready, _, _ = select.select([self._descriptor, self._wakeup], [], [])
            if self._wakeup in ready:
                raise InputUnreadable("the reading was interrupted")
            with contextlib.suppress(BlockingIOError):  # somebody else was faster
                found = os.read(self._descriptor, len(view))
                view[: len(found)] = found
                return len(found)

    def interrupt(self) -> None:
        """End the reading that goes on, and every later one; nothing where it is closed."""
        if not self.closed:
            os.write(self._waker, b"x")

    def close(self) -> None:
        """Close the descriptor."""
        if not self.closed:
            for descriptor in (self._descriptor, self._wakeup, self._waker):
                os.close(descriptor)
        super().close()


class InterruptibleOutput:
    """Writes to a pipe whose reader may stall, or never come; `interrupt`, from any thread, ends the waiting.

    It is not buffered: what was written is out, and letting go of it writes nothing. Raises `OutputFailed`;
    `BrokenPipeError` where the reader has gone.
    """

    def __init__(self, path: Path | None) -> None:
        """Name a stream, or standard output with `None`. What is open already is taken now, a FIFO by `open`."""
        self._path = path
        number = 1 if path is None else destination(path).descriptor
        with told(path or "standard output"):
            self._descriptor = -1 if number is None else os.dup(number)
        self._wakeup, self._waker = os.pipe()

    def open(self) -> None:
        """Open it; waits for a FIFO's reader."""
        with told(self._path or "standard output"):
            while self._descriptor < 0:
                assert self._path is not None
                try:
                    self._descriptor = os.open(self._path, os.O_WRONLY | os.O_NONBLOCK)
                except OSError as error:
                    if error.errno != errno.ENXIO:
                        raise
                    self._wait([], _READER_EVERY_S)  # nothing tells when a reader comes

    def write(self, data: ReadableBuffer) -> int:
        """Write all of it."""
        left = memoryview(data).cast("B")
        size_bytes = len(left)
        with told(self._path or "standard output"):
            while left:
                self._wait([self._descriptor])
                # Standard output is shared, and must not be made non-blocking; a pipe that is ready takes so much.
                with contextlib.suppress(BlockingIOError):
                    left = left[os.write(self._descriptor, left[: select.PIPE_BUF]) :]
        return size_bytes

    def interrupt(self) -> None:
        """End the waiting that goes on, and all later ones; nothing where it is closed."""
        if self._waker >= 0:
            os.write(self._waker, b"x")

    def close(self) -> None:
        """Let go of it."""
        found = (self._descriptor, self._wakeup, self._waker)
        self._descriptor = self._wakeup = self._waker = -1
        with told(self._path or "standard output"):
            for descriptor in found:
                if descriptor >= 0:
                    os.close(descriptor)

    def _wait(self, writable: list[int], timeout_s: float | None = None) -> None:
        interrupted, _, _ = select.select([self._wakeup], writable, [], timeout_s)
        if interrupted:
            raise OutputFailed("the writing was interrupted")


class Source:
    """An input as a stream of bytes, decompressed where its name ends in .gz; `pipe` where it passes only once."""

    def __init__(self, path: Path | None) -> None:
        """Open a file, or standard input for `None`; raises `OSError`."""
        self.pipe: InterruptibleInput | None = None
        self.interrupted = False
        self.stored_bytes: int | None = None
        self._stored: BinaryIO
        if is_pipe(path):
            self.pipe = InterruptibleInput(path)
            self._stored = cast("BinaryIO", io.BufferedReader(self.pipe, _BUFFER_BYTES))
        else:
            assert path is not None
            self._stored = path.open("rb", buffering=_BUFFER_BYTES)
            self.stored_bytes = os.fstat(self._stored.fileno()).st_size
        self._compressed = path is not None and path.suffix == ".gz"
        self.stream = cast("BinaryIO", gzip.GzipFile(fileobj=self._stored)) if self._compressed else self._stored

    def stored_position(self, byte: int) -> int:
        """Return how far into what is stored the reading is, when it is at this byte of the text."""
        return self._stored.tell() if self._compressed and self.pipe is None else byte

    def interrupt(self) -> None:
        """End the reading that goes on, were it for a pipe's next byte; from any thread."""
        self.interrupted = True
        if self.pipe is not None:
            self.pipe.interrupt()

    def close(self) -> None:
        """Let go of the input."""
        self.stream.close()
        self._stored.close()


class Lines:
    """The lines of a source from a position on, their ends included; counts where it is."""

    def __init__(self, source: Source, start: Position) -> None:
        """Go to a position; a pipe has only its beginning."""
        self.source = source
        self.line, self.byte = start.line, start.byte
        if source.pipe is None:
            source.stream.seek(start.byte)

    def next(self) -> bytes | None:
        """Return the next line, or `None` at the end. Raises `InputUnreadable`."""
        if self.source.interrupted:
            raise InputUnreadable("the reading was interrupted")
        try:
            found = self.source.stream.readline(MAX_ROW_BYTES + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise InputUnreadable(f"after line {self.line}: {error}") from error
        if len(found) > MAX_ROW_BYTES:
            raise InputUnreadable(f"line {self.line + 1} is longer than {MAX_ROW_BYTES >> 20} MiB")
        if not found:
            return None
        self.line += 1
        self.byte += len(found)
        return found
