"""Frames between the gateway and a worker: a fixed header, then raw bytes. Little-endian, no pickle.

::

    frame   = kind u8, three u32 fields, payload length u64, payload
    LOAD    gateway -> worker   payload: JSON {adapter, artifact, budget}
    LOADED  worker -> gateway   payload: JSON {versions, seconds}
    FAILED  worker -> gateway   payload: JSON {error}; the batch (or the load) failed, the worker lives on
    EXECUTE gateway -> worker   fields: batch, rows, length
                                payload: ids int64[rows, length], lengths int64[rows]
    DONE    worker -> gateway   fields: batch, rows, labels
                                payload: start_ns, end_ns, cpu_ns int64[3], outputs float32[rows, labels]

One side speaks only when spoken to: the worker answers each frame with exactly one frame, in order.
"""

from __future__ import annotations

import struct
from enum import IntEnum

HEADER = struct.Struct("<BIIIQ")
DONE_TIMES = struct.Struct("<qqq")  # start_ns, end_ns (monotonic), cpu_ns (process CPU time of the batch)


class Kind(IntEnum):
    """What a frame is."""

    LOAD = 1
    LOADED = 2
    FAILED = 3
    EXECUTE = 4
    DONE = 5
