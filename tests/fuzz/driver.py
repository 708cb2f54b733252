"""Drives a property with Hypothesis for so many cases."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded

from tests.fuzz.properties import Property

_MOST_CPU_S = 5.0  # of one case: processor time, for the machine may be busy


def broken_by(one: Property, *, examples: int, seed: int) -> Exception | None:
    """Return the error of the smallest case that breaks a promise, with the case in its notes; None where none does."""

    @seeded(seed)
    @settings(
        max_examples=examples,
        deadline=None,  # see _MOST_CPU_S
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(one.cases)
    def check(case: Any) -> None:
        with _no_hang():
            one.holds(case)

    try:
        check()
    except Exception as error:  # anything but a refusal is a finding
        return error
    return None


@contextmanager
def _no_hang() -> Iterator[None]:
    """Raise where the block takes too long; in C code that never returns, the traceback comes when it does."""

    def hangs(number: int, frame: FrameType | None) -> None:
        raise AssertionError(f"a case takes more than {_MOST_CPU_S:.0f} s of CPU time")

    before = signal.signal(signal.SIGVTALRM, hangs)
    signal.setitimer(signal.ITIMER_VIRTUAL, _MOST_CPU_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
