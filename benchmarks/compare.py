"""Comparison in interleaved pairs: A B, A B, ... on one machine in one run, and what may be concluded from them.

The figure of a row is the median of its pairs, and its interval their minimum and maximum. With five pairs, the
median of all pairs there could be lies inside with a probability of 1 - 2 / 2^5 = 94 %, whatever the distribution;
with more pairs more.
"""

from __future__ import annotations

import operator
import re
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

PAIRS: Final = 5

Figures = TypeVar("Figures")

Verdict = Literal["met", "missed", "unsure: met", "unsure: missed"]

_BUCKET: Final = re.compile(r"^predicted_cost_ratio_bucket\{(\S+)\}$")


@dataclass(frozen=True, slots=True)
class Bound:
    """What a figure must reach."""

    sign: Literal[">=", "<="]
    value: float

    def holds(self, figure: float) -> bool:
        """Tell whether a figure reaches it."""
        compare = operator.ge if self.sign == ">=" else operator.le
        return bool(compare(figure, self.value))

    def __str__(self) -> str:
        return f"{self.sign} {self.value:g}"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure from pairs: their median, minimum and maximum."""

    median: float
    low: float
    high: float
    pairs: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """Summarise one value a pair; at least one."""
        return cls(statistics.median(values), min(values), max(values), len(values))

    def verdict(self, bound: Bound) -> Verdict:
        """Hold the median against a bound; unsure where the interval lies on both sides of it."""
        met = bound.holds(self.median)
        if bound.holds(self.low) == bound.holds(self.high):
            return "met" if met else "missed"
        return "unsure: met" if met else "unsure: missed"


def interleaved(
    conditions: Mapping[str, Callable[[], Figures]],
    pairs: int,
    told: Callable[[int, str, Figures], None] = lambda number, name, figures: None,
) -> Iterator[dict[str, Figures]]:
    """Measure every condition once a round and yield each round; every second runs backwards, so that drift evens out.

    `told` hears of every measurement: the round (from 0), the condition and its figures.
    """
    for number in range(pairs):
        names = list(conditions)
        found = {}
        for name in names if number % 2 == 0 else reversed(names):
            found[name] = conditions[name]()
            told(number, name, found[name])
        yield {name: found[name] for name in names}


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that `percent` percent of the values do not exceed."""
    ordered = sorted(values)
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(0, int(rank) - 1)]


def median_absolute_error(counters: Mapping[str, float]) -> float:
    """Return the median of |predicted / actual - 1| from the buckets of the server's histogram of that ratio.

    Within a bucket values are taken to be spread evenly. Raises `ValueError` where the histogram is not there.
    """
    cumulative = sorted((float(match[1]), count) for key, count in counters.items() if (match := _BUCKET.match(key)))
    if not cumulative or cumulative[-1][1] <= 0:
        raise ValueError("the server's metrics hold no predicted_cost_ratio")
    finite = [(bound, count) for bound, count in cumulative if bound != float("inf")]
    total = cumulative[-1][1]

    def below(ratio: float) -> float:
        at, counted = 0.0, 0.0
        for bound, count in finite:
            if ratio <= bound:
                return counted + (count - counted) * (ratio - at) / (bound - at)
            at, counted = bound, count
        return total

    low, high = 0.0, 1e3
    for _ in range(60):
        middle = (low + high) / 2
        inside = below(1 + middle) - below(max(0.0, 1 - middle))
        low, high = (middle, high) if inside < total / 2 else (low, middle)
    return high
