"""A SIGKILL is told for what the kernel's counters make of it."""

from pathlib import Path

import pytest

from lockstep.exporters import processes
from lockstep.exporters.conversion import ConversionError, ReferenceJob
from lockstep.server.runtimes.memory_kills import MemoryKills, killed

LAYOUTS = {
    "version 2": ("0::/a.slice/b", "a.slice/b/memory.events", "low 0\noom 3\noom_kill 2\noom_group_kill 0\n"),
    "version 2, seen from inside its group": ("0::/a.slice/b", "memory.events", "oom_kill 2\n"),
    "version 1": ("9:memory:/a\n0::/", "memory/a/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_counter_of_our_own_group_is_read(tmp_path: Path, layout: str) -> None:
    groups, file, text = LAYOUTS[layout]
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(groups + "\n")
    (tmp_path / "proc/vmstat").write_text("oom_kill 7\n")
    assert MemoryKills.now(tmp_path / "proc", tmp_path / "cgroup") == MemoryKills(7, "this machine")
    (tmp_path / "cgroup" / file).parent.mkdir(parents=True)
    (tmp_path / "cgroup" / file).write_text(text)
    assert MemoryKills.now(tmp_path / "proc", tmp_path / "cgroup") == MemoryKills(2, "this control group")


def test_where_nothing_is_counted_nothing_is_known(tmp_path: Path) -> None:
    assert MemoryKills.now(tmp_path, tmp_path) is None
    assert killed(None, None) == "often the kernel's out-of-memory killer"


def test_only_what_was_counted_is_said() -> None:
    before = MemoryKills(1, "this control group")
    assert "not by the kernel for want of memory" in killed(before, before)
    assert "killed a process of this control group" in killed(before, MemoryKills(2, "this control group"))
    assert "killed 2 processes" in killed(before, MemoryKills(3, "this control group"))
    assert "often" in killed(before, MemoryKills(5, "this machine"))


async def test_the_job_of_an_export_that_was_killed_is_told_with_what_the_kernel_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\nif 'lockstep.exporters.job:main' in sys.orig_argv:\n    os.kill(os.getpid(), 9)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(processes, "killed", lambda before, now: "as the kernel counts")
    job = ReferenceJob.model_construct(job="reference")
    with pytest.raises(ConversionError, match=r"ended with signal SIGKILL \(as the kernel counts\)"):
        await processes.run(job, threads=1, timeout_s=60, log=tmp_path / "log", say=print)
