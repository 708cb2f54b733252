"""Where the load was generated: what a reader must know of the machine. Knows no host name and no user."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

BUSY_LOAD: Final = 0.5
"""Of the cores: where others used more than this before the test began, its figures are theirs too."""


@dataclass(frozen=True, slots=True)
class Environment:
    """The machine that the load came from, and the versions that generated it."""

    cpu: str
    cores: int
    memory_bytes: int
    system: str
    python: str
    lockstep: str
    grpc: str
    load_average: float | None  # of the minute before the test; None: the system keeps none

    @property
    def busy(self) -> bool:
        """Whether others used the machine when the test began."""
        return self.load_average is not None and self.load_average > BUSY_LOAD * self.cores

    @classmethod
    def here(cls) -> Environment:
        """Describe this machine, now."""
        return cls(
            cpu=_cpu(),
            cores=os.cpu_count() or 1,
            memory_bytes=psutil.virtual_memory().total,
            system=f"{platform.system()} {platform.release()} {platform.machine()}",
            python=platform.python_version(),
            lockstep=_version("lockstep"),
            grpc=_version("grpcio"),
            load_average=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        )


def _cpu() -> str:
    """Name the processor; Linux alone tells more than its architecture."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
