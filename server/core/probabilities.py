"""From an artifact's outputs to probabilities, and what is none: such a row never leaves the server.

Pure: arrays of a whole batch, a few vectorised passes over `[batch, labels]`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]  # [batch, labels]
Reader = Callable[[Floats], Floats]
"""From outputs to probabilities of the same shape; NaN throughout the rows that hold none."""

ROUNDING = 1e-5
"""How far outside [0, 1] float32's rounding may put a probability, which is then set to the bound."""

SUM_TOLERANCE = 1e-3
"""How far from 1 a row may sum: a softmax computed in half precision is that coarse."""


def reader(output: str, activation: str) -> Reader:
    """Return what reads an artifact's outputs as its manifest says: `output` of what `activation`."""
    if output == "probabilities":
        return _whole if activation == "softmax" else _each
    return _softmax if activation == "softmax" else _sigmoid


def fault(outputs: NDArray[np.float32]) -> str:
    """Say what is wrong with a row's outputs [labels] that hold no probabilities."""
    if not np.isfinite(outputs).all():
        return "NaN or infinity"
    outside = outputs[(outputs < -ROUNDING) | (outputs > 1 + ROUNDING)]
    if len(outside):
        return f"{outside[0]:.4g} as a probability, which is outside 0 to 1"
    return f"probabilities that sum to {outputs.sum(dtype=np.float64):.4g}, not to 1"


def _whole(outputs: Floats) -> Floats:
    """Check rows that are distributions."""
    with np.errstate(invalid="ignore"):
        off = np.abs(outputs.sum(axis=1, dtype=np.float64) - 1)
    return _checked(outputs, off <= SUM_TOLERANCE)


def _each(outputs: Floats) -> Floats:
    """Check rows of labels with a probability of their own."""
    return _checked(outputs, np.ones(len(outputs), dtype=np.bool_))


def _checked(outputs: Floats, sound: NDArray[np.bool_]) -> Floats:
    # A comparison with NaN is false.
    sound = sound & (outputs.min(axis=1) >= -ROUNDING) & (outputs.max(axis=1) <= 1 + ROUNDING)
    result: Floats = np.clip(outputs, 0, 1)
    if not sound.all():
        result[~sound] = np.nan
    return result


def _softmax(logits: Floats) -> Floats:
    with np.errstate(invalid="ignore"):  # infinity has no softmax: the row is then answered as failed
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: Floats = exponentials / exponentials.sum(axis=1, keepdims=True)
    return result


def _sigmoid(logits: Floats) -> Floats:
    # exp of a negative number only: it cannot overflow
    exponentials = np.exp(-np.abs(logits))
    result = np.where(logits >= 0, 1.0, exponentials) / (1.0 + exponentials)
    return result.astype(np.float32, copy=False)
