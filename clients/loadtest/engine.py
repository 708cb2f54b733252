"""Sends one leg's calls on the running event loop. Owns when calls start and what they are charged.

Its clock is the loop's: tests run it on a loop whose time is virtual.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Final

from lockstep.clients.client import classify_request, served_name
from lockstep.clients.errors import CallError
from lockstep.clients.loadtest.plan import FREE, WHOLE, Leg, LoadPlan, Share, arrival_offsets
from lockstep.clients.loadtest.tally import BEHIND, Tally, slice_s
from lockstep.clients.loadtest.texts import Texts
from lockstep.clients.transport import Transport
from lockstep.protos import sentiment_pb2 as wire

MOST_IN_FLIGHT: Final = 10_000
"""An open loop against a server that stands still must not eat the machine; what is over it is counted."""

MOST_BEHIND_S: Final = 5.0
"""An open loop whose generator is later than that ends there: it cannot send this rate, and might never end."""

FAILURE_PAUSE_S: Final = 0.05
"""How long a caller of the closed loop waits after a failure that names no pushback, lest it spin."""


@dataclass(frozen=True, slots=True)
class LegResult:
    """What one leg saw; `interrupted` where it was cancelled before its end."""

    tally: Tally
    interrupted: bool


async def run_leg(
    plan: LoadPlan,
    leg: Leg,
    transport: Transport,
    texts: Texts,
    *,
    share: Share = WHOLE,
    begin_s: float | None = None,
) -> LegResult:
    """Run one leg, or a share of it, and wait for its last answer.

    It begins at once, or at `begin_s` on the loop's clock, which generators that share a leg are all told.
    Cancelling it ends the leg early: what was measured so far is returned, what was in flight is not counted.
    """
    loop = asyncio.get_running_loop()
    if begin_s is None:
        begin_s = loop.time()
    calls = leg.calls
    if plan.mode == "closed" and calls is not None:
        calls = share.part(calls)  # in an open loop every generator counts the calls of all
    run = _Leg(
        plan=plan,
        transport=transport,
        requests=_requests(plan, leg, texts, share, random.Random(leg.seed)),
        warmup_requests=_requests(plan, leg, texts, share, random.Random(f"warm-up {leg.seed}")),
        share=share,
        begin_s=begin_s,
        start_s=begin_s + leg.warmup_s,
        end_s=begin_s + leg.warmup_s + leg.window_s,
        slice_s=slice_s(leg.window_s),
        calls_left=calls,
    )
    interrupted = False
    cpu_s, wall_s = time.process_time(), time.monotonic()
    try:
        await asyncio.sleep(max(0.0, begin_s - loop.time()))
        cpu_s, wall_s = time.process_time(), time.monotonic()
        if plan.mode == "open":
            await run.open(leg)
        else:
            await run.closed()
    except asyncio.CancelledError:
        interrupted = True
        run.end_s = min(run.end_s, loop.time())
        if (task := asyncio.current_task()) is not None:
            task.uncancel()
    tally = run.tally
    tally.generator_cpu_s = time.process_time() - cpu_s
    tally.generator_wall_s = time.monotonic() - wall_s
    tally.window_s = max(0.0, run.end_s - run.start_s)
    tally.completed_rows = sum(rows for at_s, rows in run.completions if run.start_s <= at_s < run.end_s)
    return LegResult(tally, interrupted)


def _requests(
    plan: LoadPlan, leg: Leg, texts: Texts, share: Share, rng: random.Random
) -> Iterator[wire.ClassifyRequest]:
    """Yield the calls of a share without end."""
    drawn = texts.draw(rng)
    name = served_name(plan.model, None if leg.backend == FREE else leg.backend)
    for number in count():
        batch = list(islice(drawn, plan.texts_per_call))
        if number % share.of == share.index:
            yield classify_request(batch, name=name, truncate=plan.truncate)


@dataclass(slots=True)
class _Leg:
    """A leg under way. Instants are the loop's, seconds."""

    plan: LoadPlan
    transport: Transport
    requests: Iterator[wire.ClassifyRequest]
    warmup_requests: Iterator[wire.ClassifyRequest]  # of an open loop, whose window begins with a call of its own
    share: Share
    begin_s: float
    start_s: float  # of the measured window
    end_s: float  # of the measured window; comes nearer when the calls run out
    slice_s: float  # of the timeline
    calls_left: int | None
    tally: Tally = field(default_factory=Tally)
    warmup: Tally = field(default_factory=Tally)  # read like the other, and then thrown away
    completions: list[tuple[float, int]] = field(default_factory=list)  # (instant, rows)

    async def open(self, leg: Leg) -> None:
        """Start each call when it is due, whatever became of those before."""
        now = asyncio.get_running_loop().time
        calls_per_s = self.plan.calls_per_s
        assert calls_per_s is not None
        in_flight = 0

        async def send(due_s: float, request: wire.ClassifyRequest) -> None:
            nonlocal in_flight
            try:
                await self._send(due_s, request)
            finally:
                in_flight -= 1

        async with asyncio.TaskGroup() as calls:
            for due_s, request in self._arrivals(leg, calls_per_s):
                if self.start_s <= due_s < now() - MOST_BEHIND_S:
                    self._fall_behind(due_s, now(), calls_per_s)
                    return
                if not self._admit(due_s):
                    return
                if request is None:
                    continue
                # Also when late: answers must be read between two sendings.
                await asyncio.sleep(max(0.0, due_s - now()))
                if in_flight < MOST_IN_FLIGHT:
                    in_flight += 1
                    calls.create_task(send(due_s, request))
                elif due_s >= self.start_s:
                    self.tally.refuse(len(request.texts))

    def _arrivals(self, leg: Leg, calls_per_s: float) -> Iterator[tuple[float, wire.ClassifyRequest | None]]:
        """Yield when each call of the leg is due, and the call, or `None` where it is another generator's.

        The warm-up has arrivals and texts of its own. So one that the generator cannot send ends when its time has
        passed, and every generator begins the window with the same call all the same.
        """
        now = asyncio.get_running_loop().time
        for part, requests, from_s, until_s in (
            ("warm-up", self.warmup_requests, self.begin_s, self.start_s),
            ("window", self.requests, self.start_s, self.end_s),
        ):
            # Not the generator of the texts: the same arrivals whatever the texts, and the reverse.
            rng = random.Random(f"arrivals of the {part} {leg.seed}")
            for number, offset_s in enumerate(arrival_offsets(self.plan.arrivals, calls_per_s, rng)):
                due_s = from_s + offset_s
                if due_s >= until_s or due_s < self.start_s <= now():
                    break
                yield due_s, next(requests) if number % self.share.of == self.share.index else None

    async def closed(self) -> None:
        """Keep `concurrency` callers busy until the window ends."""
        now = asyncio.get_running_loop().time

        async def caller() -> None:
            while True:
                due_s = now()
                request = next(self.requests)
                if not self._admit(due_s):
                    return
                error = await self._send(due_s, request)
                if error is not None:
                    await asyncio.sleep(max(FAILURE_PAUSE_S, error.pushback_s or 0.0))

        async with asyncio.TaskGroup() as callers:
            for _ in range(self.share.part(self.plan.concurrency)):
                callers.create_task(caller())

    def _admit(self, due_s: float) -> bool:
        """Whether a call due now belongs to the leg; the first that does not ends the window."""
        if due_s >= self.end_s:
            return False
        if due_s >= self.start_s and self.calls_left is not None:
            if self.calls_left == 0:
                self.end_s = due_s
                return False
            self.calls_left -= 1
        return True

    def _fall_behind(self, due_s: float, now_s: float, calls_per_s: float) -> None:
        """End the window now; what was due in it from `due_s` on is offered and not sent."""
        self.end_s = min(self.end_s, now_s)
        unsent = calls_per_s * (self.end_s - due_s)
        if self.calls_left is not None and unsent > self.calls_left:
            unsent = self.calls_left
            self.end_s = due_s + unsent / calls_per_s
        self.tally.refuse(self.share.part(round(unsent)) * self.plan.texts_per_call, BEHIND)

    async def _send(self, due_s: float, request: wire.ClassifyRequest) -> CallError | None:
        now = asyncio.get_running_loop().time
        rows = len(request.texts)
        tally = self.tally if due_s >= self.start_s else self.warmup
        slice_ = int((due_s - self.start_s) / self.slice_s)
        tally.offer(rows, lag_s=now() - due_s)
        try:
            response = await self.transport.classify(request, timeout_s=self.plan.timeout_s)
        except CallError as error:
            tally.fail(rows, error.code.name, slice_=slice_)
            return error
        answered_s = now()
        answered = tally.answer(response, latency_s=answered_s - due_s, slice_=slice_)
        self.completions.append((answered_s, answered))
        return None
