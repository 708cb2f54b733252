"""The files that a run has beside its output: their names, whose they are, which run has them."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Final

from lockstep.clients.batch.batch_errors import PlanRefused
from lockstep.clients.batch.journal import MOVE, is_journal, new_journal

PARTIAL: Final = ".partial"
PROGRESS: Final = ".progress"
ASSEMBLING: Final = ".assembling"


def beside(path: Path, suffix: str) -> Path:
    """Return the path of a companion of the output."""
    return path.with_name(path.name + suffix)


def companions(path: Path) -> tuple[Path, ...]:
    """Return every file that a run may have beside an output."""
    journal = beside(path, PROGRESS)
    return beside(path, PARTIAL), beside(path, ASSEMBLING), journal, new_journal(journal)


def refuse_strangers(path: Path) -> None:
    """Raise `PlanRefused` if a file that is not of a run has the name of a companion, where no journal is."""
    *unknown, _, saved = companions(path)
    for found in unknown:
        if os.path.lexists(found):
            raise PlanRefused(f"{found} is there, and no journal says that a batch run made it: {MOVE}")
    if not is_journal(saved):
        raise PlanRefused(f"{saved} is there and is not the journal of a batch run: {MOVE}")


def lock(descriptor: int, path: Path) -> None:
    """Keep other runs away from an output, until the descriptor is closed. Raises `PlanRefused`."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise PlanRefused(f"another run is writing {path}") from None


def remove(path: Path) -> None:
    """Remove a companion, if it is there. Raises `OSError`."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
