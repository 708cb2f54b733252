"""A backend's life: stopped, starting, ready, down. Starts workers; decides neither when nor what they execute."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from server.core.errors import BackendUnavailable
from server.runtimes.worker_process import Launch, WorkerProcess

_BACKOFF_FIRST_S = 0.2
_BACKOFF_MOST_S = 30.0


class State(StrEnum):
    """Where a backend is in its life."""

    STOPPED = "stopped"  # not started yet: it starts when a row needs it
    STARTING = "starting"
    READY = "ready"
    DOWN = "down"  # its worker died or could not start; it is started again after a pause


@dataclass(frozen=True, slots=True)
class BackendSpec:
    """What a backend is: a runtime executing one artifact on a device."""

    name: str
    launch: Launch
    takes_free_rows: bool  # variants (int8, ...) serve only rows that name them
    cpu_ms: float  # measured cost of a batch, for preference: the lowest is preferred
    probabilities: Callable[[NDArray[np.float32]], NDArray[np.float32]]  # outputs[batch, labels] -> the same shape
    instances: int = 1


class Backend:
    """One backend of a model: its workers' states, and the reason where it is not ready."""

    def __init__(self, index: int, spec: BackendSpec, changed: Callable[[], None]) -> None:
        self.index = index
        self.spec = spec
        self.reason = ""
        self.start_failed = False  # the last start failed: rows that need this backend cannot wait for it
        self.restarts = 0
        self.workers: set[WorkerProcess] = set()
        self._changed = changed
        self._starting = 0
        self._down = False
        self._failures = 0

    @property
    def name(self) -> str:
        """Its name among the model's backends."""
        return self.spec.name

    @property
    def state(self) -> State:
        """Its state: ready as soon as one of its workers is."""
        if self.workers:
            return State.READY
        if self._down:
            return State.DOWN
        return State.STARTING if self._starting else State.STOPPED

    @property
    def ready(self) -> bool:
        """Whether a worker can take a batch."""
        return bool(self.workers)

    @property
    def down(self) -> bool:
        """Whether it failed since it was last ready."""
        return self._down and not self.workers

    async def start_worker(self) -> WorkerProcess:
        """Start one worker and count it as ready; raises `BackendUnavailable` with the reason."""
        self._starting += 1
        self._changed()
        try:
            worker = await WorkerProcess.start(self.spec.launch)
        except BackendUnavailable as error:
            self._failed(f"cannot start: {error}")
            self.start_failed = True
            raise BackendUnavailable(f"backend {self.name} cannot start: {error}") from error
        finally:
            self._starting -= 1
        if self._failures:
            self.restarts += 1
        self.workers.add(worker)
        self._down = self.start_failed = False
        self.reason = ""
        self._changed()
        return worker

    def worker_succeeded(self) -> None:
        """Forget earlier failures: the worker has executed a batch."""
        self._failures = 0

    def worker_died(self, worker: WorkerProcess, reason: str) -> None:
        """Count a worker as gone."""
        self.workers.discard(worker)
        self._failed(reason)

    def worker_stopped(self, worker: WorkerProcess) -> None:
        """Count a worker as stopped on purpose."""
        self.workers.discard(worker)
        self._changed()

    def backoff_s(self) -> float:
        """Return the pause before the next start, s: doubling from 0.2 to 30, with a tenth of jitter."""
        pause: float = min(_BACKOFF_MOST_S, _BACKOFF_FIRST_S * 2.0 ** max(0, self._failures - 1))
        return pause * random.uniform(0.9, 1.1)

    def _failed(self, reason: str) -> None:
        self._down = True
        self._failures += 1
        self.reason = reason
        self._changed()
