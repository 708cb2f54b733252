"""A disk on which a process dies, or that is full, at a step which the test names: no timing.

It stands for the module `os` in modules that write files by `os` alone. A step is a call that changes what is on disk.
"""

import errno
import os
from collections.abc import Iterable
from types import ModuleType
from typing import Any

import pytest

_STEPS = ("open", "write", "fsync", "ftruncate", "fchmod", "fchown", "replace", "link", "unlink")
_NEEDS_ROOM = ("open", "write", "fsync", "replace", "link")


class Killed(BaseException):
    """The process is gone: nothing that would be done after it is done."""


class FailingDisk:
    """`os`, but for the steps that the test has fail."""

    def __init__(self) -> None:
        self.steps: list[str] = []  # that were taken
        self._dies_at: int | None = None
        self._full_at: int | None = None

    def stand_in(self, monkeypatch: pytest.MonkeyPatch, modules: Iterable[ModuleType]) -> None:
        """Be `os` in these modules."""
        for module in modules:
            monkeypatch.setattr(module, "os", self)

    def die_at(self, step: int) -> None:
        """Have the process killed before a step, counted from 1; half of a write is done."""
        self.steps, self._dies_at, self._full_at = [], step, None

    def fill_at(self, step: int) -> None:
        """Have no room from a step on; what needs none still works."""
        self.steps, self._dies_at, self._full_at = [], None, step

    def recover(self) -> None:
        """Work again."""
        self.steps, self._dies_at, self._full_at = [], None, None

    @property
    def struck(self) -> bool:
        """Whether the step was reached."""
        at = self._dies_at or self._full_at
        return at is not None and len(self.steps) >= at

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        return self._step(name, real) if name in _STEPS else real

    def _step(self, name: str, real: Any) -> Any:
        def step(*arguments: Any, **named: Any) -> Any:
            if name == "open" and not arguments[1] & (os.O_CREAT | os.O_RDWR):
                return real(*arguments, **named)
            self.steps.append(name)
            if self._dies_at is not None and len(self.steps) >= self._dies_at:
                if name == "write" and len(self.steps) == self._dies_at:
                    real(arguments[0], arguments[1][: len(arguments[1]) // 2])
                raise Killed
            if self._full_at is not None and len(self.steps) >= self._full_at and name in _NEEDS_ROOM:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*arguments, **named)

        return step
