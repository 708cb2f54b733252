"""What was measured, as it is kept on disk: one entry a measurement, with when, how and beside what it ran.

An entry is good as long as what it is of has not changed, so that an interrupted run is taken up where it was.
"""

from __future__ import annotations

import json
import os
import resource
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import psutil

from lockstep.clients.output_files import write_whole

FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Conditions:
    """Where and when a measurement ran, and how much of the machine others used meanwhile."""

    at: str  # ISO 8601, UTC: when it ended
    seconds: float
    cores: int
    others_share: float  # of all cores: CPU time of processes that are not ours


@dataclass(frozen=True, slots=True)
class Entry:
    """One measurement. `of` is the fingerprint of what was measured and how; `value` is the measurer's own."""

    of: str
    command: str
    conditions: Conditions
    value: dict[str, Any]


class StoreUnreadable(Exception):
    """The file is not one of ours; the message names it and says what to do."""


class Kept:
    """The measurements by key, `<kind>/<subject>`; each is on disk as soon as it is known."""

    def __init__(self, path: Path, entries: dict[str, Entry]) -> None:
        self.path = path
        self.entries = entries

    @classmethod
    def read(cls, path: Path) -> Kept:
        """Read the file, if there is one; raises `StoreUnreadable`."""
        if not path.is_file():
            return cls(path, {})
        try:
            document = json.loads(path.read_bytes())
            if document["format"] != FORMAT:
                raise ValueError(f"format {document['format']}, not {FORMAT}")
            entries = {
                key: Entry(**{**entry, "conditions": Conditions(**entry["conditions"])})
                for key, entry in document["measurements"].items()
            }
        except (ValueError, KeyError, TypeError) as error:
            raise StoreUnreadable(f"{path}: not measurements of this version ({error}): move it away") from error
        return cls(path, entries)

    def stands(self, key: str, of: str) -> bool:
        """Return whether a measurement of the same thing is there."""
        return key in self.entries and self.entries[key].of == of

    def keep(self, key: str, entry: Entry) -> None:
        """Write one measurement, whole or not at all."""
        self.entries[key] = entry
        document = {"format": FORMAT, "measurements": {key: asdict(self.entries[key]) for key in sorted(self.entries)}}
        write_whole(self.path, json.dumps(document, indent=1) + "\n")

    def value(self, key: str) -> dict[str, Any] | None:
        """Return a measurement, or `None` where there is none."""
        entry = self.entries.get(key)
        return None if entry is None else entry.value


class Watch:
    """Sees how long a measurement takes and what others do meanwhile; `conditions` once it has ended."""

    def __init__(self) -> None:
        self._began_s = time.monotonic()
        self._busy_s, self._own_s = _busy_s(), _own_s()

    def conditions(self) -> Conditions:
        """Return what was seen since this began. Our processes have ended by now, or their CPU time is others'."""
        cores = os.cpu_count() or 1
        seconds = time.monotonic() - self._began_s
        others_s = (_busy_s() - self._busy_s) - (_own_s() - self._own_s)
        share = min(1.0, max(0.0, others_s / (seconds * cores)))
        return Conditions(datetime.now(UTC).isoformat(timespec="seconds"), round(seconds, 1), cores, round(share, 3))


def _busy_s() -> float:
    """Return the CPU time that all processes of the machine have used."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + getattr(times, "steal", 0.0))


def _own_s() -> float:
    """Return the CPU time of this process and of its children and theirs that have ended."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )
