"""What is known to be on disk: the journal beside an output that is not finished. Knows nothing of the rows."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from lockstep.clients.batch.batch_errors import ResumeRefused
from lockstep.clients.batch.rows import Position
from lockstep.clients.batch.streams import Fingerprint

FORMAT: Final = 2

Work = Mapping[str, Any]
"""What the answers depend on, by the name of its option: JSON values."""


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """Which file it is, whatever its name: a rename keeps both."""

    inode: int
    size_bytes: int

    @classmethod
    def of(cls, path: Path) -> FileIdentity:
        """Return a file's; raises `OSError`."""
        found = path.stat()
        return cls(found.st_ino, found.st_size)

    def is_at(self, path: Path) -> bool:
        """Say whether this is the file of that name."""
        try:
            return FileIdentity.of(path) == self
        except FileNotFoundError:
            return False


@dataclass(frozen=True, slots=True)
class Journal:
    """A state of the output that a later run can go on from."""

    input: Fingerprint
    work: Work
    position: Position  # in the input, of the next row
    output_bytes: int  # of the partial output, for the rows before it
    failed_rows: int
    finished: FileIdentity | None = None  # every row is there: this file is the output, or about to get its name

    def save(self, path: Path) -> None:
        """Write it in place of the one before: after a kill, one of the two is there. Raises `OSError`."""
        written = path.with_name(path.name + ".new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(written, flags, 0o666), "w", encoding="utf-8") as file:
            json.dump({"format": FORMAT} | asdict(self), file, indent=1, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        written.replace(path)
        sync_folder(path.parent)

    @classmethod
    def load(cls, path: Path) -> Journal | None:
        """Read it, `None` where there is none. Raises `ResumeRefused` where it cannot be understood."""
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            if found.pop("format") != FORMAT:
                raise ValueError("of another version")
            finished = found.pop("finished")
            return cls(
                input=Fingerprint(**found.pop("input")),
                position=Position(**found.pop("position")),
                finished=None if finished is None else FileIdentity(**finished),
                **found,
            )
        except FileNotFoundError:
            return None
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ResumeRefused(f"{path} cannot be read ({error}): --restart begins anew") from error

    def check(self, input: Fingerprint, work: Work) -> None:
        """Raise `ResumeRefused`, with what differs, where a run with this input and work cannot go on from here."""
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


def sync_folder(folder: Path) -> None:
    """Have a folder's names survive a power cut; raises `OSError`."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
