"""The types that pass between the floors of the server. No framework, no protobuf, no clock."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Encoding:
    """A row that is ready to be executed: validated ids within the model's maximum."""

    ids: NDArray[np.int64]  # int64[length], 1 <= length <= max tokens
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class PaddedBatch:
    """Rows of unequal length as one rectangle."""

    ids: NDArray[np.int64]  # int64[batch, length], right-padded with the pad id
    lengths: NDArray[np.int64]  # int64[batch]

    @property
    def rows(self) -> int:
        """Rows executed together."""
        return int(self.ids.shape[0])

    @property
    def length(self) -> int:
        """The longest row, tokens: what every row is padded to."""
        return int(self.ids.shape[1])
