"""A server whose log nobody reads serves, drains and ends as one whose log is read."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from lockstep.clients import CallError, SyncSentimentClient
from lockstep.local_server import free_port
from tests import doubles


@contextmanager
def nobody_reads() -> Iterator[int]:
    """A pipe that is full, and whose reader is there and does not read."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    while True:
        try:
            os.write(writing, b"x" * 65_536)
        except BlockingIOError:
            break
    os.set_blocking(writing, True)
    yield writing
    os.close(reading)
    os.close(writing)


@contextmanager
def reader_has_gone() -> Iterator[int]:
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


@contextmanager
def full_disk() -> Iterator[int]:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    yield descriptor
    os.close(descriptor)


@contextmanager
def closed() -> Iterator[int]:
    yield -1


LOGS = [nobody_reads, reader_has_gone, full_disk, closed]


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("log", LOGS)
def test_a_log_that_cannot_be_written_decides_nothing(
    log: Callable[[], AbstractContextManager[int]], log_format: str, tmp_path: Path
) -> None:
    doubles.publish(tmp_path / "models", "model")
    address = f"127.0.0.1:{free_port()}"
    words = [sys.executable, "-m", "tests.serve_doubles", "serve", "--repository", str(tmp_path / "models")]
    words += ["--grpc", address, "--http", "127.0.0.1:0", "--state", str(tmp_path / "state"), "--access-log"]
    words += ["--log-format", log_format]
    with log() as descriptor:
        redirected = words if descriptor >= 0 else ["bash", "-c", 'exec "$@" 2>&-', "bash", *words]
        process = subprocess.Popen(redirected, stderr=descriptor if descriptor >= 0 else None)
        try:
            with SyncSentimentClient(address, timeout_s=30) as client:
                while not served(client):
                    assert process.poll() is None
                assert len(client.classify(["good"] * 50, model="model")) == 50
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.wait()


def served(client: SyncSentimentClient) -> bool:
    try:
        return client.ready(timeout_s=1.0)
    except CallError:
        return False
