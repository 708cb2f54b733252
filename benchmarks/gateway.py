"""A server under test: `lockstep serve` in a child process, and the generator's process that drives it."""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

import psutil

from benchmarks.generator import Target, scrape
from benchmarks.models import BenchModel
from lockstep.local_server import ServerFailed, local_server

_MEASUREMENT_TIMEOUT_S: Final = 600.0
_WORKERS_TIMEOUT_S: Final = 60.0

Plan = TypeVar("Plan")
Figures = TypeVar("Figures")


@contextlib.contextmanager
def served(model: BenchModel, folder: Path, *flags: str, instances: int, threads: int = 1) -> Iterator[Target]:
    """Serve a model on free loopback ports with the flags given; its log and what it measured are kept in `folder`.

    Yields when every one of its workers is ready. Raises `lockstep.local_server.ServerFailed`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{model.name}{''.join(flags).replace('--', '-')}.log"
    # all workers at once and for ever: none may come or go while others are measured
    split = ("--instances", str(instances), "--threads", str(threads), "--start", "all", "--idle-stop-s", "86400")
    with local_server(model.repository, log, "--state", str(folder / "state"), *split, *flags) as server:
        _wait_for_workers(server.http, instances)
        children = psutil.Process().children()
        (process,) = (child for child in children if server.grpc in _command_line(child))
        yield Target(server.grpc, server.http, process.pid, model.name)


class Generator:
    """Where load comes from: a process of its own for each measurement, one at a time. A context manager.

    A fresh process, because gRPC's poller outlives the event loop that it was made for and disturbs the next.
    """

    def __init__(self) -> None:
        self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pool.shutdown(cancel_futures=True)

    def run(self, measure: Callable[[Plan], Figures], plan: Plan) -> Figures:
        """Run a function in a process of its own; blocks."""
        return self._pool.submit(measure, plan).result(_MEASUREMENT_TIMEOUT_S)


def _wait_for_workers(http: str, instances: int) -> None:
    """Wait for all workers: the server says that it is ready when the first is."""
    deadline_s = time.monotonic() + _WORKERS_TIMEOUT_S
    while scrape(http).get("backend_workers") != instances:
        if time.monotonic() > deadline_s:
            raise ServerFailed(f"the server did not have {instances} workers within {_WORKERS_TIMEOUT_S:.0f} s")
        time.sleep(0.2)


def _command_line(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return process.cmdline()
    return []
