"""Where answers go: a file that appears when it is whole, or a pipe. Knows bytes and positions; knows no rows.

While a run lasts there are, beside OUTPUT:

    OUTPUT.partial     what was answered, in order; only ever appended to
    OUTPUT.progress    the journal: how much of it is known to be on disk, and where the input goes on

A commit brings the answers to disk first, then the journal. So whatever a kill leaves behind the journal's mark is cut
off by the next run, and what lies before it is whole. OUTPUT itself appears by one rename.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from clients.batch.errors import OutputFailed, PlanRefused
from clients.batch.journal import Journal, sync_folder
from clients.batch.rows import Position


class Output(Protocol):
    """Takes answers in order. Every method blocks, and raises `OutputFailed`."""

    def append(self, data: bytes, end: Position, failed_rows: int) -> None:
        """Take the answers of the rows before `end`, of which so many failed."""
        ...

    def commit(self) -> None:
        """Make what was appended survive a kill."""
        ...

    def finish(self) -> None:
        """Everything was appended: make the output whole."""
        ...

    def close(self) -> None:
        """Let go of it, as it is."""
        ...


class Assembly(Protocol):
    """Makes the final file out of the partial one."""

    def __call__(self, partial: Path, final: Path) -> None:
        """Write `final`, whole and on disk."""
        ...


class OutputFile:
    """A file, with or without a journal."""

    def __init__(self, path: Path, journal: Journal | None, begun: Journal | None, assembly: Assembly | None) -> None:
        """Open what is there, cut to what is known of it, or begin anew.

        `begun` is an earlier run's journal; `journal` the one to begin with, `None` where there is no going on.
        `assembly` is how the partial file becomes the final one, where a rename does not do.
        """
        self.path = path
        self.partial = beside(path, ".partial")
        self._journal_path = beside(path, ".progress")
        self._assembling = beside(path, ".assembling")
        self._assembly = assembly
        self._journal = begun or journal
        self._end = begun.position if begun else Position()
        self._failed_rows = begun.failed_rows if begun else 0
        self._written = begun.output_bytes if begun else 0
        with _told(self.partial):
            self._file: BinaryIO = open(self.partial, "ab", buffering=0)  # noqa: SIM115  closed by `close`
            try:
                self._claim()
                if begun is None:
                    self._journal_path.unlink(missing_ok=True)
                if os.fstat(self._file.fileno()).st_size < self._written:
                    raise PlanRefused(f"{self.partial} is shorter than its journal says: --restart begins anew")
                self._file.truncate(self._written)
                self._assembling.unlink(missing_ok=True)
            except BaseException:
                self._file.close()
                raise

    def append(self, data: bytes, end: Position, failed_rows: int) -> None:
        """Write answers."""
        left = memoryview(data)
        with _told(self.partial):
            while left:
                left = left[self._file.write(left) or 0 :]
        self._written += len(data)
        self._end = end
        self._failed_rows += failed_rows

    def commit(self) -> None:
        """Bring the answers to disk, then the journal."""
        if self._journal is None:
            return
        with _told(self.partial):
            if os.fstat(self._file.fileno()).st_size > self._written:  # a write that failed half-way
                self._file.truncate(self._written)
            os.fsync(self._file.fileno())
        self._save(complete=False)

    def finish(self) -> None:
        """Give the output its name."""
        with _told(self.path):
            os.fsync(self._file.fileno())
            if self._journal is not None:
                self._save(complete=True)
            whole = self.partial
            if self._assembly is not None:
                self._assembly(self.partial, self._assembling)
                whole = self._assembling
            whole.replace(self.path)
            sync_folder(self.path.parent)
            self.partial.unlink(missing_ok=True)
            self._journal_path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file; a run without a journal leaves nothing behind."""
        self._file.close()
        if self._journal is None:
            self.partial.unlink(missing_ok=True)
            self._assembling.unlink(missing_ok=True)

    def _save(self, *, complete: bool) -> None:
        assert self._journal is not None
        self._journal = replace(
            self._journal,
            position=self._end,
            output_bytes=self._written,
            failed_rows=self._failed_rows,
            complete=complete,
        )
        with _told(self._journal_path):
            self._journal.save(self._journal_path)

    def _claim(self) -> None:
        """Keep other runs away; the claim ends with the process, however it ends."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PlanRefused(f"another run is writing {self.path}") from None


class OutputPipe:
    """Standard output, or what else takes bytes only once. What reads it may go: `BrokenPipeError`."""

    def __init__(self, path: Path | None) -> None:
        """Open it; `None` is standard output."""
        self._stream = _opened(path)

    def append(self, data: bytes, end: Position, failed_rows: int) -> None:
        """Write answers."""
        with _told("the output"):
            self._stream.write(data)
            self._stream.flush()

    def commit(self) -> None:
        """Nothing survives a kill here."""

    def finish(self) -> None:
        """Everything was written already."""

    def close(self) -> None:
        """Close it."""
        with contextlib.suppress(BrokenPipeError):  # it was told when it was written to
            self._stream.close()


class ParquetPipe:
    """Parquet into a pipe: row groups are written when they are full."""

    def __init__(self, path: Path | None, schema: Any) -> None:
        """Open it; `None` is standard output."""
        from clients.batch.parquet import RowGroups

        self._stream = _opened(path)
        self._groups = RowGroups(_Counted(self._stream), schema)

    def append(self, data: bytes, end: Position, failed_rows: int) -> None:
        """Take an Arrow stream."""
        import pyarrow as pa

        from clients.batch.parquet import streamed

        with _told("the output"):
            for batch in streamed(pa.BufferReader(data), len(data)):
                self._groups.add(batch)

    def commit(self) -> None:
        """Nothing survives a kill here."""

    def finish(self) -> None:
        """Write the last row group and the footer."""
        with _told("the output"):
            self._groups.close()

    def close(self) -> None:
        """Close it."""
        with contextlib.suppress(BrokenPipeError):  # it was told when it was written to
            self._stream.close()


class ParquetAssembly:
    """Makes one Parquet file out of Arrow streams, a row group at a time."""

    def __init__(self, schema: Any) -> None:
        self._schema = schema

    def __call__(self, partial: Path, final: Path) -> None:
        """Write `final`."""
        import pyarrow as pa

        from clients.batch.parquet import RowGroups, streamed

        with final.open("wb") as sink:
            groups = RowGroups(sink, self._schema)
            with pa.OSFile(str(partial)) as source:
                for batch in streamed(source, partial.stat().st_size):
                    groups.add(batch)
            groups.close()
            sink.flush()
            os.fsync(sink.fileno())


def beside(path: Path, suffix: str) -> Path:
    """Return the path of a companion of the output."""
    return path.with_name(path.name + suffix)


def _opened(path: Path | None) -> BinaryIO:
    with _told(path):
        return os.fdopen(os.dup(1), "wb") if path is None else path.open("wb")


class _Counted:
    """Says how much was written to a stream that does not know."""

    closed = False

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._written = 0

    def write(self, data: Any) -> int:
        self._stream.write(data)
        self._written += len(data)
        return len(data)

    def tell(self) -> int:
        return self._written

    def flush(self) -> None:
        self._stream.flush()

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        self._stream.flush()


@contextlib.contextmanager
def _told(where: object) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputFailed(f"{where}: {error.strerror or error}") from error
