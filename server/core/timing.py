"""Instants and phases of a row's life. Owns the order of the phases; knows no clock but the monotonic one.

Every instant is `time.monotonic_ns()`, which on Linux all processes of a machine share, so instants
taken by a worker and by the gateway can be compared. Phases are contiguous: the end of each is the
start of the next, and each is the difference of two instants that were really taken.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum

now_ns = time.monotonic_ns


class Phase(StrEnum):
    """What a row goes through, in order."""

    DECODE = "decode"
    TOKENIZE = "tokenize"
    QUEUE = "queue"
    PAD = "pad"
    TRANSFER = "transfer"
    EXECUTE = "execute"
    RESPOND = "respond"


@dataclass(frozen=True, slots=True)
class BatchTimes:
    """Instants (ns) that all rows of a batch share."""

    dispatched_ns: int  # the policy chose it: the end of queueing
    padded_ns: int  # its arrays are ready to be sent
    execute_start_ns: int  # the worker holds its inputs
    execute_end_ns: int  # the runtime returned


@dataclass(frozen=True, slots=True)
class Timeline:
    """Instants (ns) of one answered row, from the arrival of its call to its answer."""

    received_ns: int
    decoded_ns: int
    tokenized_ns: int
    batch: BatchTimes
    responded_ns: int

    def phases_ns(self) -> dict[Phase, int]:
        """Return each phase's duration (ns), in order; they add up to `total_ns`."""
        batch = self.batch
        return {
            Phase.DECODE: self.decoded_ns - self.received_ns,
            Phase.TOKENIZE: self.tokenized_ns - self.decoded_ns,
            Phase.QUEUE: batch.dispatched_ns - self.tokenized_ns,
            Phase.PAD: batch.padded_ns - batch.dispatched_ns,
            Phase.TRANSFER: batch.execute_start_ns - batch.padded_ns,
            Phase.EXECUTE: batch.execute_end_ns - batch.execute_start_ns,
            Phase.RESPOND: self.responded_ns - batch.execute_end_ns,
        }

    @property
    def total_ns(self) -> int:
        """The time from the call's arrival to the answer, ns."""
        return self.responded_ns - self.received_ns
