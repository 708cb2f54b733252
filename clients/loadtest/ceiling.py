"""The generator's own ceiling: how many calls a second it can send, measured against a server that does nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Final

from lockstep.clients.client import TRANSPORTS
from lockstep.clients.credentials import Credentials
from lockstep.clients.loadtest.children import Children
from lockstep.clients.loadtest.clock import run_with_fine_timers
from lockstep.clients.loadtest.engine import LegResult
from lockstep.clients.loadtest.fleet import Fleet, HereSender
from lockstep.clients.loadtest.plan import Leg, LoadPlan, Wire, generators
from lockstep.clients.loadtest.texts import texts_of
from lockstep.cores import usable_cores

SECONDS: Final = 1.0
WARMUP_S: Final = 0.3
CALLERS: Final = 64
"""In each generator process: enough to keep it busy, few enough to be quick to answer."""
ECHO: Final = "echo"
NEAR: Final = 0.8
"""Beyond this share of its ceiling, a generator is part of what it measures."""


class CeilingUnknown(Exception):
    """The ceiling could not be measured; says why."""


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What the generator reached against a server that answers at once, on the machine that the load came from.

    That server, and whoever else was there, took its part of the cores: what the generator itself can do is told by
    the CPU time of a call.
    """

    calls_per_s: float  # as it was measured
    texts_per_call: int
    wire: Wire
    processes: int
    cpu_us_per_call: float  # of the generator
    cpu_share: float  # of a core that each generator process had; below 1: others wanted the cores too

    @property
    def most_calls_per_s(self) -> float:
        """What it can send with a core to each process: beyond, it cannot be the server that is measured."""
        return self.processes * 1e6 / self.cpu_us_per_call

    @property
    def most_rows_per_s(self) -> float:
        """The same in texts."""
        return self.most_calls_per_s * self.texts_per_call


def measure_ceiling(plan: LoadPlan, *, seconds: float = SECONDS) -> Ceiling:
    """Measure what the plan's generators can send; blocks for a few seconds. Raises `CeilingUnknown`."""
    return run_with_fine_timers(ceiling(plan, seconds=seconds))


async def ceiling(plan: LoadPlan, *, seconds: float = SECONDS) -> Ceiling:
    """`measure_ceiling` on the running event loop."""
    processes = generators(plan, usable_cores())
    saturating = replace(
        plan,
        model=ECHO,
        mode="closed",
        rate=None,
        concurrency=CALLERS * processes,
        rows=None,
        rounds=1,
        processes=processes,
    )
    leg = Leg(ECHO, 0, WARMUP_S, seconds, None, plan.seed)
    async with contextlib.AsyncExitStack() as stack:
        addresses = [await stack.enter_async_context(_echo(plan.texts_per_call)) for _ in range(processes)]
        result = await _saturate(saturating, leg, addresses)
    tally = result.tally
    if result.interrupted:
        raise asyncio.CancelledError
    if tally.errors or not tally.calls:
        raise CeilingUnknown(f"the generator's ceiling is unknown: {dict(tally.errors) or 'nothing was answered'}")
    calls_per_s = tally.completed_rows / plan.texts_per_call / tally.window_s
    cpu_share = tally.generator_cpu_s / tally.generator_wall_s
    return Ceiling(
        calls_per_s=calls_per_s,
        texts_per_call=plan.texts_per_call,
        wire=plan.wire,
        processes=processes,
        cpu_us_per_call=cpu_share * processes / calls_per_s * 1e6,
        cpu_share=cpu_share,
    )


async def _saturate(plan: LoadPlan, leg: Leg, addresses: list[str]) -> LegResult:
    if len(addresses) > 1:
        async with Fleet(plan, addresses, Credentials()) as fleet:
            return await fleet.run(plan, leg)
    transport = TRANSPORTS[plan.wire](addresses[0])
    try:
        return await HereSender(transport, texts_of(plan)).run(plan, leg)
    finally:
        await transport.close()


@contextlib.asynccontextmanager
async def _echo(texts_per_call: int) -> AsyncIterator[str]:
    """Run an echo server in a process of its own; yields its address."""
    children = Children()
    try:
        process = await children.start("lockstep.clients.loadtest.echo:main", str(texts_per_call))
        assert process.stdout is not None
        port = (await process.stdout.readline()).strip()
        if not port:
            raise CeilingUnknown(f"the generator's ceiling is unknown: no echo server (status {await process.wait()})")
        yield f"127.0.0.1:{int(port)}"
    finally:
        await children.end()
