"""Where an output path leads, and files that appear when they are whole. Knows nothing of what is in them.

An output is a regular file, or a stream: a FIFO, a terminal, `/dev/null`, one of this process's own descriptors
(`/dev/stdout`). A stream is written through and never replaced. A symbolic link is followed: the link stays, and the
file behind it is written. Folders, sockets and block devices are refused.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

NEW: Final = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
"""Flags to open a file that must not be there yet, nor be a link."""
_FOLDER_OF_DESCRIPTORS: Final = re.compile(r"/proc/(\d+)(?:/task/\d+)?/fd")
_LINKS: Final = 40
_REFUSED: Final = {stat.S_IFDIR: "a folder", stat.S_IFSOCK: "a socket", stat.S_IFBLK: "a block device"}


@dataclass(frozen=True, slots=True)
class Destination:
    """Where an output path leads."""

    path: Path  # of a file: links followed
    stream: bool = False
    descriptor: int | None = None  # of a stream that this process has open already

    def open_stream(self) -> int:
        """Return a new descriptor of a stream; waits for a FIFO's reader. Raises `OSError`."""
        if self.descriptor is not None:
            return os.dup(self.descriptor)
        return os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)


def destination(path: Path) -> Destination:
    """Find out where a path leads; raises `OSError`, with a message, if nothing can be written there."""
    if (found := _descriptor(path)) is not None:
        process, number = found
        if process == os.getpid():
            try:
                os.fstat(number)
            except OSError:
                raise OSError(f"{path} is closed: this process has no descriptor {number}") from None
            return Destination(path, stream=True, descriptor=number)
    try:
        kind = stat.S_IFMT(os.stat(path).st_mode)
    except FileNotFoundError:
        return Destination(_behind(path))
    if kind in _REFUSED:
        raise OSError(f"{path} is {_REFUSED[kind]}: name a file")
    if kind != stat.S_IFREG:
        return Destination(path, stream=True)
    if found is not None:
        raise OSError(f"{path} is a file that another process has open: name the file itself")
    return Destination(_behind(path))


def write_whole(path: Path, text: str) -> None:
    """Write a text, making the file's folder: until the file is whole, what was there before stays.

    A file that is there keeps its mode, and its owner if that is allowed. Raises `OSError`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    where = destination(path)
    data = text.encode()
    if where.stream:
        descriptor = where.open_stream()
        try:
            write_all(descriptor, data)
        finally:
            os.close(descriptor)
        return
    with _unfinished(where.path) as unfinished:
        descriptor = os.open(unfinished, os.O_WRONLY | NEW, 0o666)
        try:
            keep_access(descriptor, where.path)
            write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(unfinished, where.path)


def check_writable(path: Path) -> None:
    """Make the file's folder and see that it takes a file of that name; raises `OSError` saying why it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    where = destination(path)
    if where.stream:
        return
    with _unfinished(where.path) as unfinished:
        os.close(os.open(unfinished, os.O_WRONLY | NEW, 0o666))
        os.unlink(unfinished)


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of it; raises `OSError`."""
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def keep_access(descriptor: int, path: Path) -> None:
    """Give an open file the mode of the file at a path, if there is one, and its owner and group if that is allowed."""
    try:
        wanted = os.stat(path)
    except FileNotFoundError:
        return
    found = os.fstat(descriptor)
    with contextlib.suppress(PermissionError):  # only root gives files away
        if wanted.st_gid != found.st_gid:
            os.fchown(descriptor, -1, wanted.st_gid)
        if wanted.st_uid != found.st_uid:
            os.fchown(descriptor, wanted.st_uid, -1)
    if stat.S_IMODE(found.st_mode) != stat.S_IMODE(wanted.st_mode) & 0o777:
        os.fchmod(descriptor, stat.S_IMODE(wanted.st_mode) & 0o777)


def sync_folder(folder: Path) -> None:
    """Have a folder's names survive a power cut; raises `OSError`."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that syncs no folders
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _unfinished(path: Path) -> Iterator[Path]:
    """Yield the name of a file that nobody else has, beside a path; it is removed if the block fails."""
    found = path.with_name(f".{secrets.token_hex(8)}.unfinished")
    try:
        yield found
    except BaseException:
        found.unlink(missing_ok=True)
        raise


def _behind(path: Path) -> Path:
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def _descriptor(path: Path) -> tuple[int, int] | None:
    """Return the process and the number of the descriptor that a path names, through links too."""
    for _ in range(_LINKS):
        folder = os.path.realpath(path.parent)
        owner = _FOLDER_OF_DESCRIPTORS.fullmatch(folder)
        if owner is not None and path.name.isdecimal():
            return int(owner[1]), int(path.name)
        if not path.is_symlink():
            return None
        path = Path(folder, os.readlink(path))
    return None
