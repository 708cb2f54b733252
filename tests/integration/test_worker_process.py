"""The gateway's end of a worker: whatever interrupts it, no process is left behind, running or unreaped."""

import asyncio
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from lockstep.server.core.artifact import ArtifactSpec, Budget, TensorSpec
from lockstep.server.core.errors import BackendUnavailable
from lockstep.server.runtimes.worker_process import Launch, WorkerProcess
from tests import doubles
from tests.processes import children


@pytest.fixture
def launch(tmp_path: Path) -> Launch:
    doubles.publish(tmp_path, "model")
    path = tmp_path / "model" / "1" / "onnx" / "model"
    ids, lengths, logits = TensorSpec("ids", "int64"), TensorSpec("lengths", "int64"), TensorSpec("logits", "float32")
    artifact = ArtifactSpec(str(path), ids, attention_mask=None, lengths=lengths, logits=logits, labels=2)
    return Launch("tests.doubles:BurningAdapter", artifact, Budget(threads=1))


async def interrupt(task: "asyncio.Task[object]", turns: int) -> None:
    """Cancel a task after so many turns of the event loop, and twice: whoever cancels may be cancelled himself."""
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("turns", range(8))
async def test_a_start_that_is_cancelled_leaves_no_process(launch: Launch, turns: int) -> None:
    before = children()
    starting = asyncio.ensure_future(WorkerProcess.start(launch))
    await interrupt(starting, turns)
    assert children() == before


@pytest.mark.parametrize("turns", [1, 2, 3])
async def test_a_stop_that_is_cancelled_kills_what_it_waited_for(launch: Launch, turns: int) -> None:
    before = children()
    worker = await WorkerProcess.start(launch)
    ids = np.ones((1000, 64), dtype=np.int64)  # 13 s
    executing = asyncio.ensure_future(worker.execute(ids, np.full(1000, 64)))
    await asyncio.sleep(0)
    await interrupt(asyncio.ensure_future(worker.stop()), turns)
    assert children() == before
    with pytest.raises(BackendUnavailable, match="SIGKILL"):
        await executing
    await worker.stop()


@pytest.mark.timeout(30)  # the grandchild would hold things up for five minutes
async def test_a_worker_whose_own_child_holds_its_standard_error_open_is_ended_all_the_same(launch: Launch) -> None:
    worker = await WorkerProcess.start(replace(launch, adapter="tests.worker_with_child:AdapterWithChild"))
    (grandchild,) = psutil.Process(worker.pid).children()
    try:
        await worker.kill()
        assert worker.exited.is_set()
        assert grandchild.is_running()
    finally:
        grandchild.kill()


async def test_a_process_that_cannot_be_listened_to_is_ended(launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_space(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    before = children()
    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", no_space)
    with pytest.raises(BackendUnavailable, match="cannot listen to the worker: No space left"):
        await WorkerProcess.start(launch)
    assert children() == before


async def test_a_process_that_cannot_be_talked_to_is_not_started(
    launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_many() -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(socket, "socketpair", too_many)
    with pytest.raises(BackendUnavailable, match="cannot talk to a worker: Too many open files"):
        await WorkerProcess.start(launch)
