"""Real processes: what is at stake is whether one is left behind."""

import asyncio
import os
import signal

import pytest

from lockstep.clients.credentials import Credentials
from lockstep.clients.loadtest.children import Children
from lockstep.clients.loadtest.fleet import Fleet
from lockstep.clients.loadtest.plan import LoadPlan, legs
from tests.processes import children
from tests.wire_double import ServerDouble

OBEDIENT = "tests.child_doubles:obedient"
DEAF = "tests.child_doubles:deaf"


async def started(function: str, owner: Children) -> asyncio.subprocess.Process:
    process = await owner.start(function)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"here\n"
    return process


async def turns_of_the_loop() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_processes_end_when_their_stdin_does() -> None:
    before, owner = children(), Children()
    process = await started(OBEDIENT, owner)
    await owner.end(patience_s=600)
    assert process.returncode == 0
    assert children() == before


async def test_what_does_not_end_by_itself_is_killed() -> None:
    owner = Children()
    process = await started(DEAF, owner)
    await owner.end(patience_s=0.0)
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("cancellations", [1, 2, 3])
async def test_ending_that_is_cancelled_leaves_no_process(cancellations: int) -> None:
    before, owner = children(), Children()
    for _ in range(3):
        await started(DEAF, owner)
    ending = asyncio.create_task(owner.end(patience_s=600))
    for _ in range(cancellations):
        await turns_of_the_loop()
        ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    assert children() == before


async def test_a_process_whose_start_was_cancelled_is_known_and_ended() -> None:
    before, owner = children(), Children()
    starting = asyncio.create_task(owner.start(DEAF))
    for _ in range(2):
        await asyncio.sleep(0)
        starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert len(children() - before) == 1
    await owner.end(patience_s=0.0)
    assert children() == before


async def test_a_fleet_that_is_cancelled_again_and_again_leaves_no_generator() -> None:
    """Its generators stand still: they neither answer that they stopped, nor end."""
    plan = LoadPlan(model="tiny", concurrency=2, seconds=60.0, rounds=1, warmup_s=0.0, processes=2)
    before = children()

    async def send(address: str) -> None:
        async with Fleet(plan, [address] * 2, Credentials()) as fleet:
            for generator in children() - before:
                os.kill(generator, signal.SIGSTOP)
            sending.set()
            await fleet.run(plan, legs(plan, ["onnxruntime"])[0])

    async with ServerDouble() as server:
        sending = asyncio.Event()
        task = asyncio.create_task(send(server.address))
        await sending.wait()
        for _ in range(4):
            await turns_of_the_loop()
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert children() == before
