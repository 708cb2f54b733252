"""Histogram counted in bins: any number of them in bounded memory. Knows neither phases nor a clock.

A bin is a hundredth of a duration wide, wherever on the scale it is: between two powers of two lie 64 of them. A
percentile is its bin's middle, so it is wrong by `RELATIVE_ERROR` at most; counts, means and maxima are exact.
Only bins that hold something take memory, and durations are counted many at a time, which is what makes it cheap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

_Counts = NDArray[np.int64]

_BINS_AN_OCTAVE = 64
_FIRST_OCTAVE, _OCTAVES = 7, 36  # 64 ns to an hour; what is beyond is counted in the outermost bins
_BINS = _OCTAVES * _BINS_AN_OCTAVE
_MOST_FRESH = 65_536
"""Histogram that are kept one by one: counting them costs a pass over all bins."""

RELATIVE_ERROR = 1 / (2 * _BINS_AN_OCTAVE)
"""Of a percentile between 64 ns and an hour."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What is told of the durations of one group, ns; a percentile is the smallest that so many are not above."""

    count: int
    mean: float
    p50: float
    p90: float
    p99: float
    most: int


class Histogram:
    """The durations of several groups."""

    def __init__(self, groups: int) -> None:
        self.groups = groups
        self._total: _Counts = np.zeros(groups, np.int64)
        self._most: _Counts = np.zeros(groups, np.int64)
        self._fresh: list[_Counts] = []  # group * _BINS + bin of durations, one by one
        self._fresh_durations = 0
        self._counted: list[tuple[_Counts, _Counts]] = []  # the same, each once a part, and how often it was met

    def add(self, group: _Counts, duration_ns: _Counts) -> None:
        """Count durations `[n]`, each for its group `[n]`."""
        known = np.maximum(duration_ns, 0)
        self._total += np.bincount(group, known, self.groups).astype(np.int64)  # exact up to 2 ** 53 ns, 104 days
        np.maximum.at(self._most, group, known)
        self._fresh.append(group * _BINS + _bin_of(known))
        self._fresh_durations += len(known)
        if self._fresh_durations >= _MOST_FRESH:
            self.compact()

    def merge(self, other: Histogram) -> None:
        """Count what another one of as many groups has counted."""
        self._total += other._total
        np.maximum(self._most, other._most, out=self._most)
        self._fresh.extend(other._fresh)
        self._counted.extend(other._counted)

    def compact(self) -> None:
        """Take as little memory as what was counted allows."""
        self._counted = [self._codes_and_counts()]
        self._fresh, self._fresh_durations = [], 0

    def _codes_and_counts(self) -> tuple[_Counts, _Counts]:
        """Return every code that was met, ascending, and how often."""
        size = self.groups * _BINS
        counts = np.bincount(np.concatenate(self._fresh), minlength=size) if self._fresh else np.zeros(size, np.int64)
        if self._counted:
            codes, often = (np.concatenate(one) for one in zip(*self._counted, strict=True))
            counts += np.bincount(codes, often, size).astype(np.int64)
        codes = np.flatnonzero(counts != 0)
        return codes, counts[codes]

    def folded(self, onto: Sequence[int], groups: int) -> Histogram:
        """Return the durations with group `g` counted for group `onto[g]`, of so many."""
        folded, target = Histogram(groups), np.array(onto, np.int64)
        np.add.at(folded._total, target, self._total)
        np.maximum.at(folded._most, target, self._most)
        shift = (
            target - np.arange(self.groups)
        ) * _BINS  # first, so that only the bins of the fewer groups are counted
        folded._fresh = [codes + shift[codes // _BINS] for codes in self._fresh]
        folded._counted = [(codes + shift[codes // _BINS], counts) for codes, counts in self._counted]
        return folded

    def summaries(self) -> list[Summary | None]:
        """Return a summary of every group; None of one without durations."""
        codes, counts = self._codes_and_counts()
        starts = np.searchsorted(codes, np.arange(self.groups + 1) * _BINS)
        return [
            self._summary(group, codes[first:last] - group * _BINS, counts[first:last])
            for group, (first, last) in enumerate(pairwise(starts))
        ]

    def _summary(self, group: int, bins: _Counts, counts: _Counts) -> Summary | None:
        if not len(bins):
            return None
        below = np.cumsum(counts)
        count, most = int(below[-1]), int(self._most[group])
        # the rank is rounded up in whole numbers: 0.9 * 10 must not become 9.000000000000002
        ranks = [-(-count * percent // 100) for percent in (50, 90, 99)]
        middles = _middle_ns(bins[np.searchsorted(below, ranks)])
        p50, p90, p99 = np.minimum(middles, most).tolist()
        return Summary(count, int(self._total[group]) / count, p50, p90, p99, most)


def _bin_of(duration_ns: _Counts) -> _Counts:
    """Return the bin of each duration: which octave, and where in it."""
    mantissa, exponent = np.frexp(duration_ns)  # duration = mantissa * 2 ** exponent, 0.5 <= mantissa < 1
    octave = exponent.astype(np.int64) - _FIRST_OCTAVE
    bins = octave * _BINS_AN_OCTAVE + ((mantissa - 0.5) * (2 * _BINS_AN_OCTAVE)).astype(np.int64)
    return np.clip(bins, 0, _BINS - 1)


def _middle_ns(bins: _Counts) -> NDArray[np.float64]:
    octave, place = np.divmod(bins, _BINS_AN_OCTAVE)
    mantissa = 0.5 + (place + 0.5) / (2 * _BINS_AN_OCTAVE)
    middle: NDArray[np.float64] = np.ldexp(mantissa, octave + _FIRST_OCTAVE)
    return middle
