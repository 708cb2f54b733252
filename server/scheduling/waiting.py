"""The rows that wait, as arrays in arrival order. Owns their bookkeeping; decides nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

FREE = -1
"""The pin of a row that may run on any backend."""
NO_DEADLINE_NS = np.iinfo(np.int64).max

Indices = NDArray[np.intp]
Numbers = NDArray[np.int64]
Entry = TypeVar("Entry")


@dataclass(frozen=True, slots=True)
class Waiting:
    """A view of the waiting rows, oldest first; all arrays are `[rows]`. Not to be kept or changed."""

    length: NDArray[np.int64]  # tokens
    arrival_ns: NDArray[np.int64]  # monotonic
    deadline_ns: NDArray[np.int64]  # monotonic; NO_DEADLINE_NS where there is none
    priority: NDArray[np.int64]  # higher goes first
    pin: NDArray[np.int64]  # index of a backend, or FREE
    number: Numbers  # ascending: what a row is known by from one view to the next

    def __len__(self) -> int:
        return len(self.length)


_FIELDS = ("length", "arrival_ns", "deadline_ns", "priority", "pin", "number")


class WaitingRows(Generic[Entry]):
    """The waiting rows and, beside each, its entry (what the owner must answer).

    Rows lie in `[first, end)` of a table. Those that are taken are mostly old, so the gap that they leave is closed
    by moving older rows up: what it costs depends on how far from the front they lay, not on how many wait.
    """

    def __init__(self, capacity: int = 256) -> None:
        self._table = np.empty((len(_FIELDS), capacity), dtype=np.int64)
        self._entries: list[Entry | None] = [None] * capacity
        self._first = self._end = 0
        self._numbers = 0

    def __len__(self) -> int:
        return self._end - self._first

    def add(self, entry: Entry, *, length: int, arrival_ns: int, deadline_ns: int, priority: int, pin: int) -> None:
        """Append a row; rows must be added in order of arrival."""
        if self._end == len(self._entries):
            self._make_room()
        row = self._end
        self._table[:, row] = (length, arrival_ns, deadline_ns, priority, pin, self._numbers)
        self._entries[row] = entry
        self._end += 1
        self._numbers += 1

    def view(self) -> Waiting:
        """Return the waiting rows without copying; valid until the next change."""
        return Waiting(*self._table[:, self._first : self._end])

    def entries(self) -> list[Entry]:
        """Return the entries, oldest first."""
        return cast("list[Entry]", self._entries[self._first : self._end])

    def remove(self, rows: Indices) -> list[Entry]:
        """Take rows out and return their entries in the order of `rows`; the others keep theirs."""
        if not len(rows):
            return []
        first, entries = self._first, self._entries
        taken = cast("list[Entry]", [entries[first + row] for row in rows.tolist()])
        beyond = int(rows.max()) + 1
        kept = np.ones(beyond, dtype=bool)
        kept[rows] = False
        stay = (np.flatnonzero(kept) + first).tolist()
        moved = first + beyond - len(stay)
        self._table[:, moved : first + beyond] = self._table[:, stay]
        entries[moved : first + beyond] = [entries[row] for row in stay]
        entries[first:moved] = [None] * (moved - first)
        self._first = moved
        return taken

    def _make_room(self) -> None:
        """Move the rows to the front, of a table twice as large where they fill more than half of it."""
        count = len(self)
        capacity = max(2, len(self._entries) * (2 if count > len(self._entries) // 2 else 1))
        table = np.empty((len(_FIELDS), capacity), dtype=np.int64)
        table[:, :count] = self._table[:, self._first : self._end]
        self._entries = [*self._entries[self._first : self._end], *[None] * (capacity - count)]
        self._table, self._first, self._end = table, 0, count
