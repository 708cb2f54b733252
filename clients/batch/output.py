"""Where answers go: a file that appears when it is whole, or a pipe. Knows bytes and positions; knows no rows.

While a run lasts there are, beside OUTPUT:

    OUTPUT.partial     what was answered, in order; only ever appended to
    OUTPUT.progress    the journal: how much of it is known to be on disk, and where the input goes on

A commit brings the answers to disk first, then the journal. So whatever a kill leaves behind the journal's mark is cut
off by the next run, and what lies before it is whole. The journal is there before the partial file is: a partial file
without one is somebody else's, and is not touched.

OUTPUT itself appears by one rename. Before it, the journal notes which file (its inode and size) will get the name, so
a run that is killed between the rename and the removal of its journal is known to be finished. An output that is a
symbolic link stays one: the file that it names is replaced. The mode of a file that is replaced is kept.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from lockstep.clients.batch.batch_errors import PlanRefused
from lockstep.clients.batch.journal import FileIdentity, Journal, sync_folder
from lockstep.clients.batch.rows import Position
from lockstep.clients.batch.streams import InterruptibleOutput, told


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
        self.path = path = Path(os.path.realpath(path))  # a link stays: what it names is replaced
        self.partial = beside(path, ".partial")
        self._journal_path = beside(path, ".progress")
        self._assembling = beside(path, ".assembling")
        self._assembly = assembly
        self._journal = begun or journal
        self._end = begun.position if begun else Position()
        self._failed_rows = begun.failed_rows if begun else 0
        self._written = begun.output_bytes if begun else 0
        self._finishing = False
        ours = begun is not None or self._journal_path.exists()
        with told(self.partial):
            if not ours and journal is not None:
                journal.save(self._journal_path)
            self._file: BinaryIO = self._opened(ours)
            try:
                self._claim()
                if ours and begun is None:
                    self._begin_anew(journal)
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
        with told(self.partial):
            while left:
                left = left[self._file.write(left) or 0 :]
        self._written += len(data)
        self._end = end
        self._failed_rows += failed_rows

    def commit(self) -> None:
        """Bring the answers to disk, then the journal."""
        if self._journal is None or self._finishing:
            return
        with told(self.partial):
            if os.fstat(self._file.fileno()).st_size > self._written:  # a write that failed half-way
                self._file.truncate(self._written)
            os.fsync(self._file.fileno())
        self._save()

    def finish(self) -> None:
        """Give the output its name."""
        self.commit()
        with told(self.path):
            os.fsync(self._file.fileno())
            whole = self.partial
            if self._assembly is not None:
                self._assembly(self.partial, self._assembling)
                whole = self._assembling
            _take_mode(self.path, whole)
            self._finishing = True  # from here on, the journal names the finished file, and stays as it is
            if self._journal is not None:
                self._save(FileIdentity.of(whole))
            whole.replace(self.path)
            sync_folder(self.path.parent)
            remove_companions(self.path)

    def close(self) -> None:
        """Close the file; a run without a journal leaves nothing behind."""
        self._file.close()
        if self._journal is None:
            self.partial.unlink(missing_ok=True)
            self._assembling.unlink(missing_ok=True)

    def _save(self, finished: FileIdentity | None = None) -> None:
        assert self._journal is not None
        self._journal = replace(
            self._journal,
            position=self._end,
            output_bytes=self._written,
            failed_rows=self._failed_rows,
            finished=finished,
        )
        with told(self._journal_path):
            self._journal.save(self._journal_path)

    def _opened(self, ours: bool) -> BinaryIO:
        """Open the partial file, which a link cannot redirect; raises `PlanRefused` where it is somebody else's."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | (0 if ours else os.O_EXCL)
        try:
            return open(os.open(self.partial, flags, 0o666), "ab", buffering=0)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ELOOP):
                raise
            raise PlanRefused(
                f"{self.partial} is there already, and no journal says that it is an earlier run's: "
                "remove it, or name another output"
            ) from error

    def _begin_anew(self, journal: Journal | None) -> None:
        """Forget an earlier run; the caller has the claim."""
        self._file.truncate(0)
        if journal is not None:
            journal.save(self._journal_path)
        else:
            self._journal_path.unlink(missing_ok=True)

    def _claim(self) -> None:
        """Keep other runs away; the claim ends with the process, however it ends."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PlanRefused(f"another run is writing {self.path}") from None


class OutputPipe:
    """Standard output, or what else takes bytes only once. What reads it may go: `BrokenPipeError`."""

    def __init__(self, sink: InterruptibleOutput) -> None:
        """Take over an open pipe."""
        self._sink = sink

    def append(self, data: bytes, end: Position, failed_rows: int) -> None:
        """Write answers."""
        self._sink.write(data)

    def commit(self) -> None:
        """Nothing survives a kill here."""

    def finish(self) -> None:
        """Everything was written already."""

    def close(self) -> None:
        """Close it."""
        self._sink.close()


class ParquetPipe:
    """Parquet into a pipe: row groups are written when they are full."""

    def __init__(self, sink: InterruptibleOutput, schema: Any) -> None:
        """Take over an open pipe."""
        from lockstep.clients.batch.parquet import RowGroups

        self._sink = sink
        self._counted = _Counted(sink)
        self._groups = RowGroups(self._counted, schema)

    def append(self, data: bytes, end: Position, failed_rows: int) -> None:
        """Take an Arrow stream."""
        import pyarrow as pa

        from lockstep.clients.batch.parquet import streamed

        for batch in streamed(pa.BufferReader(data), len(data)):
            self._groups.add(batch)

    def commit(self) -> None:
        """Nothing survives a kill here."""

    def finish(self) -> None:
        """Write the last row group and the footer."""
        self._groups.close()

    def close(self) -> None:
        """Close it. A file that is not whole gets no footer: who reads it would take it for one that is."""
        self._counted.abandon()
        self._sink.close()


class ParquetAssembly:
    """Makes one Parquet file out of Arrow streams, a row group at a time."""

    def __init__(self, schema: Any) -> None:
        self._schema = schema

    def __call__(self, partial: Path, final: Path) -> None:
        """Write `final`."""
        import pyarrow as pa

        from lockstep.clients.batch.parquet import RowGroups, streamed

        with final.open("xb") as sink:
            groups = RowGroups(sink, self._schema)
            with pa.OSFile(str(partial)) as source:
                for batch in streamed(source, partial.stat().st_size):
                    groups.add(batch)
            groups.close()
            sink.flush()
            os.fsync(sink.fileno())


def beside(path: Path, suffix: str) -> Path:
    """Return the path of a companion of the output: beside the file that a link names."""
    real = Path(os.path.realpath(path))
    return real.with_name(real.name + suffix)


def remove_companions(path: Path) -> None:
    """Remove what a finished run has beside its output; the journal last. Raises `OSError`."""
    for suffix in (".partial", ".assembling", ".progress"):
        beside(path, suffix).unlink(missing_ok=True)


def _take_mode(replaced: Path, by: Path) -> None:
    """Give a file the mode of the one that it is to replace, and its owner where we may. Raises `OSError`."""
    try:
        found = replaced.stat()
    except FileNotFoundError:
        return
    with contextlib.suppress(PermissionError):  # only root may give a file away
        os.chown(by, found.st_uid, found.st_gid)
    by.chmod(stat.S_IMODE(found.st_mode))


class _Counted:
    """A sink as Arrow wants one: it says how much was written. Arrow writes a footer whenever it lets go of it."""

    closed = False

    def __init__(self, sink: InterruptibleOutput) -> None:
        self._sink: InterruptibleOutput | None = sink
        self._written = 0

    def write(self, data: Any) -> int:
        if self._sink is not None:
            self._sink.write(data)
        self._written += len(data)
        return len(data)

    def abandon(self) -> None:
        """Write no more, whatever comes."""
        self._sink = None

    def tell(self) -> int:
        return self._written

    def flush(self) -> None:
        """Nothing is kept back."""

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def close(self) -> None:
        """Leave it open: it is not Arrow's."""
