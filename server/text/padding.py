"""Rows of unequal length -> one padded batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lockstep.server.core.messages import PaddedBatch


def pad(rows: Sequence[NDArray[np.int64]], pad_id: int) -> PaddedBatch:
    """Right-pad rows (each int64[length]) with `pad_id` to the longest; at least one row, none empty."""
    lengths = np.fromiter((len(row) for row in rows), dtype=np.int64, count=len(rows))
    ids = np.full((len(rows), int(lengths.max())), pad_id, dtype=np.int64)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
    return PaddedBatch(ids, lengths)
