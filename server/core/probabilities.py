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
    if outputs.min() >= 0 and outputs.max() <= 1 and np.abs(_sums(outputs) - 1).max() <= SUM_TOLERANCE:
        return outputs  # as almost always
    with np.errstate(invalid="ignore"):
        return _checked(outputs, np.abs(_sums(outputs) - 1) <= SUM_TOLERANCE)


def _each(outputs: Floats) -> Floats:
    """Check rows of labels with a probability of their own."""
    if outputs.min() >= 0 and outputs.max() <= 1:
        return outputs
    return _checked(outputs, np.ones(len(outputs), dtype=np.bool_))


def _sums(outputs: Floats) -> Floats:
    # A sum along an axis of two takes five times as long.
    sums: Floats = outputs @ np.ones(outputs.shape[1], dtype=np.float32)
    return sums


def _checked(outputs: Floats, sound: NDArray[np.bool_]) -> Floats:
    """Set what rounding put outside [0, 1] to the bound, and rows of anything else to NaN."""
    # A comparison with NaN is false.
    sound = sound & (outputs.min(axis=1) >= -ROUNDING) & (outputs.max(axis=1) <= 1 + ROUNDING)
    result: Floats = np.clip(outputs, 0, 1)
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
