"""A lock that one process has for as long as it lives: a file, locked in the kernel, which lets go at a kill -9 too."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path


class Held(Exception):
    """Another process has the lock; `pid` is what it wrote of itself, or None where it has not yet."""

    def __init__(self, pid: int | None) -> None:
        super().__init__("another process" if pid is None else f"process {pid}")
        self.pid = pid


class FileLock:
    """A lock that was taken; `release` removes its file."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor: int | None = descriptor

    @classmethod
    def take(cls, path: Path) -> FileLock:
        """Take the lock of a file, which is made; raises `Held` where another has it, `OSError` where it cannot be."""
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_at(path, descriptor):  # else who had it removed the file between our two steps
                    os.ftruncate(descriptor, 0)
                    os.write(descriptor, f"{os.getpid()}\n".encode())
                    return cls(path, descriptor)
            except OSError as error:
                words = os.pread(descriptor, 32, 0).strip()
                os.close(descriptor)
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise
                raise Held(int(words) if words.isdigit() else None) from None
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def release(self) -> None:
        """Let another have it; does nothing the second time."""
        if self._descriptor is None:
            return
        with contextlib.suppress(OSError):  # somebody else has removed it
            if _is_at(self._path, self._descriptor):
                self._path.unlink()
        os.close(self._descriptor)
        self._descriptor = None


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        found = path.stat(follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(found, os.fstat(descriptor))
