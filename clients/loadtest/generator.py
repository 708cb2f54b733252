"""One generator process. Sends its share of each leg and tells what it saw.

Speaks lines of JSON with the process that started it: an `Assignment` first, then an order a leg on stdin, and an
answer each on stdout. A line that is no order while a leg runs ends the leg early; the end of stdin ends the process,
so that none outlives its load test.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lockstep.clients.client import TRANSPORTS
from lockstep.clients.credentials import Credentials
from lockstep.clients.loadtest.children import MOST_LINE_BYTES
from lockstep.clients.loadtest.clock import run_with_fine_timers
from lockstep.clients.loadtest.document import from_document, to_document
from lockstep.clients.loadtest.engine import run_leg
from lockstep.clients.loadtest.plan import Leg, LoadPlan, Share
from lockstep.clients.loadtest.texts import texts_of

STOP = b"{}\n"


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a generator is told once. The token is in it, which is why it travels by a pipe and not by arguments."""

    address: str
    share: Share
    plan: LoadPlan  # whose texts are to be made; each order has its own
    credentials: Credentials

    def encode(self) -> bytes:
        """Return it as a line."""
        secrets = {
            name: str(value) if isinstance(value, Path) else value for name, value in asdict(self.credentials).items()
        }
        document = {"address": self.address, "share": asdict(self.share), "plan": to_document(self.plan)}
        return json.dumps({**document, "credentials": secrets}).encode() + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> Assignment:
        """Read a line."""
        document = json.loads(line)
        return cls(
            document["address"],
            Share(**document["share"]),
            from_document(LoadPlan, document["plan"]),
            Credentials(**document["credentials"]),
        )


@dataclass(frozen=True, slots=True)
class Order:
    """A leg to run, from an instant of the clock that all processes of a machine share."""

    plan: LoadPlan
    leg: Leg
    begin_s: float

    def encode(self) -> bytes:
        """Return it as a line."""
        return json.dumps(to_document(self)).encode() + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> Order:
        """Read a line."""
        return from_document(cls, json.loads(line))


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    orders = asyncio.StreamReader(limit=MOST_LINE_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    assigned = Assignment.decode(await orders.readline())
    texts = texts_of(assigned.plan)
    transport = TRANSPORTS[assigned.plan.wire](assigned.address, assigned.credentials)
    gc.freeze()  # what is there now stays: collections need not walk it in the middle of a leg
    _say({"ready": True})
    try:
        reading = asyncio.create_task(orders.readline())
        while line := await reading:
            reading = asyncio.create_task(orders.readline())
            if line == STOP:
                continue  # the leg that was to be ended had just ended
            order = Order.decode(line)
            running = asyncio.create_task(
                run_leg(order.plan, order.leg, transport, texts, share=assigned.share, begin_s=order.begin_s)
            )
            await asyncio.wait({running, reading}, return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                running.cancel()
                if await reading != STOP:
                    return  # who ordered it is gone
                reading = asyncio.create_task(orders.readline())
            result = await running
            _say({"tally": result.tally.encode(), "interrupted": result.interrupted})
    finally:
        await transport.close()


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Run until stdin ends."""
    run_with_fine_timers(_serve())
