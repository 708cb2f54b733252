"""A server under test: `lockstep serve` in a child process, and the generator's process that drives it."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

import psutil

from benchmarks.generator import Target
from benchmarks.models import BenchModel
from lockstep.local_server import local_server

_MEASUREMENT_TIMEOUT_S: Final = 600.0

Plan = TypeVar("Plan")
Figures = TypeVar("Figures")


@contextlib.contextmanager
def served(model: BenchModel, folder: Path, *flags: str) -> Iterator[Target]:
    """Serve a model on free loopback ports with the flags given; its log and what it measured are kept in `folder`.

    Raises `lockstep.local_server.ServerFailed`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{model.name}{''.join(flags).replace('--', '-')}.log"
    state = folder / "state"
    with local_server(model.repository, log, "--state", str(state), *flags) as server:
        children = psutil.Process().children()
        (process,) = (child for child in children if server.grpc in _command_line(child))
        yield Target(server.grpc, server.http, process.pid, model.name)


class Generator:
    """The process that load comes from. A context manager; one measurement at a time."""

    def __init__(self) -> None:
        self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pool.shutdown(cancel_futures=True)

    def run(self, measure: Callable[[Plan], Figures], plan: Plan) -> Figures:
        """Run one of `benchmarks.generator`'s functions in the generator's process; blocks."""
        return self._pool.submit(measure, plan).result(_MEASUREMENT_TIMEOUT_S)


def _command_line(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.Error):
        return process.cmdline()
    return []
