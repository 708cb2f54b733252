"""Who waits is woken, the last to come first, and none twice."""

import asyncio

from lockstep.server.scheduling.wakeup import Wakeup


async def test_everyone_is_woken_and_the_last_to_wait_goes_first() -> None:
    wakeup, order = Wakeup(), []

    async def waiter(name: str) -> None:
        await wakeup.wait()
        order.append(name)

    waiting = [asyncio.create_task(waiter(name)) for name in ("first", "second", "third")]
    await asyncio.sleep(0)
    wakeup.notify()
    wakeup.notify()
    await asyncio.gather(*waiting)
    assert order == ["third", "second", "first"]


async def test_one_that_gave_up_is_passed_over() -> None:
    wakeup = Wakeup()
    gone, there = asyncio.create_task(wakeup.wait()), asyncio.create_task(wakeup.wait())
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    wakeup.notify()
    await there
    assert gone.cancelled()
