"""A server of our own for the length of a block: `lockstep serve` in a child process. Knows no framework."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lockstep import child_processes
from lockstep.clients import CallError, SyncSentimentClient

_READY_TIMEOUT_S = 120.0
_STOP_TIMEOUT_S = 30.0
_POLL_S = 0.1


class ServerFailed(Exception):
    """The server did not start, or ended early; the message holds its last words."""


@dataclass(frozen=True, slots=True)
class LocalServer:
    """A running server's addresses, `host:port`."""

    grpc: str
    http: str


@contextlib.contextmanager
def local_server(repository: Path, log: Path, *flags: str) -> Iterator[LocalServer]:
    """Serve a repository on free ports of the loopback interface; yields when every model is ready.

    The server's log goes to the file `log`. Raises `ServerFailed` where it does not become ready. At the end
    of the block the server drains and stops.
    """
    server = LocalServer(f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}")
    command = child_processes.command("lockstep.cli:run", "serve", "--repository", str(repository))
    command += ["--grpc", server.grpc, "--http", server.http, *flags]
    with log.open("wb") as stream:
        # A session of its own: Ctrl-C is ours, and we stop the server in order.
        process = subprocess.Popen(
            command,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
            env=child_processes.environment(),
            preexec_fn=child_processes.stop_with_parent(),
        )
        try:
            _wait_until_ready(process, server, log)
            yield server
        finally:
            child_processes.stop(process, _STOP_TIMEOUT_S)


def _wait_until_ready(process: subprocess.Popen[bytes], server: LocalServer, log: Path) -> None:
    deadline = time.monotonic() + _READY_TIMEOUT_S
    with SyncSentimentClient(server.grpc, timeout_s=1.0) as client:
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise ServerFailed(f"the server ended with status {process.returncode}: {_last_words(log)}")
            with contextlib.suppress(CallError):  # not listening yet
                if client.ready():
                    return
            time.sleep(_POLL_S)
    raise ServerFailed(f"the server was not ready after {_READY_TIMEOUT_S:.0f} s: {_last_words(log)}")


def _last_words(log: Path) -> str:
    return log.read_text(errors="replace").strip().rpartition("\n")[2]


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
