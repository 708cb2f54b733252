"""What worker processes use of the machine, as the operating system counts it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class Usage:
    """What processes use together."""

    cpu_s: float
    resident_bytes: int


def usage_of(pids: Iterable[int]) -> Usage:
    """Return what the processes use now; one that died this instant counts for nothing."""
    cpu_s, resident_bytes = 0.0, 0
    for pid in pids:
        try:
            process = psutil.Process(pid)
            times, memory = process.cpu_times(), process.memory_info()
        except psutil.NoSuchProcess:
            continue
        cpu_s += times.user + times.system
        resident_bytes += memory.rss
    return Usage(cpu_s, resident_bytes)
