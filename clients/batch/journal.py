"""What is known to be on disk: the journal beside an output that is not finished. Knows nothing of the rows."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from lockstep.clients.batch.batch_errors import PlanRefused, ResumeRefused
from lockstep.clients.batch.rows import Position
from lockstep.clients.batch.streams import Fingerprint
from lockstep.clients.output_files import NEW, sync_folder, write_all

FORMAT: Final = 2
_BEGINS: Final = b'{\n "format": '
_MAX_BYTES: Final = 1 << 20

Work = Mapping[str, Any]
"""What the answers depend on, by the name of its option: JSON values."""


@dataclass(frozen=True, slots=True)
class Journal:
    """A state of the output that a later run can go on from."""

    input: Fingerprint | None  # None: a pipe, which no later run can go on with
    work: Work
    position: Position  # in the input, of the next row
    output_bytes: int  # of the partial output, for the rows before it
    failed_rows: int
    complete: bool = False  # every row is there; only the final name is missing
    output: Fingerprint | None = None  # of the whole output, from just before it gets its name

    def save(self, path: Path) -> None:
        """Write it in place of the one before: after a kill, one of the two is there. Raises `OSError`."""
        written = new_journal(path)
        document = json.dumps({"format": FORMAT} | asdict(self), indent=1, ensure_ascii=False)
        descriptor = os.open(written, os.O_WRONLY | NEW, 0o666)
        try:
            try:
                write_all(descriptor, document.encode())
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.replace(written, path)
        except BaseException:
            os.unlink(written)
            raise
        sync_folder(path.parent)

    @classmethod
    def load(cls, path: Path) -> Journal | None:
        """Read it, `None` if there is none.

        Raises `ResumeRefused` if it cannot be understood, `PlanRefused` if the file is not a journal at all.
        """
        found = _read(path)
        if not found:
            return None
        if not found.startswith(_BEGINS):
            raise PlanRefused(f"{path} is there and is not the journal of a batch run: {MOVE}")
        try:
            document = json.loads(found)
            if (version := document.pop("format")) != FORMAT:
                raise ValueError(f"format {version}, this version of lockstep reads {FORMAT}")
            for name in ("input", "output"):
                document[name] = None if document[name] is None else Fingerprint(**document[name])
            return cls(position=Position(**document.pop("position")), **document)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ResumeRefused(f"{path} cannot be read ({error}): --restart begins anew") from error

    def check(self, input: Fingerprint | None, work: Work) -> None:
        """Raise `ResumeRefused`, with what differs, if a run with this input and work cannot go on from here."""
        if self.input is None or input is None:
            raise ResumeRefused(
                f"{self.position.row:,} answers of an earlier run are kept beside the output, and a pipe cannot go on "
                "from them: name another output, or --restart discards them"
            )
        if self.input != input:
            raise ResumeRefused(
                f"the input has changed since {self.position.row:,} of its rows were answered: --restart begins anew"
            )
        differing = [
            f"{name} was {self.work.get(name)!r} and is {work.get(name)!r}"
            for name in dict.fromkeys([*self.work, *work])
            if self.work.get(name) != work.get(name)
        ]
        if differing:
            raise ResumeRefused(
                f"{self.position.row:,} rows were answered otherwise: {'; '.join(differing)}. "
                "Say as before, or --restart to begin anew"
            )


MOVE: Final = "move it away, delete it, or name another output"


def new_journal(path: Path) -> Path:
    """Return the name that a journal has until it is whole."""
    return path.with_name(path.name + ".new")


def is_journal(path: Path) -> bool:
    """Whether a file is a journal, or what a power cut leaves of one: nothing."""
    found = _read(path)
    return not found or found.startswith(_BEGINS)


def _read(path: Path) -> bytes:
    """Return the content, of which a power cut may leave none, or zeros; empty if there is no file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise PlanRefused(f"{path} is there and is not a file: {MOVE}")
            return os.read(descriptor, _MAX_BYTES).strip(b"\0")
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        return b""
    except OSError as error:
        why = "is a symbolic link" if error.errno == errno.ELOOP else f"cannot be read ({error.strerror})"
        raise PlanRefused(f"{path} is there and {why}: {MOVE}") from error
