"""How fast a backend works through rows that queue, measured: time of a worker for a token, recently.

It learns from batches that were taken while more rows waited: those are as large as they get, and what comes then is
what a queue costs. A lone row says nothing of that. Knows no clock and no worker.
"""

from __future__ import annotations

_KEPT = 0.9
"""Of what was known, with each batch: about the last ten count."""
_BATCHES_TO_TELL = 4


class ThroughputEstimate:
    """Nanoseconds of one worker for one token, over all that a batch takes from dispatch to answer."""

    def __init__(self) -> None:
        self._elapsed_ns = 0.0
        self._tokens = 0.0
        self._batches = 0

    def observe(self, elapsed_ns: int, tokens: int) -> None:
        """Learn from a batch that was taken while more rows waited."""
        self._elapsed_ns = _KEPT * self._elapsed_ns + elapsed_ns
        self._tokens = _KEPT * self._tokens + tokens
        self._batches += 1

    @property
    def ns_per_token(self) -> float | None:
        """The pace; None where too little was seen."""
        return self._elapsed_ns / self._tokens if self._batches >= _BATCHES_TO_TELL else None
