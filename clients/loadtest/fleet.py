"""Who sends a leg: this process, or several generator processes together. Owns their lives; reads no plan."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any, Final, Protocol, Self

from clients.credentials import Credentials
from clients.loadtest.engine import LegResult, run_leg
from clients.loadtest.generator import MOST_LINE_BYTES, STOP, Assignment, Order
from clients.loadtest.plan import Leg, LoadPlan, Share
from clients.loadtest.tally import Tally
from clients.loadtest.texts import Texts
from clients.transport import Transport

LEAD_S: Final = 0.1
"""From an order to its leg's beginning: every generator must have read it by then."""
STOP_S: Final = 10.0


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
        self._generators: list[_Generator] = []

    async def __aenter__(self) -> Self:
        try:
            for assignment in self._assignments:
                self._generators.append(await _Generator.start(assignment))
            await asyncio.gather(*(generator.answer() for generator in self._generators))
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

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

    async def _stop(self) -> None:
        await asyncio.gather(*(generator.stop() for generator in self._generators))


@dataclass(frozen=True, slots=True)
class _Generator:
    process: asyncio.subprocess.Process
    words: IO[bytes]

    @classmethod
    async def start(cls, assignment: Assignment) -> Self:
        words = tempfile.TemporaryFile()  # noqa: SIM115  closed by `stop`
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            "from clients.loadtest.generator import main; main()",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=words,
            limit=MOST_LINE_BYTES,
            start_new_session=True,  # Ctrl-C is ours: we end the leg in order
        )
        generator = cls(process, words)
        generator.tell(assignment.encode())
        return generator

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

    async def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            async with asyncio.timeout(STOP_S):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
        self.words.close()
