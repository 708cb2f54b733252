"""When to send again: a pure decision. Knows no clock and sends nothing."""

from __future__ import annotations

from dataclasses import dataclass

from lockstep.clients.errors import CallError


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """UNAVAILABLE always, RESOURCE_EXHAUSTED only with pushback, never past the deadline.

    Waits double from `initial_s` to `longest_s`, each shortened by a random part of up to half, so
    that clients which failed together do not come back together. A pushback is a minimum: the
    wait is that long and up to a fifth longer.
    """

    initial_s: float = 0.05
    longest_s: float = 2.0
    attempts: int | None = None  # how often a call is sent at most; None: as the deadline allows

    def wait_s(self, error: CallError, *, attempt: int, remaining_s: float, dice: float = 0.0) -> float | None:
        """Return the wait (seconds) before sending again, or `None` where the error is final.

        `attempt` counts the sendings so far (1 after the first), `remaining_s` is what is left of the
        deadline, `dice` is uniform in [0, 1). A wait that would reach the deadline is not begun.
        """
        if not error.may_retry or (self.attempts is not None and attempt >= self.attempts):
            return None
        if error.pushback_s is not None:
            wait_s = error.pushback_s * (1 + dice / 5)
        else:
            # The exponent is capped: a float overflows past 2 ** 1023, long after `longest_s` rules.
            wait_s = min(self.longest_s, self.initial_s * 2.0 ** min(attempt - 1, 64)) * (1 - dice / 2)
        return wait_s if wait_s < remaining_s else None


NEVER = RetryPolicy(attempts=1)
"""Every failure is the caller's to see: what a load test wants."""
