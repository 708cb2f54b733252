"""The one seam between the gateway and the frameworks: load an artifact, execute a batch.

An adapter lives in a file of its own and imports its framework inside `load`. It runs in a worker
process, which imports nothing but this package, numpy and the standard library.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lockstep.server.core.artifact import ArtifactSpec, Budget

Ids = NDArray[np.int64]  # int64[batch, length], right-padded
Lengths = NDArray[np.int64]  # int64[batch], 1 <= lengths <= length
Outputs = NDArray[np.float32]  # float32[batch, labels]


class Adapter(Protocol):
    """An artifact loaded by a runtime.

    `execute` blocks for as long as the runtime computes; it must not keep references to its inputs,
    which are views of a buffer that the next batch overwrites.
    """

    @classmethod
    def load(cls, artifact: ArtifactSpec, budget: Budget) -> Adapter:
        """Load the artifact under the thread budget; any exception means that it cannot be served."""
        ...

    @property
    def versions(self) -> dict[str, str]:
        """The runtime's packages and versions, for reports."""
        ...

    def execute(self, ids: Ids, lengths: Lengths) -> Outputs:
        """Return float32[batch, labels] for ids int64[batch, length] and lengths int64[batch]."""
        ...


def attention_mask(ids: Ids, lengths: Lengths, dtype: str) -> NDArray[np.generic]:
    """Return [batch, length] of `dtype`: 1 where a position is before its row's end, else 0."""
    positions = np.arange(ids.shape[1])
    return (positions[None, :] < lengths[:, None]).astype(dtype)


def feeds(artifact: ArtifactSpec, ids: Ids, lengths: Lengths) -> dict[str, NDArray[np.generic]]:
    """Return the artifact's inputs by name, in its dtypes; mask and lengths only where it takes them."""
    named: dict[str, NDArray[np.generic]] = {artifact.input_ids.name: ids.astype(artifact.input_ids.dtype, copy=False)}
    if artifact.attention_mask is not None:
        named[artifact.attention_mask.name] = attention_mask(ids, lengths, artifact.attention_mask.dtype)
    if artifact.lengths is not None:
        named[artifact.lengths.name] = lengths.astype(artifact.lengths.dtype, copy=False)
    return named


def rounded_up(ids: Ids, lengths: Lengths) -> tuple[Ids, Lengths]:
    """Return the batch with rows rounded up to a power of two and length to a multiple of 16.

    GPUs choose kernels and keep memory for each distinct shape: this bounds how many there are. Added rows are
    one token long; whoever calls drops their outputs. Added columns lie beyond every row's end.
    """
    rows, length = ids.shape
    more_rows = (1 << (rows - 1).bit_length()) - rows
    more_columns = -length % 16
    if not more_rows and not more_columns:
        return ids, lengths
    return (
        np.pad(ids, ((0, more_rows), (0, more_columns))),
        np.pad(lengths, (0, more_rows), constant_values=1),
    )
