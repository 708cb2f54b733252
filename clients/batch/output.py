"""Where answers go: a file that appears when it is whole, or a pipe. Knows bytes and positions; knows no rows.

While a run lasts there are, beside OUTPUT:

    OUTPUT.partial     what was answered, in order; only ever appended to
    OUTPUT.progress    the journal: how much of it is known to be on disk, and where the input goes on
    OUTPUT.assembling  at the end, for Parquet: the final file

The journal comes first and goes last: a companion without one is somebody else's, and is left alone. A commit brings
the answers to disk first, then the journal. So whatever a kill leaves behind the journal's mark is cut off by the next
run, and what lies before it is whole. At the end the journal records what the whole output looks like; then OUTPUT
appears at once, and the companions go. A run that is killed between the two has finished: `earlier.finished` tells.
"""

from __future__ import annotations

import errno
import functools
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Protocol

from lockstep.clients.batch.batch_errors import OutputFailed, PlanRefused, ResumeRefused
from lockstep.clients.batch.companions import ASSEMBLING, PARTIAL, PROGRESS, beside, lock, refuse_strangers, remove
from lockstep.clients.batch.journal import MOVE, Journal, new_journal
from lockstep.clients.batch.rows import Position
from lockstep.clients.batch.streams import Fingerprint, InterruptibleOutput, told
from lockstep.clients.output_files import NEW, keep_access, sync_folder, write_all

_CHANGED: Final = "another run has just written {}: run the command again"


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

    def __call__(self, partial: Path, final: int) -> None:
        """Write all of it to the descriptor `final`."""
        ...


class OutputFile:
    """A file and its journal. Only one run at a time has it, and only what runs have made is ever changed."""

    def __init__(
        self,
        path: Path,
        journal: Journal,
        begun: Journal | None,
        assembly: Assembly | None,
        *,
        overwrite: bool = False,
        restart: bool = False,
    ) -> None:
        """Open what is there, cut to what is known of it, or begin anew.

        `path` leads to a file, through no link. `begun` is an earlier run's journal; `journal` the one to begin with.
        `assembly` is how the partial file becomes the final one, where a rename does not do. `overwrite` replaces a
        file that is there when the output gets its name, `restart` discards what earlier runs have kept.
        """
        self.path = path
        self.partial = beside(path, PARTIAL)
        self._journal_path = beside(path, PROGRESS)
        self._assembling = beside(path, ASSEMBLING)
        self._assembly = assembly
        self._overwrite = overwrite
        self._journal = begun or journal
        self._end = begun.position if begun else Position()
        self._failed_rows = begun.failed_rows if begun else 0
        self._written = begun.output_bytes if begun else 0
        self._unsynced = False  # what was appended may be lost, whatever a later sync says
        self._assembled = -1
        fresh = self._known(restart) is None
        if fresh and begun is not None:
            raise PlanRefused(_CHANGED.format(path))
        if fresh:
            refuse_strangers(path)
            with told(self._journal_path):
                new_journal(self._journal_path).unlink(missing_ok=True)
                journal.save(self._journal_path)
        with told(self.partial):
            self._file = self._claim(fresh)
            try:
                self._take_over(begun, restart=restart or fresh)
            except BaseException:
                os.close(self._file)
                raise

    def append(self, data: bytes, end: Position, failed_rows: int) -> None:
        """Write answers."""
        with told(self.partial):
            write_all(self._file, data)
        self._written += len(data)
        self._end = end
        self._failed_rows += failed_rows

    def commit(self) -> None:
        """Bring the answers to disk, then the journal."""
        if self._journal.complete or self._unsynced or self._journal.input is None:
            return
        with told(self.partial):
            if os.fstat(self._file).st_size > self._written:  # a write that failed half-way
                os.ftruncate(self._file, self._written)
            self._sync(self._file)
        self._save(complete=False)

    def finish(self) -> None:
        """Give the output its name. Each step leaves what a later run finishes: see `earlier.finished`."""
        with told(self.path):
            self._sync(self._file)
            whole, descriptor = self.partial, self._file
            if self._assembly is not None:
                self._save(complete=True)
                whole, descriptor = self._assembling, self._assemble(self._assembly)
            keep_access(descriptor, self.path)
            self._save(complete=True, output=Fingerprint.of(whole))
            self._name(whole)
            sync_folder(self.path.parent)
            for left in (self.partial, self._assembling):
                remove(left)
            sync_folder(self.path.parent)  # the journal goes last: without one, nobody knows that the others are ours
            remove(self._journal_path)

    def close(self) -> None:
        """Let go of the file. A run that nobody can go on with leaves nothing behind, unless every row is answered."""
        try:
            if self._journal.input is None and not self._journal.complete:
                self._discard()
        finally:
            for descriptor in (self._file, self._assembled):
                if descriptor >= 0:
                    os.close(descriptor)

    def _known(self, restart: bool) -> Journal | None:
        """Return the journal on disk; one that only another version of us can read will do to begin anew."""
        try:
            return Journal.load(self._journal_path)
        except ResumeRefused:
            if restart:
                return self._journal
            raise

    def _claim(self, fresh: bool) -> int:
        """Open the partial file and keep other runs away; the claim ends with the process, however it ends."""
        new = NEW if fresh else os.O_CREAT  # without a journal it is not ours
        flags = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | new
        try:
            descriptor = os.open(self.partial, flags, 0o666)
        except FileExistsError:
            raise PlanRefused(f"another run is writing {self.path}") from None
        except OSError as error:
            if fresh:
                remove(self._journal_path)
            if error.errno != errno.ELOOP:
                raise
            raise PlanRefused(f"{self.partial} is a symbolic link: {MOVE}") from error
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise PlanRefused(f"{self.partial} is not a file: {MOVE}")
            lock(descriptor, self.path)
            if not _is_at(descriptor, self.partial):
                raise PlanRefused(_CHANGED.format(self.path))
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _take_over(self, begun: Journal | None, *, restart: bool) -> None:
        found, size_bytes = self._known(restart), os.fstat(self._file).st_size  # now that nobody else changes it
        if found is None and not size_bytes:
            remove(self.partial)  # made just now, after another run had finished
        kept = found is not None and found.position.row > 0 and size_bytes > 0
        if found is None or (begun is None and kept and not restart) or (begun is not None and found != begun):
            raise PlanRefused(_CHANGED.format(self.path))
        if found.complete and size_bytes not in (0, found.output_bytes):
            raise PlanRefused(f"{self.partial} is not what its journal says: {MOVE}")
        for left in (self._assembling, new_journal(self._journal_path)):
            remove(left)
        if begun is None and found != self._journal:
            self._journal.save(self._journal_path)
        if size_bytes < self._written:
            raise PlanRefused(f"{self.partial} is shorter than its journal says: --restart begins anew")
        keep_access(self._file, self.path)  # the answers hold the texts
        os.ftruncate(self._file, self._written)

    def _sync(self, descriptor: int) -> None:
        try:
            os.fsync(descriptor)
        except OSError:
            self._unsynced = True  # a second sync would say that all is well
            raise

    def _assemble(self, assembly: Assembly) -> int:
        self._assembled = os.open(self._assembling, os.O_RDWR | NEW, 0o666)
        try:
            lock(self._assembled, self.path)
            assembly(self.partial, self._assembled)
            os.fsync(self._assembled)
        except BaseException:
            remove(self._assembling)
            raise
        return self._assembled

    def _name(self, whole: Path) -> None:
        if self._overwrite:
            os.replace(whole, self.path)
            return
        try:
            os.link(whole, self.path)  # unlike a rename, it replaces nothing
        except OSError as error:
            if os.path.lexists(self.path):
                raise OutputFailed(
                    f"{self.path} has appeared since the run began, and is not replaced. The whole output is {whole}; "
                    "--overwrite gives it the name"
                ) from error
            os.replace(whole, self.path)  # a file system without hard links

    def _discard(self) -> None:
        for path in (self.partial, self._assembling, self._journal_path):
            remove(path)

    def _save(self, *, complete: bool, output: Fingerprint | None = None) -> None:
        saved = replace(
            self._journal,
            position=self._end,
            output_bytes=self._written,
            failed_rows=self._failed_rows,
            complete=complete,
            output=output,
        )
        with told(self._journal_path):
            saved.save(self._journal_path)
        self._journal = saved


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
        self._counted = _Counted(sink.write)
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

    def __call__(self, partial: Path, final: int) -> None:
        """Write to an open file."""
        import pyarrow as pa

        from lockstep.clients.batch.parquet import RowGroups, streamed

        sink = _Counted(functools.partial(write_all, final))
        try:
            groups = RowGroups(sink, self._schema)
            with pa.OSFile(str(partial)) as source:
                for batch in streamed(source, partial.stat().st_size):
                    groups.add(batch)
            groups.close()
        finally:
            sink.abandon()


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


class _Counted:
    """A sink as Arrow wants one: it says how much was written. Arrow writes a footer whenever it lets go of it."""

    closed = False

    def __init__(self, write: Callable[[Any], object]) -> None:
        self._write: Callable[[Any], object] | None = write
        self._written = 0

    def write(self, data: Any) -> int:
        if self._write is not None:
            self._write(data)
        self._written += len(data)
        return len(data)

    def abandon(self) -> None:
        """Write no more, whatever comes."""
        self._write = None

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
