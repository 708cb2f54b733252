"""What is measured, at which sizes, how often: the settings of the report, and their fingerprint. Pure data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

Kind = Literal["latency", "padding", "epochs", "load"]
KINDS: Final[tuple[Kind, ...]] = ("latency", "padding", "epochs", "load")

MODE_SHAPES: Final = ((1, 32), (32, 64))
"""Rows x tokens at which a source's modes are held against its artifacts: those of the export matrix."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole measurement. The defaults take about a quarter of an hour on two idle cores.

    `all_models` would be measured where they are published; the others name who stands for a framework.
    """

    lengths_alone: tuple[int, ...] = (8, 16, 32, 64, 128, 256)  # tokens of one row
    lengths_together: tuple[int, ...] = (8, 32, 64, 128)  # tokens of each of 32 rows
    rounds: int = 9
    shape_seconds: float = 0.6  # of all rounds of one shape, after the first few

    padding: tuple[str, ...] = ("torch-lstm", "torch-transformer", "keras-lstm", "keras-transformer", "tf1-basiclstm")
    fixed_lengths: tuple[int, ...] = (16, 32, 64, 128, 256)
    padding_texts: int = 384
    padding_rounds: int = 3

    epochs: tuple[str, ...] = ("torch-lstm", "keras-lstm", "tf2-lstm", "tf1-basiclstm")
    epoch_lengths: tuple[int, ...] = (64, 256)
    epoch_texts: int = 2560
    eager_texts: int = 256  # an epoch without graphs is slow

    load: tuple[str, ...] = (
        "torch-lstm",
        "torch-transformer",
        "hf-minilm",
        "keras-lstm",
        "keras-transformer",
        "tf2-lstm",
        "tf2-transformer",
        "tf1-basiclstm",
    )
    load_seconds: float = 3.0  # measured for each backend, all rounds together
    load_rounds: int = 2
    load_callers: int = 32
    load_share: float = 0.5  # of the weakest backend's throughput: the open loop's rate


def fingerprint(kind: Kind, source: str, settings: Mapping[str, Any]) -> str:
    """Return what a measurement is of: the source's fingerprint and the settings that decide the figures."""
    parts = json.dumps([kind, source, dict(settings)], sort_keys=True)
    return hashlib.sha256(parts.encode()).hexdigest()
