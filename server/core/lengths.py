"""The buckets of length that durations are kept by, wherever they are told apart by it."""

from __future__ import annotations

LENGTH_BUCKETS = (16, 32, 64, 128, 256, 512)
"""Upper bounds, tokens; the last bucket is open."""
