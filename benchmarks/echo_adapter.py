"""An adapter that computes nothing: what remains of a batch is its way to the worker and back. For `benchmarks.hop`."""

from __future__ import annotations

import numpy as np

from lockstep.server.core.artifact import ArtifactSpec, Budget
from lockstep.server.runtimes.base import Ids, Lengths, Outputs


class EchoAdapter:
    """Answers zeros."""

    def __init__(self, labels: int) -> None:
        self._labels = labels

    @classmethod
    def load(cls, artifact: ArtifactSpec, budget: Budget) -> EchoAdapter:
        """Take the number of labels from the artifact; no file is read."""
        return cls(artifact.labels)

    @property
    def versions(self) -> dict[str, str]:
        """None: it has no runtime."""
        return {}

    def execute(self, ids: Ids, lengths: Lengths) -> Outputs:
        """Return float32[batch, labels] of zeros."""
        return np.zeros((len(ids), self._labels), dtype=np.float32)
