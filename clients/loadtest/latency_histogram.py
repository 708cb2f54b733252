"""Latencies as a high dynamic range histogram: one microsecond to one hour, three significant digits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Self

from hdrh.histogram import HdrHistogram

LONGEST_S: Final = 3600.0
DIGITS: Final = 3
RELATIVE_ERROR: Final = 10.0**-DIGITS
"""A percentile read back is at most this part above the value recorded (and at most 1 us, below 1 ms)."""


class Latencies:
    """Mutable: record, merge, then read. Constant memory, however many are recorded."""

    def __init__(self) -> None:
        self._histogram = HdrHistogram(1, int(LONGEST_S * 1e6), DIGITS)

    def __len__(self) -> int:
        count: int = self._histogram.get_total_count()
        return count

    def record(self, seconds: float, count: int = 1) -> None:
        """Add a latency `count` times; below 1 us it counts as 1 us. Raises `ValueError` past an hour."""
        if not self._histogram.record_value(max(1, round(seconds * 1e6)), count):
            raise ValueError(f"a latency of {seconds} s is outside the histogram's range")

    def merge(self, other: Latencies) -> None:
        """Add all of `other`: exact, as if each had been recorded here."""
        self._histogram.add(other._histogram)

    def percentile_ms(self, percentile: float) -> float:
        """Return the latency (ms) that `percentile` percent do not exceed; 0 where none was recorded."""
        return self.percentiles_ms([percentile])[0]

    def percentiles_ms(self, percentiles: Sequence[float]) -> list[float]:
        """Return several percentiles (ms) in one pass, in the order asked."""
        if not len(self):
            return [0.0] * len(percentiles)
        found = self._histogram.get_percentile_to_value_dict(percentiles)
        return [found[percentile] / 1000 for percentile in percentiles]

    @property
    def mean_ms(self) -> float:
        """The mean, ms; 0 where none was recorded."""
        mean: float = self._histogram.get_mean_value()
        return mean / 1000

    @property
    def max_ms(self) -> float:
        """The longest, ms; 0 where none was recorded."""
        longest: int = self._histogram.get_max_value()
        return longest / 1000

    def encode(self) -> str:
        """Return the histogram in HdrHistogram's own V2 format, base64: other tools read it."""
        encoded: bytes = self._histogram.encode()
        return encoded.decode("ascii")

    @classmethod
    def decode(cls, encoded: str) -> Self:
        """Read what `encode` wrote."""
        latencies = cls()
        latencies._histogram.decode_and_add(encoded.encode("ascii"))
        return latencies
