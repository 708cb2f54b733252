"""What the kernel tells of processes that it killed for want of memory: a SIGKILL alone does not say who sent it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_PROC, _CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class MemoryKills:
    """How many processes were killed so far, and where they are counted."""

    count: int
    where: str

    @classmethod
    def now(cls, proc: Path = _PROC, cgroups: Path = _CGROUPS) -> MemoryKills | None:
        """Read the counter of this process's control group, or else the machine's; None where there is neither."""
        for file in _counters_of_our_group(proc, cgroups):
            if (count := _read(file)) is not None:
                return cls(count, "this control group")
        count = _read(proc / "vmstat")
        return None if count is None else cls(count, "this machine")


def killed(before: MemoryKills | None, now: MemoryKills | None) -> str:
    """Say what is known of a process that ended by SIGKILL and started when `before` was read."""
    if before is None or now is None or before.where != now.where:
        return "often the kernel's out-of-memory killer"
    kills = now.count - before.count
    if kills <= 0:
        return f"not by the kernel for want of memory, which counts no such kill in {now.where} since it started"
    processes = "a process" if kills == 1 else f"{kills} processes"
    return (
        f"the kernel killed {processes} of {now.where} for want of memory since it started: give it more, or less to do"
    )


def _counters_of_our_group(proc: Path, cgroups: Path) -> list[Path]:
    """Return where the counter may be: in version 2, version 1 and where the group is the root of what is mounted."""
    try:
        lines = (proc / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return []
    files = []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            files += [folder / group.lstrip("/") / "memory.events" for folder in (cgroups, cgroups / "unified")]
            files += [cgroups / "memory.events"]
        elif "memory" in controllers.split(","):
            files += [cgroups / "memory" / group.lstrip("/") / "memory.oom_control"]
            files += [cgroups / "memory" / "memory.oom_control"]
    return files


def _read(file: Path) -> int | None:
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)
