"""An event loop whose timers are fine enough to send calls when they are due."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def loop_with_fine_timers() -> asyncio.AbstractEventLoop:
    """`select` sleeps to the microsecond; epoll, the default, rounds every timer up to a millisecond."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


def run_with_fine_timers(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on such a loop; blocks. Ctrl-C cancels it."""
    with asyncio.Runner(loop_factory=loop_with_fine_timers) as runner:
        return runner.run(main)
