"""How far figures can be trusted: 95 % t-intervals over rounds. Pure.

Latencies, rates and costs are positive and their errors multiply (a busy machine makes everything so many percent
slower), so the intervals are of the logarithms: the mean is the geometric mean of the rounds, and the difference of two
is a ratio. Rounds are taken to be independent; they are minutes of one machine, so an interval says nothing of another.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

# The 97.5th percentile of Student's t by degrees of freedom.
_T: Final = {
    1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764, 5: 2.5706, 6: 2.4469, 7: 2.3646, 8: 2.3060, 9: 2.2622, 10: 2.2281,
    12: 2.1788, 15: 2.1314, 20: 2.0860, 30: 2.0423, 60: 2.0003, 120: 1.9799,
}  # fmt: skip
_T_INFINITE: Final = 1.95996
FEWEST: Final = 3
"""Rounds: of two, the interval would be thirteen times their spread, and say nothing."""


@dataclass(frozen=True, slots=True)
class Interval:
    """Where the figure lies, with 95 % confidence."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Ratio:
    """One figure in terms of another, with its 95 % interval."""

    value: float
    low: float
    high: float


def t_quantile(freedom: float) -> float:
    """Return the 97.5th percentile of Student's t, within 1 % for any degrees of freedom from 1 on."""
    points = [(1 / n, t) for n, t in sorted(_T.items(), reverse=True)]
    points.insert(0, (0.0, _T_INFINITE))
    at = 1 / max(1.0, freedom)
    for (left, low), (right, high) in pairwise(points):
        if at <= right:
            return low + (high - low) * (at - left) / (right - left)
    return _T[1]


def interval_of(rounds: Sequence[float]) -> Interval | None:
    """Return the interval of the rounds' geometric mean; `None` for fewer than three, or one that is not positive."""
    logs = _logs(rounds)
    if logs is None or len(logs) < FEWEST:
        return None
    half = t_quantile(len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
    middle = statistics.fmean(logs)
    return Interval(math.exp(middle - half), math.exp(middle + half))


def ratio_of(rounds: Sequence[float], to: Sequence[float]) -> Ratio | None:
    """Return rounds / to of two runs that had nothing to do with each other, by Welch's t-interval."""
    upper, lower = _logs(rounds), _logs(to)
    if upper is None or lower is None:
        return None
    parts = [statistics.variance(logs) / len(logs) for logs in (upper, lower)]
    squared = sum(parts)
    if squared == 0:
        freedom = float(len(upper) + len(lower) - 2)
    else:
        freedom = squared**2 / sum(part**2 / (len(logs) - 1) for part, logs in zip(parts, (upper, lower), strict=True))
    return _ratio(statistics.fmean(upper) - statistics.fmean(lower), t_quantile(freedom) * math.sqrt(squared))


def paired_ratio_of(rounds: Sequence[float], to: Sequence[float]) -> Ratio | None:
    """Return rounds / to of two that took turns: each round is its own comparison, so drift drops out."""
    upper, lower = _logs(rounds), _logs(to)
    if upper is None or lower is None or len(upper) != len(lower) or len(upper) < FEWEST:
        return None
    gaps = [above - below for above, below in zip(upper, lower, strict=True)]
    half = t_quantile(len(gaps) - 1) * statistics.stdev(gaps) / math.sqrt(len(gaps))
    return _ratio(statistics.fmean(gaps), half)


def _ratio(middle: float, half: float) -> Ratio:
    return Ratio(math.exp(middle), math.exp(middle - half), math.exp(middle + half))


def _logs(values: Sequence[float]) -> list[float] | None:
    if len(values) < 2 or min(values) <= 0:
        return None
    return [math.log(value) for value in values]
