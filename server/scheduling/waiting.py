"""The rows that wait, as arrays in arrival order. Owns their bookkeeping; decides nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

FREE = -1
"""The pin of a row that may run on any backend."""
NO_DEADLINE_NS = np.iinfo(np.int64).max

Indices = NDArray[np.intp]
Entry = TypeVar("Entry")


@dataclass(frozen=True, slots=True)
class Waiting:
    """A view of the waiting rows, oldest first; all arrays are `[rows]`. Not to be kept or changed."""

    length: NDArray[np.int64]  # tokens
    arrival_ns: NDArray[np.int64]  # monotonic
    deadline_ns: NDArray[np.int64]  # monotonic; NO_DEADLINE_NS where there is none
    priority: NDArray[np.int64]  # higher goes first
    pin: NDArray[np.int64]  # index of a backend, or FREE

    def __len__(self) -> int:
        return len(self.length)


_FIELDS = ("length", "arrival_ns", "deadline_ns", "priority", "pin")


class WaitingRows(Generic[Entry]):
    """The waiting rows and, beside each, its entry (what the owner must answer)."""

    def __init__(self, capacity: int = 256) -> None:
        self._table = np.empty((len(_FIELDS), capacity), dtype=np.int64)
        self._entries: list[Entry] = []

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, entry: Entry, *, length: int, arrival_ns: int, deadline_ns: int, priority: int, pin: int) -> None:
        """Append a row; rows must be added in order of arrival."""
        row = len(self._entries)
        if row == self._table.shape[1]:
            self._table = np.concatenate([self._table, np.empty_like(self._table)], axis=1)
        self._table[:, row] = (length, arrival_ns, deadline_ns, priority, pin)
        self._entries.append(entry)

    def view(self) -> Waiting:
        """Return the waiting rows without copying; valid until the next change."""
        return Waiting(*self._table[:, : len(self._entries)])

    def entries(self) -> list[Entry]:
        """Return the entries, oldest first; not to be changed."""
        return self._entries

    def remove(self, rows: Indices) -> list[Entry]:
        """Take rows out and return their entries in the order of `rows`; the others keep theirs."""
        taken = [self._entries[row] for row in rows.tolist()]
        kept = np.ones(len(self._entries), dtype=bool)
        kept[rows] = False
        remaining = int(np.count_nonzero(kept))
        self._table[:, :remaining] = self._table[:, : len(self._entries)][:, kept]
        self._entries = [entry for entry, keep in zip(self._entries, kept.tolist(), strict=True) if keep]
        return taken
