"""Cores are counted as what this process may use."""

import os
from pathlib import Path

import pytest

from lockstep.cores import usable_cores
from lockstep.server.config import ServerConfig


def count(root: Path, groups: str, files: dict[str, str], affinity: int = 16) -> int:
    """Count over a tree of files such as Linux has."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        (root / "cgroup" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "cgroup" / name).write_text(text)
    return usable_cores(affinity=affinity, proc=root / "proc", cgroups=root / "cgroup")


CASES: dict[str, tuple[str, dict[str, str], int]] = {
    "no control group": ("", {}, 16),
    "version 2 without a quota": ("0::/a\n", {"a/cpu.max": "max 100000\n"}, 16),
    "version 2": ("0::/a\n", {"a/cpu.max": "200000 100000\n"}, 2),
    "version 2, a part of a core": ("0::/a\n", {"a/cpu.max": "50000 100000\n"}, 1),
    "version 2, two and a half": ("0::/a\n", {"a/cpu.max": "250000 100000\n"}, 2),
    "version 2, of a group above": ("0::/a/b\n", {"a/cpu.max": "300000 100000\n", "a/b/cpu.max": "max 100000\n"}, 3),
    "version 2, seen from inside": ("0::/not/visible\n", {"cpu.max": "400000 100000\n"}, 4),
    "version 1": (
        "5:cpu,cpuacct:/a\n0::/\n",
        {"cpu,cpuacct/a/cpu.cfs_quota_us": "300000\n", "cpu,cpuacct/a/cpu.cfs_period_us": "100000\n"},
        3,
    ),
    "version 1 without a quota": ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000"}, 16),
    "a quota above the CPU set": ("0::/\n", {"cpu.max": "9900000 100000\n"}, 16),
    "nonsense": ("0::/\n", {"cpu.max": "many\n"}, 16),
}


@pytest.mark.parametrize("case", CASES)
def test_the_smallest_of_cpu_set_and_quotas_counts(tmp_path: Path, case: str) -> None:
    groups, files, expected = CASES[case]
    assert count(tmp_path, groups, files) == expected


def test_a_cpu_set_counts(tmp_path: Path) -> None:
    here = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(here)})
    try:
        assert usable_cores(proc=tmp_path) == 1
    finally:
        os.sched_setaffinity(0, here)


def test_instances_are_what_may_be_used() -> None:
    assert ServerConfig.model_fields["instances"].get_default() == usable_cores()
