r"""Standard input, output and error, made safe before a command begins. Standard library only.

- A descriptor of the three that is closed is opened on the null device, so that no socket or file gets its number.
  Reading from it, or writing to it, then fails as it should ("Bad file descriptor"), and hits nobody else.
- Standard error never fails: what cannot be written there is dropped. A message must not decide how a command ends.
- What the encoding of standard output lacks is written as an escape (`\xe9`) instead of ending the command.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import Final, TextIO

_WRONG_WAY: Final = {0: os.O_WRONLY, 1: os.O_RDONLY, 2: os.O_WRONLY}
"""How the null device is opened in place of a closed descriptor: input and output refuse their use, error drops it."""


def prepare() -> None:
    """Make the three streams of this process safe; to be called first of all."""
    for number, flags in _WRONG_WAY.items():
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, flags)  # the lowest free number: this one
            assert opened == number
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.stderr = _unfailing(sys.stderr)


def writes_unicode(stream: TextIO) -> bool:
    """Say whether a stream can write every character."""
    return (stream.encoding or "").lower().replace("-", "").startswith("utf")


def _unfailing(stream: TextIO | None) -> TextIO:
    encoding = stream.encoding if stream is not None else "utf-8"
    raw = io.BufferedWriter(_Unfailing(2))
    return io.TextIOWrapper(raw, encoding=encoding, errors="backslashreplace", line_buffering=True, write_through=True)


class _Unfailing(io.RawIOBase):
    """A descriptor to write to, whatever becomes of it."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: object) -> int:
        """Write what can be written; report all of it as written."""
        view = memoryview(data)  # type: ignore[arg-type]  # RawIOBase's own signature differs by version
        with contextlib.suppress(OSError):
            left = view
            while left:
                left = left[os.write(self._descriptor, left) :]
        return len(view)
