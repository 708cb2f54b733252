"""Who sends a leg: this process, or several generator processes together. Owns their lives; reads no plan."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any, Final, Protocol, Self

from lockstep.clients.credentials import Credentials
from lockstep.clients.loadtest.children import STOP_S, Children
from lockstep.clients.loadtest.engine import LegResult, run_leg
from lockstep.clients.loadtest.generator import STOP, Assignment, Order
from lockstep.clients.loadtest.plan import Leg, LoadPlan, Share
from lockstep.clients.loadtest.tally import Tally
from lockstep.clients.loadtest.texts import Texts
from lockstep.clients.transport import Transport

LEAD_S: Final = 0.1
"""From an order to its leg's beginning: every generator must have read it by then."""


class GeneratorLost(Exception):
    """A generator process ended before its time; holds its last words."""


class Sender(Protocol):
    """Sends legs, one at a time."""

    async def run(self, plan: LoadPlan, leg: Leg) -> LegResult:
        """Send a leg and wait for its last answer; cancelling it ends the leg early, and keeps what was measured."""
        ...


@dataclass(frozen=True, slots=True)
class HereSender:
    """Sends from this process's event loop."""

    transport: Transport
    texts: Texts

    async def run(self, plan: LoadPlan, leg: Leg) -> LegResult:
        """See `Sender`."""
        return await run_leg(plan, leg, self.transport, self.texts)


class Fleet:
    """Sends from processes of its own; they end with the block, or with this process.

    Each takes every n-th call of a leg and they begin at one instant, so that together they send what one would.
    """

    def __init__(self, plan: LoadPlan, addresses: Sequence[str], credentials: Credentials) -> None:
        """Plan one generator an address; they start when the block is entered."""
        self._assignments = [
            Assignment(address, Share(index, len(addresses)), plan, credentials)
            for index, address in enumerate(addresses)
        ]
        self._children = Children()
        self._generators: list[_Generator] = []
        self._words = contextlib.ExitStack()

    async def __aenter__(self) -> Self:
        try:
            for assignment in self._assignments:
                words = self._words.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  it is closed by `_end`
                process = await self._children.start("lockstep.clients.loadtest.generator:main", words=words)
                generator = _Generator(process, words)
                generator.tell(assignment.encode())
                self._generators.append(generator)
            await asyncio.gather(*(generator.answer() for generator in self._generators))
        except BaseException:
            await self._end(patience_s=0.0)
            raise
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        await self._end(patience_s=STOP_S if kind is None else 0.0)

    async def _end(self, *, patience_s: float) -> None:
        with self._words:
            await self._children.end(patience_s=patience_s)

    async def run(self, plan: LoadPlan, leg: Leg) -> LegResult:
        """See `Sender`; raises `GeneratorLost`."""
        line = Order(plan, leg, asyncio.get_running_loop().time() + LEAD_S).encode()
        for generator in self._generators:
            generator.tell(line)
        answers = asyncio.gather(*(generator.answer() for generator in self._generators))
        try:
            found = await asyncio.shield(answers)
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is not None:
                task.uncancel()
            for generator in self._generators:
                generator.tell(STOP)
            found = await answers
        tally = Tally()
        for answer in found:
            tally.join(Tally.decode(answer["tally"]))
        return LegResult(tally, any(answer["interrupted"] for answer in found))


@dataclass(frozen=True, slots=True)
class _Generator:
    process: asyncio.subprocess.Process
    words: IO[bytes]

    def tell(self, line: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line)

    async def answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        if not line:
            status = await self.process.wait()
            self.words.seek(0)
            words = self.words.read().decode(errors="replace").strip().rpartition("\n")[2]
            raise GeneratorLost(f"a generator process ended with status {status}: {words or 'without a word'}")
        answer: dict[str, Any] = json.loads(line)
        return answer
