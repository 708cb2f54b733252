"""Cost tables for the simulation: what a batch costs, by rows and longest row, in ms.

A table is a JSON file, written by hand or measured:

    {"label": "...", "note": "...", "measured": true, "workers": 2,
     "rows": [1, 2, 4, ...], "lengths": [8, 16, ...], "cost_ms": [[one number a length], one list a row count]}

Between its lines costs are interpolated, in logarithms of rows, length and cost. A file of a server's state folder
(`cost-*.json`) is read as well: its cost model, as the server had learned it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lockstep.server.scheduling.cost import CostModel

Floats = NDArray[np.float64]


class TableUnreadable(Exception):
    """The file is no cost table; the message says why."""


@dataclass(frozen=True, slots=True)
class CostTable:
    """What a batch costs on one worker."""

    label: str
    note: str
    measured: bool
    workers: int  # that work at once at these costs
    cost_ns: Floats  # [rows, length] from 0; row and column 0 are 0

    @property
    def max_rows(self) -> int:
        """The most rows that it knows the cost of."""
        return len(self.cost_ns) - 1

    @property
    def max_length(self) -> int:
        """The longest row that it knows the cost of, tokens."""
        return len(self.cost_ns[0]) - 1


def read(path: Path) -> CostTable:
    """Read a table, or a server's state file. Raises `TableUnreadable`."""
    try:
        document = json.loads(path.read_text())
        if "model" in document:
            costs = CostModel.restore(document["model"]).table()
            return CostTable(path.stem, "a server's state file", True, 2, costs)
        return CostTable(
            str(document["label"]),
            str(document["note"]),
            bool(document["measured"]),
            int(document["workers"]),
            _filled(document),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TableUnreadable(f"{path}: {type(error).__name__}: {error}") from error


def _filled(document: dict[str, Any]) -> Floats:
    """Return the costs of every number of rows and every length, ns."""
    rows, lengths = np.array(document["rows"]), np.array(document["lengths"])
    costs = np.array(document["cost_ms"], dtype=np.float64)
    if costs.shape != (len(rows), len(lengths)) or (costs <= 0).any():
        raise ValueError(f"cost_ms must be {len(rows)} lists of {len(lengths)} numbers above 0")
    if (np.diff(rows) <= 0).any() or (np.diff(lengths) <= 0).any() or rows[0] != 1:
        raise ValueError("rows must ascend from 1, and lengths ascend")
    all_rows, all_lengths = np.arange(1, rows[-1] + 1), np.arange(1, lengths[-1] + 1)
    by_length = np.array([np.interp(np.log(all_lengths), np.log(lengths), line) for line in np.log(costs)])
    both = np.array([np.interp(np.log(all_rows), np.log(rows), column) for column in by_length.T]).T
    table = np.zeros((len(all_rows) + 1, len(all_lengths) + 1))
    table[1:, 1:] = np.exp(both) * 1e6
    return np.maximum.accumulate(np.maximum.accumulate(table, axis=0), axis=1)
