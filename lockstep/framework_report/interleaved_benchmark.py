"""Several ways to run the same model, timed in turns: the artifacts in their workers, the source in each of its modes.

Every round visits all of them, every second one backwards, so that a drift of the machine hits all alike. Owns the
processes for the length of a block, the turns and the medians; knows no framework.
"""

from __future__ import annotations

import asyncio
import json
import socket
import statistics
import subprocess
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from lockstep import child_processes
from lockstep.exporters.conversion import SourceFiles
from lockstep.server.core.artifact import Budget
from lockstep.server.repository.catalog import ArtifactFiles, PublishedModel
from lockstep.server.repository.manifest import Artifact, backend_name
from lockstep.server.runtimes.registry import ADAPTERS
from lockstep.server.runtimes.worker_process import Launch, WorkerProcess

Ids = NDArray[np.int64]  # int64[batch, length]
Lengths = NDArray[np.int64]  # int64[batch]

WARM_RUNS: Final = 2
LEAST_ROUNDS: Final = 3
_READ_LIMIT_BYTES: Final = 1 << 24
_ONE_THREAD: Final = {
    "TF_NUM_INTEROP_THREADS": "1",
}
QUIET: Final = {
    "KERAS_BACKEND": "tensorflow",
    "CUDA_VISIBLE_DEVICES": "-1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "OMP_WAIT_POLICY": "PASSIVE",
    "HF_HUB_OFFLINE": "1",
}


class RunFailed(Exception):
    """A process of a contest cannot do what it was asked; the message is its own."""


@dataclass(frozen=True, slots=True)
class Run:
    """One batch, executed."""

    wall_ms: float  # of the execution itself
    cpu_ms: float  # of its process
    trip_ms: float  # from asking to having the answer, the hop to the process included
    outputs: NDArray[np.float32]  # float32[batch, labels]


class Contestant(Protocol):
    """A way to run the model."""

    async def run(self, ids: Ids, lengths: Lengths) -> Run:
        """Execute one batch; raises `RunFailed`, `BatchFailed` or `BackendUnavailable`."""
        ...


@dataclass(frozen=True, slots=True)
class InWorker:
    """An artifact in the worker that serves it."""

    worker: WorkerProcess

    async def run(self, ids: Ids, lengths: Lengths) -> Run:
        """Execute one batch."""
        began = asyncio.get_running_loop().time()
        executed = await self.worker.execute(ids, lengths)
        trip_ms = (asyncio.get_running_loop().time() - began) * 1e3
        wall_ms = (executed.execute_end_ns - executed.execute_start_ns) / 1e6
        return Run(wall_ms, executed.cpu_ns / 1e6, trip_ms, executed.outputs)


@dataclass(frozen=True, slots=True)
class InSource:
    """A source in one of its modes."""

    mode: str
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def run(self, ids: Ids, lengths: Lengths) -> Run:
        """Execute one batch."""
        began = asyncio.get_running_loop().time()
        request = {"mode": self.mode, "ids": ids.tolist(), "lengths": lengths.tolist()}
        self.writer.write(json.dumps(request).encode() + b"\n")
        answer = await _read(self.reader)
        trip_ms = (asyncio.get_running_loop().time() - began) * 1e3
        outputs = np.array(answer["outputs"], dtype=np.float32)
        return Run(answer["wall_ns"] / 1e6, answer["cpu_ns"] / 1e6, trip_ms, outputs)


@asynccontextmanager
async def workers(model: PublishedModel, artifacts: Sequence[Artifact]) -> AsyncIterator[dict[str, Contestant]]:
    """Start a worker of one thread for each artifact; yields them by backend. Raises `BackendUnavailable`."""
    async with AsyncExitStack() as stack:
        found: dict[str, Contestant] = {}
        for artifact in artifacts:
            files = ArtifactFiles(model, artifact)
            launch = Launch(ADAPTERS[artifact.runtime], model.spec(artifact), Budget(threads=1), files=files)
            worker = await WorkerProcess.start(launch)
            stack.push_async_callback(worker.stop)
            found[backend_name(artifact)] = InWorker(worker)
        yield found


@asynccontextmanager
async def source(files: SourceFiles) -> AsyncIterator[dict[str, Contestant]]:
    """Open a source in a process of its own; yields its modes. Raises `RunFailed`."""
    ours, theirs = socket.socketpair()
    with tempfile.TemporaryFile() as words:  # what the framework prints, and an interpreter that dies
        with theirs:
            process = subprocess.Popen(  # noqa: ASYNC220 - fork and exec, about a millisecond
                child_processes.command("lockstep.framework_report.source_process:main", str(theirs.fileno())),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.PIPE,
                stdout=words,
                stderr=words,
                env=one_thread_environment(),
                start_new_session=True,  # Ctrl-C is ours to answer
            )
        try:
            reader, writer = await asyncio.open_connection(sock=ours, limit=_READ_LIMIT_BYTES)
            assert process.stdin is not None
            process.stdin.write(files.model_dump_json().encode() + b"\n")
            process.stdin.close()
            try:
                opened = await _read(reader)
                yield {mode: InSource(mode, reader, writer) for mode in opened["modes"]}
            except EOFError:
                words.seek(0)
                last = words.read().decode(errors="replace").strip().rpartition("\n")[2]
                raise RunFailed(f"the process that holds {files.name} ended: {last or 'without a word'}") from None
            finally:
                writer.close()
        finally:
            process.kill()
            process.wait()


def one_thread_environment(**more: str) -> dict[str, str]:
    """Return the environment of a process that measures a framework: on one core, quiet, on its own."""
    return child_processes.environment({**_ONE_THREAD, **QUIET, **more}, threads=1)


async def contest(
    contestants: Mapping[str, Contestant], shapes: Mapping[str, Ids], *, rounds: int, seconds: float
) -> dict[str, dict[str, Any]]:
    """Time every contestant at every shape; return name -> shape -> figures.

    Batches are full: no padding. Rounds end early, after a few, once a shape has taken `seconds`: a slow contestant
    must not take the evening. `wall_ms`, `cpu_ms` and `trip_ms` are medians, `wall_low_ms` and `wall_high_ms` the
    quartiles, `difference` the largest to the answer of the first contestant.
    """
    found: dict[str, dict[str, Any]] = {name: {} for name in contestants}
    loop = asyncio.get_running_loop()
    for shape, ids in shapes.items():
        lengths = np.full(ids.shape[0], ids.shape[1], dtype=np.int64)
        runs: dict[str, list[Run]] = {name: [] for name in contestants}
        for contestant in contestants.values():
            for _ in range(WARM_RUNS):
                await contestant.run(ids, lengths)
        ends = loop.time() + seconds
        for number in range(rounds):
            if number >= LEAST_ROUNDS and loop.time() > ends:
                break
            names = list(contestants)
            for name in names if number % 2 == 0 else reversed(names):
                runs[name].append(await contestants[name].run(ids, lengths))
        reference = next(iter(runs.values()))[0].outputs
        for name, timed in runs.items():
            found[name][shape] = _figures(timed, reference)
    return found


def full_batches(stream: NDArray[np.int64], shapes: Sequence[tuple[int, int]], max_tokens: int) -> dict[str, Ids]:
    """Return batches of real tokens, int64[rows, length], by `b<rows>_t<length>`, those that the model can take."""
    return {f"b{rows}_t{length}": np.resize(stream, (rows, length)) for rows, length in shapes if length <= max_tokens}


def _figures(runs: Sequence[Run], reference: NDArray[np.float32]) -> dict[str, Any]:
    walls = [run.wall_ms for run in runs]
    low, _, high = statistics.quantiles(walls, n=4, method="inclusive")
    return {
        "wall_ms": statistics.median(walls),
        "wall_low_ms": low,
        "wall_high_ms": high,
        "cpu_ms": statistics.median(run.cpu_ms for run in runs),
        "trip_ms": statistics.median(run.trip_ms for run in runs),
        "rounds": len(runs),
        "difference": float(max(np.abs(run.outputs - reference).max() for run in runs)),
    }


async def _read(reader: asyncio.StreamReader) -> dict[str, Any]:
    line = await reader.readline()
    if not line:
        raise EOFError
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        raise RunFailed(answer["error"])
    return answer
