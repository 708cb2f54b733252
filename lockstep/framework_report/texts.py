"""Held-out texts as a published model's own tokenizer cuts them: rows, labels and which are sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lockstep.exporters.gate import held_out as reader
from lockstep.framework_report.measurement import MeasuringFailed
from lockstep.server.repository.catalog import PublishedModel
from lockstep.server.text.encoder import TextEncoder

Row = NDArray[np.int64]  # int64[length]


@dataclass(frozen=True, slots=True)
class HeldOutTexts:
    """Texts in the file's order, cut at the model's maximum."""

    rows: tuple[Row, ...]
    labels: NDArray[np.int64]  # int64[rows]; -1: the file has none

    def sample(self, count: int, seed: int = 7) -> HeldOutTexts:
        """Return so many of them, drawn without replacement in a random order; all in that order if there are fewer."""
        chosen = np.random.default_rng(seed).permutation(len(self.rows))[:count]
        return HeldOutTexts(tuple(self.rows[index] for index in chosen), self.labels[chosen])


def held_out(model: PublishedModel, path: Path, max_tokens: int | None = None) -> HeldOutTexts:
    """Read the texts, cut at `max_tokens` (the model's own maximum by default). Raises `MeasuringFailed`.

    A cut text ends with the tokenizer's own last token, as every text of the model does.
    """
    limit = model.manifest.max_tokens if max_tokens is None else max_tokens
    try:
        encoder = TextEncoder.from_file(model.tokenizer, limit, model.manifest.truncation_side)
        read = reader.read(path, encoder, model.manifest.labels)
    except (reader.HeldOutError, ValueError) as error:
        raise MeasuringFailed(str(error)) from error
    return HeldOutTexts(read.rows, read.labels)


def held_out_rows(model: PublishedModel, path: Path) -> Sequence[Row]:
    """Return the rows alone."""
    return held_out(model, path).rows
