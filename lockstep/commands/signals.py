"""How commands that measure are stopped: Ctrl-C and SIGTERM (what a CI's timeout sends) alike.

The first ends what runs in order, so that what was measured is kept; a second waits for nothing.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

from lockstep.commands.exit_codes import SIGNALLED

T = TypeVar("T")


class Stop:
    """The signal that asked to stop, if one did. Reaches whatever `run` runs; between, it is to be asked."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._cancel: Callable[[], object] | None = None
        self._measured = False

    @property
    def exit_code(self) -> int:
        """Of a command that was stopped."""
        return SIGNALLED + (self.signal or signal.SIGINT)

    @property
    def word(self) -> str:
        """What happened, for people."""
        return "terminated" if self.signal == signal.SIGTERM else "interrupted"

    def __call__(self, number: int, _frame: object = None) -> None:
        """Take a signal."""
        first, self.signal = self.signal is None, self.signal or number
        if self._cancel is not None:
            self._cancel()  # again: what takes its time to end is cut short
        elif not (first and self._measured):
            raise KeyboardInterrupt

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine, which a signal cancels; raises `KeyboardInterrupt` where it ends by that.

        Once one has run, a first signal raises nothing: what was measured is to be kept before the command stops.
        """
        import asyncio

        from lockstep.clients.loadtest.clock import run_with_fine_timers

        async def stoppable() -> T:
            loop, task = asyncio.get_running_loop(), asyncio.current_task()
            assert task is not None
            self._cancel = lambda: loop.call_soon_threadsafe(task.cancel)
            try:
                if self.signal is not None:  # it came before there was anything to cancel
                    main.close()
                    raise asyncio.CancelledError
                return await main
            finally:
                self._cancel, self._measured = None, True

        try:
            return run_with_fine_timers(stoppable())
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None


@contextlib.contextmanager
def stoppable() -> Iterator[Stop]:
    """Have Ctrl-C and SIGTERM stop the block in order."""
    stop = Stop()
    with taking_signals(stop):
        yield stop


@contextlib.contextmanager
def taking_signals(take: Callable[[int, Any], None]) -> Iterator[None]:
    """Give Ctrl-C and SIGTERM to `take` until the block ends."""
    before = {number: signal.signal(number, take) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
