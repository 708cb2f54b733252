"""Bytes in and out: files, gzip, pipes, and lines of a bounded length. Knows no format."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import select
import stat
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from lockstep.clients.batch.batch_errors import InputUnreadable, OutputFailed
from lockstep.clients.batch.compression import COMPRESSED, DECOMPRESSION_ERRORS, compression_of, decompressed
from lockstep.clients.batch.rows import Position
from lockstep.clients.output_files import destination

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

MAX_ROW_BYTES: Final = 64 * 1024 * 1024
"""A row beyond this is no row: a quote that is never closed, or a file of another format."""
_END_BYTES: Final = 64 * 1024
_BUFFER_BYTES: Final = 1024 * 1024
_READER_EVERY_S: Final = 0.05


def refuse_no_text(beginning: bytes) -> None:
    """Raise `InputUnreadable`, with what it is, if the first bytes of an input show that it is not UTF-8 text."""
    if beginning.startswith((b"\xff\xfe", b"\xfe\xff")) or beginning[:4].count(0) == 2:
        raise InputUnreadable("the input is not UTF-8, it is UTF-16: convert it, iconv -f UTF-16 -t UTF-8 FILE")
    if (kind := compression_of(beginning)) is not None:
        raise InputUnreadable(f"the input is compressed with {kind}: name a file, or decompress it before the pipe")
    if beginning.startswith(b"PAR1"):
        raise InputUnreadable("the input is Parquet: --input-format parquet")


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
    """An input as a stream of bytes, decompressed if it is compressed; `pipe` if it passes only once.

    A file is compressed if its name or its first bytes say so, a pipe if its name does (`COMPRESSED`).
    """

    def __init__(self, path: Path | None) -> None:
        """Open a file, or standard input for `None`; raises `OSError`, `InputUnreadable`."""
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
        try:
            kind = None if path is None else COMPRESSED.get(path.suffix.lower())
            if kind is None and self.pipe is None:
                kind = compression_of(self.beginning_of(self._stored))
            self._compressed = kind is not None
            self.stream = self._stored if kind is None else decompressed(self._stored, kind)
        except BaseException:
            self._stored.close()
            raise

    def beginning(self) -> bytes:
        """Return some of the first bytes, without taking them; raises `InputUnreadable`."""
        return self.beginning_of(self.stream)

    @staticmethod
    def beginning_of(stream: BinaryIO) -> bytes:
        """Return what a buffered stream, of which nothing was read, has next."""
        try:
            return cast("io.BufferedReader", stream).peek(_END_BYTES)
        except DECOMPRESSION_ERRORS as error:
            raise InputUnreadable(f"at the beginning: {error}") from error

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

    def __init__(self, source: Source, start: Position, *, returns: bool = False) -> None:
        """Go to a position; a pipe has only its beginning. `returns`: lines end in carriage returns alone."""
        self.source = source
        self.line, self.byte = start.line, start.byte
        self._read = _ReturnLines(source.stream).readline if returns else source.stream.readline
        if source.pipe is None:
            source.stream.seek(start.byte)

    def next(self) -> bytes | None:
        """Return the next line, or `None` at the end. Raises `InputUnreadable`."""
        if self.source.interrupted:
            raise InputUnreadable("the reading was interrupted")
        try:
            found = self._read(MAX_ROW_BYTES + 1)
        except DECOMPRESSION_ERRORS as error:
            raise InputUnreadable(f"after line {self.line}: {error}") from error
        if len(found) > MAX_ROW_BYTES:
            raise InputUnreadable(f"line {self.line + 1} is longer than {MAX_ROW_BYTES >> 20} MiB")
        if not found:
            return None
        self.line += 1
        self.byte += len(found)
        return found


class _ReturnLines:
    """Reads lines that end in carriage returns."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = cast("io.BufferedReader", stream)
        self._whole = deque[bytes]()
        self._begun = b""

    def readline(self, most_bytes: int) -> bytes:
        """Return a line with its end, what is left at the end, or more than a row may have."""
        if not self._whole:
            parts = [self._begun]
            held_bytes = len(self._begun)
            while b"\r" not in parts[-1] and held_bytes < most_bytes and (found := self._stream.read1(_END_BYTES)):
                parts.append(found)
                held_bytes += len(found)
            *whole, self._begun = b"".join(parts).split(b"\r")
            self._whole.extend(line + b"\r" for line in whole)
            if not whole:
                line, self._begun = self._begun, b""
                return line
        return self._whole.popleft()
