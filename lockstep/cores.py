"""How many cores this process may use: its CPU set and the quotas of its control groups, not what the machine has.

Standard library only: the client counts by it too.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

_PROC, _CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")
_CPU_FOLDERS = ("cpu", "cpu,cpuacct", "cpuacct,cpu")  # where version 1 is mounted


def usable_cores(*, affinity: int | None = None, proc: Path = _PROC, cgroups: Path = _CGROUPS) -> int:
    """Return how many cores may be used at once, at least 1; a quota of two and a half is two.

    `affinity` is the size of the CPU set; None: this process's.
    """
    cores = _affinity() if affinity is None else affinity
    return max(1, min([cores, *(int(quota) for quota in _quotas(proc, cgroups))]))


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas(proc: Path, cgroups: Path) -> Iterator[float]:
    """Yield the quota, in cores, of each control group that we are in and that has one."""
    for line in _text(proc / "self" / "cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            for root in (cgroups, cgroups / "unified"):
                yield from _each_group(root, group, _quota_of_version_2)
        elif "cpu" in controllers.split(","):
            for folder in _CPU_FOLDERS:
                yield from _each_group(cgroups / folder, group, _quota_of_version_1)


def _each_group(root: Path, group: str, quota_of: Callable[[Path], float | None]) -> Iterator[float]:
    """Yield the quotas from a group up to the root of what is mounted: each of them bounds us."""
    relative = PurePosixPath(group.lstrip("/"))
    for one in (relative, *relative.parents):
        if (quota := quota_of(root / one)) is not None:
            yield quota


def _quota_of_version_2(folder: Path) -> float | None:
    quota, _, period = _text(folder / "cpu.max").strip().partition(" ")
    return _ratio(quota, period)


def _quota_of_version_1(folder: Path) -> float | None:
    return _ratio(_text(folder / "cpu.cfs_quota_us").strip(), _text(folder / "cpu.cfs_period_us").strip())


def _ratio(quota: str, period: str) -> float | None:
    """Return the quotient, or None where there is no quota: `max`, -1 or no file."""
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else None


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
