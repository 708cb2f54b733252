"""What a server has for itself: its state folder and its addresses. Taken before anything of another's is touched.

gRPC alone would remove the socket of a server that runs, and listen on those addresses of a name that are free.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import stat
from pathlib import Path
from typing import Literal

from lockstep.server.config import ConfigurationError
from lockstep.server.core.address import Address
from lockstep.server.core.locks import FileLock, Held

_log = logging.getLogger("lockstep.app")
_LOCK = "server.lock"


def take_state(folder: Path) -> FileLock | None:
    """Take a state folder, which is made; None where it cannot be written, and so nobody is disturbed.

    Raises `ConfigurationError` where another server has it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock.take(folder / _LOCK)
    except Held as holder:
        raise ConfigurationError(
            f"the state folder {folder} is in use by another server ({holder}): give this one its own with --state"
        ) from None
    except OSError as error:
        _log.warning("costs are not kept: %s: %s", folder, error.strerror)
        return None


def take_socket(path: Path) -> FileLock:
    """Take the path of a Unix socket, and remove the socket that a killed server left there.

    Raises `ConfigurationError` where another server has it, or what is there is not a socket.
    """
    try:
        lock = FileLock.take(Path(f"{path}.lock"))
    except Held as holder:
        raise _in_use(f"unix:{path}", f"by another server ({holder})") from None
    except OSError as error:
        raise ConfigurationError(f"cannot listen on unix:{path} (gRPC): {path}.lock: {error.strerror}") from error
    try:
        _remove_stale(path)
    except BaseException:
        lock.release()
        raise
    return lock


def check_port(address: Address) -> None:
    """Raise `ConfigurationError` where gRPC could not listen on each address of a host; what is free stays so."""
    try:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )
    except socket.gaierror as error:
        raise ConfigurationError(f"cannot listen on {address} (gRPC): {error.strerror}") from error
    tried = [_binding_fails(family, kind, place) for family, kind, _, _, place in found]
    failures = [failure for failure in tried if failure is not None]
    for failure in failures:
        if failure.errno == errno.EADDRINUSE:
            raise cannot_listen(address, "gRPC", failure) from failure
    if failures and len(failures) == len(found):
        raise cannot_listen(address, "gRPC", failures[0]) from failures[0]


def _binding_fails(family: int, kind: int, place: tuple[object, ...]) -> OSError | None:
    try:
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)  # as gRPC does: [::] is all addresses
            probe.bind(place)
    except OSError as error:
        return error
    return None


def _remove_stale(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigurationError(f"cannot listen on unix:{path} (gRPC): {error.strerror}") from error
    if not stat.S_ISSOCK(mode):
        raise ConfigurationError(
            f"cannot listen on unix:{path} (gRPC): a file is there: remove it, or give another path"
        )
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        failed = probe.connect_ex(os.fspath(path))
    if failed != errno.ECONNREFUSED:  # it answers, has too many who wait (EAGAIN), or is another's
        raise _in_use(f"unix:{path}")
    try:
        path.unlink()
    except OSError as error:
        raise ConfigurationError(f"cannot listen on unix:{path} (gRPC): {error.strerror}") from error
    _log.info("unix:%s: took over the socket of a server that has ended", path)


def cannot_listen(address: Address | str, port: Literal["gRPC", "HTTP"], error: OSError) -> ConfigurationError:
    """Return what to tell of a port that cannot be bound."""
    if error.errno == errno.EADDRINUSE:
        return _in_use(str(address), port=port)
    why = os.strerror(error.errno) if error.errno else str(error)
    return ConfigurationError(f"cannot listen on {address} ({port}): {why}")


def _in_use(address: str, who: str = "", port: Literal["gRPC", "HTTP"] = "gRPC") -> ConfigurationError:
    used = f"it is in use {who}".rstrip()
    return ConfigurationError(
        f"cannot listen on {address} ({port}): {used}: "
        f"stop what listens there, or give this server another with --{port.lower()}"
    )
