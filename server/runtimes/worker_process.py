"""The gateway's end of a worker: start it, send batches, learn of its death. Knows no model and no queue."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from lockstep import child_processes
from lockstep.child_processes import wait_through_cancellation
from lockstep.server.core.artifact import ArtifactSpec, Budget
from lockstep.server.core.errors import BackendUnavailable
from lockstep.server.runtimes.base import Ids, Lengths, Outputs
from lockstep.server.runtimes.memory_kills import MemoryKills, killed
from lockstep.server.runtimes.wire import DONE_TIMES, HEADER, Kind

_log = logging.getLogger("lockstep.worker")
_VERIFIERS: Final = ThreadPoolExecutor(2, thread_name_prefix="lockstep-verify")
"""Hashing releases the interpreter's lock; more at once would take cores from those that execute."""
_STDERR_TAIL_BYTES = 4096
_STOP_TIMEOUT_S = 5.0
_LAST_WORDS_S = 0.5
"""How long what a worker wrote last may take to arrive after its end."""
Bytes = bytes | memoryview


class BatchFailed(Exception):
    """The runtime refused a batch; the worker lives on."""


class ArtifactFiles(Protocol):
    """The files that a worker is about to load."""

    def verify(self) -> Hashable:
        """Check every file against what was published, in a thread; return their stamp from before that.

        Raises `BackendUnavailable`, which names the file that is not as it was published.
        """
        ...

    def stamp(self) -> Hashable:
        """Return what changes when a file is written to or replaced; raises as `verify` does."""
        ...


@dataclass(frozen=True, slots=True)
class Launch:
    """How to start a worker: an adapter (`module:class`), its artifact and budget, and the interpreter to run."""

    adapter: str
    artifact: ArtifactSpec
    budget: Budget
    python: str = sys.executable
    files: ArtifactFiles | None = None  # verified before every load; None: the caller has just made them
    named: Mapping[str, str] = field(default_factory=dict)  # model, version, backend in the log; {}: nothing is logged


@dataclass(frozen=True, slots=True)
class Executed:
    """An executed batch: its outputs, and the instants (monotonic ns) and CPU time (ns) of the execution."""

    outputs: Outputs  # float32[batch, labels]
    execute_start_ns: int
    execute_end_ns: int
    cpu_ns: int


Reply = tuple[Kind, int, int, int, bytes]  # kind, the three fields of the header, payload


class WorkerProcess:
    """A started worker that has loaded its artifact.

    Batches are answered in the order they were sent. When the process dies, every batch in flight
    raises `BackendUnavailable` and `exited` is set; a worker is never restarted, its owner starts another.
    """

    def __init__(self, launch: Launch, process: subprocess.Popen[bytes]) -> None:
        self.launch = launch
        self.pid = process.pid
        self.exited = asyncio.Event()
        self.ended = "the worker ended"  # how, once it has `exited`
        self.versions: dict[str, str] = {}
        self.load_s = 0.0
        self._process = process
        self._channel = _Channel(self._connection_lost)
        self._stderr = _Tail()
        self._batches = 0
        self._reaper: asyncio.Task[None] | None = None
        self._ready = self._ending = False
        self._memory_kills = MemoryKills.now()

    @classmethod
    async def start(cls, launch: Launch) -> WorkerProcess:
        """Start the process and load the artifact; raises `BackendUnavailable` with the reason where it cannot.

        Cancelling it kills the process.
        """
        try:
            worker = await cls._start(launch)
        except BackendUnavailable as error:
            _tell(logging.ERROR, launch, "a worker cannot start: %s", error)
            raise
        _tell(logging.INFO, launch, "a worker is ready, loaded in %.1f s", worker.load_s, pid=worker.pid)
        return worker

    @classmethod
    async def _start(cls, launch: Launch) -> WorkerProcess:
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            raise BackendUnavailable(f"cannot talk to a worker: {error.strerror}") from error
        ours.setblocking(False)
        try:
            with theirs:
                process = subprocess.Popen(  # noqa: ASYNC220 - fork and exec, about a millisecond
                    child_processes.command(
                        "lockstep.server.runtimes.worker:main",
                        str(theirs.fileno()),
                        str(os.getpid()),
                        python=launch.python,
                    ),
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    env=child_processes.environment(threads=launch.budget.threads, python=launch.python),
                    start_new_session=True,  # Ctrl-C in a terminal is the gateway's to answer
                )
        except OSError as error:
            ours.close()
            raise BackendUnavailable(f"cannot run {launch.python}: {error.strerror}") from error
        worker = cls(launch, process)
        try:
            await wait_through_cancellation(worker._connect(ours))
            await worker._load_verified()
        except BaseException:
            await worker.kill()
            raise
        return worker

    async def execute(self, ids: Ids, lengths: Lengths) -> Executed:
        """Execute ids int64[batch, length] with lengths int64[batch].

        Raises `BatchFailed` where the runtime refused the batch, `BackendUnavailable` where the worker died.
        """
        rows, length = ids.shape
        self._batches = batch = (self._batches + 1) & 0xFFFFFFFF
        kind, answered, rows, labels, payload = await self._channel.ask(
            Kind.EXECUTE, (batch, rows, length), _bytes(ids), _bytes(lengths)
        )
        if answered != batch:
            raise AssertionError(f"worker {self.pid} answered batch {answered} where {batch} was next")
        if kind == Kind.FAILED:
            raise BatchFailed(json.loads(payload)["error"])
        start_ns, end_ns, cpu_ns = DONE_TIMES.unpack_from(payload)
        outputs: Outputs = np.frombuffer(payload, dtype=np.float32, offset=DONE_TIMES.size)
        return Executed(outputs.reshape(rows, labels), start_ns, end_ns, cpu_ns)

    async def stop(self) -> None:
        """Close the connection, which ends the worker after its current batch; kill it if that takes too long.

        Cancelling it kills the process.
        """
        self._ending = True
        self._channel.close()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STOP_TIMEOUT_S):
                    await self.exited.wait()
        finally:
            await self.kill()

    async def kill(self) -> None:
        """End the process now and reap it; where that is cancelled, too."""
        self._ending = True
        if not self.exited.is_set():
            self._process.kill()
            self._channel.close()
        await wait_through_cancellation(self.exited.wait())

    async def _connect(self, ours: socket.socket) -> None:
        """Listen to the process; where that cannot be, end it and raise `BackendUnavailable`."""
        loop = asyncio.get_running_loop()
        try:
            await loop.connect_read_pipe(lambda: self._stderr, self._process.stderr)
            await loop.create_connection(lambda: self._channel, sock=ours)
        except OSError as error:
            self._process.kill()
            ours.close()
            await asyncio.to_thread(self._process.wait)
            self.exited.set()
            raise BackendUnavailable(f"cannot listen to the worker: {error.strerror}") from error

    async def _load_verified(self) -> None:
        """Load what was published: checked while the interpreter starts, and not written to until it is loaded."""
        files, loop = self.launch.files, asyncio.get_running_loop()
        stamp = None if files is None else await loop.run_in_executor(_VERIFIERS, files.verify)
        await self._load()
        self._ready = True
        if files is not None and await loop.run_in_executor(_VERIFIERS, files.stamp) != stamp:
            raise BackendUnavailable(f"a file of {self.launch.artifact.path} was written to while it was loaded")

    async def _load(self) -> None:
        request = {
            "adapter": self.launch.adapter,
            "artifact": dataclasses.asdict(self.launch.artifact),
            "budget": dataclasses.asdict(self.launch.budget),
        }
        kind, _, _, _, payload = await self._channel.ask(Kind.LOAD, (0, 0, 0), json.dumps(request).encode())
        report = json.loads(payload)
        if kind != Kind.LOADED:
            raise BackendUnavailable(report["error"])
        self.versions = report["versions"]
        self.load_s = report["seconds"]

    def _connection_lost(self) -> None:
        self._reaper = asyncio.get_running_loop().create_task(self._reap())

    async def _reap(self) -> None:
        """Wait for the process to end, then tell everyone who waits on it."""
        code = await asyncio.to_thread(self._process.wait)
        with contextlib.suppress(TimeoutError):  # a process of its own may hold its standard error open, for ever
            async with asyncio.timeout(_LAST_WORDS_S):
                await self._stderr.closed.wait()
        self._stderr.close()
        cause = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        if code == -signal.SIGKILL and not self._ending:
            cause += f"; {killed(self._memory_kills, MemoryKills.now())}"
        last_words = self._stderr.text.strip().rpartition("\n")[2]
        if self._ready and not self._ending:
            _tell(logging.WARNING, self.launch, "a worker ended: %s", cause, pid=self.pid, last_words=last_words)
        self.ended = f"the worker ended ({cause}){': ' if last_words else ''}{last_words}"
        self._channel.fail(BackendUnavailable(self.ended))
        self.exited.set()


class _Channel(asyncio.Protocol):
    """Frames out, frames in; the n-th answer belongs to the n-th question."""

    def __init__(self, lost: Callable[[], None]) -> None:
        self._lost = lost
        self._pending: deque[asyncio.Future[Reply]] = deque()
        self._received = bytearray()
        self._failure: BackendUnavailable | None = None
        self._transport: asyncio.Transport

    async def ask(self, kind: Kind, fields: tuple[int, int, int], *payload: Bytes) -> Reply:
        """Send a frame and wait for its answer; raises the failure of the channel where there is one."""
        if self._failure is not None:
            raise self._failure
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._pending.append(reply)
        header = HEADER.pack(kind, *fields, sum(len(part) for part in payload))
        self._transport.writelines([header, *payload])
        return await reply

    def close(self) -> None:
        """Close the connection; the process at the other end ends when it notices."""
        self._transport.close()

    def fail(self, failure: BackendUnavailable) -> None:
        """Raise `failure` to everyone who waits and to everyone who asks from now on."""
        self._failure = failure
        while self._pending:
            reply = self._pending.popleft()
            if not reply.done():
                reply.set_exception(failure)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not a subclass

    def data_received(self, data: bytes) -> None:
        self._received += data
        while len(self._received) >= HEADER.size:
            kind, first, second, third, payload_bytes = HEADER.unpack_from(self._received)
            end = HEADER.size + payload_bytes
            if len(self._received) < end:
                return
            payload = bytes(memoryview(self._received)[HEADER.size : end])
            del self._received[:end]
            reply = self._pending.popleft()
            if not reply.done():
                reply.set_result((Kind(kind), first, second, third, payload))

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost()


class _Tail(asyncio.Protocol):
    """The last words of a process: the end of its standard error, bounded."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()
        self._last = b""
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def close(self) -> None:
        """Listen no more."""
        if self._transport is not None:
            self._transport.close()

    @property
    def text(self) -> str:
        """What was written last."""
        return self._last.decode(errors="replace")

    def data_received(self, data: bytes) -> None:
        self._last = (self._last + data)[-_STDERR_TAIL_BYTES:]

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()


def _tell(level: int, launch: Launch, message: str, *arguments: object, **fields: object) -> None:
    if launch.named:
        _log.log(level, message, *arguments, extra={"fields": {**launch.named, **fields}})


def _bytes(array: NDArray[np.int64]) -> memoryview:
    return np.ascontiguousarray(array, dtype=np.int64).data.cast("B")
