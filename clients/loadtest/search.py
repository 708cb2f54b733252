"""The search for the highest rate that holds a latency: bracket, bisect, and ask again at both ends. Pure.

Knows neither a clock nor a server: it says which rate to try next, and is told what became of it.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Final

from lockstep.clients.loadtest.latency_histogram import Latencies

RESOLUTION: Final = 0.05
"""The bracket is narrow enough when its ends are this part apart."""

VOTES: Final = 2
"""Tries that must agree on each end of the bracket: one alone may have met a stall of the machine's."""

MOST_TRIES: Final = 24
LOWEST_RATE: Final = 0.1
STEP: Final = 2.0
_SLO: Final = re.compile(r"^p(?P<percentile>\d+(?:\.\d+)?)=(?P<limit>\d+(?:\.\d+)?)(?P<unit>ms|s)$")


@dataclass(frozen=True, slots=True)
class Slo:
    """A latency target: `percentile` percent of calls are answered within `limit_ms`."""

    percentile: float
    limit_ms: float

    def __post_init__(self) -> None:
        if not (0 < self.percentile < 100 and self.limit_ms > 0):
            raise ValueError(f"{self}: the percentile is between 0 and 100, and the limit more than 0")

    @classmethod
    def parse(cls, text: str) -> Slo:
        """Read `p99=50ms`; raises `ValueError`."""
        found = _SLO.match(text.replace(" ", ""))
        if found is None:
            raise ValueError(f"slo {text!r}: expected p99=50ms, or p99.9=1s")
        limit = float(found["limit"]) * (1000 if found["unit"] == "s" else 1)
        return cls(float(found["percentile"]), limit)

    def __str__(self) -> str:
        return f"p{self.percentile:g} <= {self.limit_ms:g} ms"

    def reached_ms(self, latencies: Latencies, *, failed: int) -> float:
        """Return the percentile over all calls, where one that failed is slower than any: infinite where it is one."""
        answered = len(latencies)
        total = answered + failed
        if not total:
            return math.inf
        rank = self.percentile * total / answered if answered else math.inf
        return latencies.percentile_ms(rank) if rank <= 100 else math.inf


@dataclass(slots=True)
class Search:
    """Which rate to try next. Tell it of every try until `next_rate` is `None`.

    A rate holds where more tries of it held than did not. `low` is the highest that holds below `high`, the lowest
    that does not. Where a try turns a verdict over, the search goes on from what is true then; `most_tries` ends it.
    """

    start: float  # rows a second
    ceiling: float = math.inf  # no rate beyond: the generator cannot send it
    resolution: float = RESOLUTION
    most_tries: int = MOST_TRIES
    tries: list[tuple[float, bool]] = field(default_factory=list)

    def tell(self, rate: float, held: bool) -> None:
        """Take note of a try."""
        self.tries.append((rate, held))

    @property
    def low(self) -> float | None:
        """The highest rate that holds, below the lowest that does not."""
        high = self.high
        return max((rate for rate in self._rates if self._holds(rate) and (high is None or rate < high)), default=None)

    @property
    def high(self) -> float | None:
        """The lowest rate that does not hold."""
        return min((rate for rate in self._rates if not self._holds(rate)), default=None)

    @property
    def settled(self) -> bool:
        """Whether the bracket is narrow and both its ends were found more than once."""
        return self._wanted() is None

    def next_rate(self) -> float | None:
        """Return the rate to try, or `None` at the end."""
        return None if len(self.tries) >= self.most_tries else self._wanted()

    def why(self) -> str:
        """Say how the search stands, when it has ended."""
        if not self.settled:
            return f"ended after {len(self.tries)} tries, before both ends of the bracket were confirmed"
        if self.low is None:
            return f"not even {LOWEST_RATE:g} texts/s hold"
        if self.high is None:
            return f"{self.low:g} texts/s hold, and the generator cannot send more"
        return f"each end of the bracket was found {VOTES} times at least"

    def _wanted(self) -> float | None:
        low, high = self.low, self.high
        if low is None and high is None:
            return _tidy(min(self.start, self.ceiling))
        if high is None:
            assert low is not None
            if low < self.ceiling:
                return min(_tidy(low * STEP), self.ceiling)
            return None if self._sure(low) else low
        if low is None:
            if high > LOWEST_RATE:
                return max(_tidy(high / STEP), LOWEST_RATE)
            return None if self._sure(high) else high
        middle = _tidy(math.sqrt(low * high))
        if high / low > 1 + self.resolution and low < middle < high:
            return middle
        for end in (low, high):
            if not self._sure(end):
                return end
        return None

    @property
    def _rates(self) -> set[float]:
        return {rate for rate, _ in self.tries}

    def _votes(self, rate: float) -> tuple[int, int]:
        found = [held for tried, held in self.tries if tried == rate]
        return sum(found), len(found) - sum(found)

    def _holds(self, rate: float) -> bool:
        held, failed = self._votes(rate)
        return held > failed

    def _sure(self, rate: float) -> bool:
        """Whether one side has enough votes, and more than the other."""
        held, failed = self._votes(rate)
        return max(held, failed) >= VOTES and held != failed


def _tidy(rate: float) -> float:
    """Round to three digits: a rate that people can say, and that the same search finds again."""
    return float(f"{rate:.3g}")


@dataclass(frozen=True, slots=True)
class Try:
    """One turn at one rate."""

    rate: float
    reached_ms: float | None  # the percentile; None: so many calls failed that it is without bound
    held: bool


@dataclass(frozen=True, slots=True)
class BackendSearch:
    """What the search found of one backend: it meets the target at `low`, and misses it at `high` (rows a second)."""

    backend: str
    low: float | None  # None: none was found to hold
    high: float | None  # None: none was found not to hold
    settled: bool  # both ends were found more than once, and are close
    why: str  # it ended
    tries: tuple[Try, ...]


@dataclass(frozen=True, slots=True)
class SearchReport:
    """The highest rate of each backend of a model that meets a target."""

    model: str
    slo: Slo
    seconds_a_try: float
    backends: tuple[BackendSearch, ...]
    interrupted: bool
