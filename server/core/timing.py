"""Instants and phases of a row's life. Owns the order of the phases; knows no clock but the monotonic one.

Every instant is `time.monotonic_ns()`, which on Linux all processes of a machine share, so instants
taken by a worker and by the gateway can be compared. Phases are contiguous: the end of each is the
start of the next, and each is the difference of two instants that were really taken.
"""

from __future__ import annotations

import time
from typing import NamedTuple

now_ns = time.monotonic_ns


class BatchTimes(NamedTuple):
    """Instants (ns) that all rows of a batch share."""

    dispatched_ns: int  # the policy chose it: the end of queueing
    padded_ns: int  # its arrays are ready to be sent
    execute_start_ns: int  # the worker holds its inputs
    execute_end_ns: int  # the runtime returned
    responded_ns: int  # its rows have their answers


class Phases(NamedTuple):
    """Histogram (ns) of the phases of one answered row, in order; they add up to its whole stay."""

    decode: int
    tokenize: int
    queue: int
    pad: int
    transfer: int
    execute: int
    respond: int


def phases_of(received_ns: int, decoded_ns: int, tokenized_ns: int, batch: BatchTimes) -> Phases:
    """Return the phases between the instants of a row and those of its batch."""
    return Phases(
        decoded_ns - received_ns,
        tokenized_ns - decoded_ns,
        batch.dispatched_ns - tokenized_ns,
        batch.padded_ns - batch.dispatched_ns,
        batch.execute_start_ns - batch.padded_ns,
        batch.execute_end_ns - batch.execute_start_ns,
        batch.responded_ns - batch.execute_end_ns,
    )
