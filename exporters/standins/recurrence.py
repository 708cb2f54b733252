"""A recurrence as data, and the one ONNX operator that it becomes.

Owns the description that every framework's stand-in produces: kind, sizes, directions and the gate
weights in ONNX's order. Knows no framework: weights are numpy arrays. Shapes and the order of gates are
those of https://onnx.ai/onnx/operators/ (RNN, GRU, LSTM): with G gates (1, 3, 4), I inputs, H hidden
units and D directions,

::

    weights            float32[D, G*H, I]   gates i | z,r,h | i,o,f,c stacked on axis 1
    recurrent_weights  float32[D, G*H, H]
    biases             float32[D, 2*G*H]    the input's bias, then the hidden state's
    peepholes          float32[D, 3*H]      i,o,f; LSTM only

The operator takes X float32[length, batch, I] and `sequence_lens` int32[batch], and answers
Y float32[length, D, batch, H] (zero beyond each row's end) and Y_h, Y_c float32[D, batch, H].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float32]


class RecurrenceKind(StrEnum):
    """The recurrent operators of ONNX, by their names there."""

    RNN = "RNN"
    GRU = "GRU"
    LSTM = "LSTM"


GATES = {RecurrenceKind.RNN: 1, RecurrenceKind.GRU: 3, RecurrenceKind.LSTM: 4}
OPERATORS = frozenset(kind.value for kind in RecurrenceKind)
"""The operator types that count as a fused recurrence in a report."""

LOOPS = frozenset({"Loop", "Scan"})
"""The operator types that mean a recurrence which is not fused."""

Attribute = int | str | list[str] | list[float]


class UnsupportedRecurrence(Exception):
    """The recurrence has no ONNX operator; the message says which feature of it stands in the way."""


@dataclass(frozen=True, slots=True)
class Activation:
    """An activation function by its ONNX name, with its constants where it has any."""

    name: str
    alpha: float | None = None
    beta: float | None = None


TANH = Activation("Tanh")
SIGMOID = Activation("Sigmoid")
DEFAULT_ACTIVATIONS = {
    RecurrenceKind.RNN: (TANH,),
    RecurrenceKind.GRU: (SIGMOID, TANH),
    RecurrenceKind.LSTM: (SIGMOID, TANH, TANH),
}
"""Per direction: the gates' function first (GRU, LSTM), then the candidate's, then the output's (LSTM)."""


@dataclass(frozen=True, slots=True)
class Recurrence:
    """One layer of recurrence, in one direction or both. Raises `ValueError` where shapes disagree."""

    kind: RecurrenceKind
    input_size: int
    hidden_size: int
    direction: str  # "forward", "reverse" or "bidirectional"
    weights: Weights = field(repr=False)
    recurrent_weights: Weights = field(repr=False)
    biases: Weights = field(repr=False)
    linear_before_reset: bool = False  # GRU: the reset gate acts after the hidden state's matrix, not before
    peepholes: Weights | None = field(default=None, repr=False)
    activations: tuple[Activation, ...] = ()  # of one direction; empty: the kind's defaults

    def __post_init__(self) -> None:
        if self.direction not in ("forward", "reverse", "bidirectional"):
            raise ValueError(f"direction {self.direction!r}")
        rows = GATES[self.kind] * self.hidden_size
        self._require("weights", self.weights, (self.directions, rows, self.input_size))
        self._require("recurrent_weights", self.recurrent_weights, (self.directions, rows, self.hidden_size))
        self._require("biases", self.biases, (self.directions, 2 * rows))
        if self.peepholes is not None:
            if self.kind is not RecurrenceKind.LSTM:
                raise ValueError(f"peepholes in a {self.kind}")
            self._require("peepholes", self.peepholes, (self.directions, 3 * self.hidden_size))
        if self.linear_before_reset and self.kind is not RecurrenceKind.GRU:
            raise ValueError(f"linear_before_reset in a {self.kind}")
        if self.activations and len(self.activations) != len(DEFAULT_ACTIVATIONS[self.kind]):
            raise ValueError(f"{len(self.activations)} activations in a {self.kind}")

    @property
    def directions(self) -> int:
        """1, or 2 for a bidirectional recurrence."""
        return 2 if self.direction == "bidirectional" else 1

    @property
    def states(self) -> int:
        """Final states that it answers: 2 for an LSTM (h, c), else 1."""
        return 2 if self.kind is RecurrenceKind.LSTM else 1

    @property
    def attributes(self) -> dict[str, Attribute]:
        """The operator's attributes; those at their defaults are left out."""
        attributes: dict[str, Attribute] = {"hidden_size": self.hidden_size, "direction": self.direction}
        if self.linear_before_reset:
            attributes["linear_before_reset"] = 1
        if self.activations not in ((), DEFAULT_ACTIVATIONS[self.kind]):
            functions = self.activations * self.directions
            attributes["activations"] = [function.name for function in functions]
            # ONNX takes the constants of those functions that have any, in the functions' order.
            attributes["activation_alpha"] = [f.alpha for f in functions if f.alpha is not None]
            attributes["activation_beta"] = [f.beta for f in functions if f.beta is not None]
            attributes = {name: value for name, value in attributes.items() if value != []}
        return attributes

    def _require(self, name: str, array: Weights, shape: tuple[int, ...]) -> None:
        if array.shape != shape or array.dtype != np.float32:
            raise ValueError(f"{name}: {array.dtype}{list(array.shape)}, expected float32{list(shape)}")


def reorder(gates: Weights, order: Sequence[int]) -> Weights:
    """Return float32[G*H, ...] with its G equal blocks on axis 0 in another order: block `order[i]` comes i-th."""
    blocks = np.split(gates, len(order), axis=0)
    return np.ascontiguousarray(np.concatenate([blocks[i] for i in order]), dtype=np.float32)


def bidirectional(forward: Recurrence, backward: Recurrence) -> Recurrence:
    """Return both directions as one recurrence; raises `UnsupportedRecurrence` where they are not alike."""
    if (forward.direction, backward.direction) != ("forward", "reverse"):
        raise UnsupportedRecurrence(f"a pair of {forward.direction} and {backward.direction} layers")
    alike = ("kind", "input_size", "hidden_size", "linear_before_reset", "activations")
    for name in alike:
        if getattr(forward, name) != getattr(backward, name):
            raise UnsupportedRecurrence(f"the two directions differ in {name}")
    if (forward.peepholes is None) != (backward.peepholes is None):
        raise UnsupportedRecurrence("the two directions differ in peepholes")
    peepholes = None
    if forward.peepholes is not None and backward.peepholes is not None:
        peepholes = np.concatenate([forward.peepholes, backward.peepholes])
    return Recurrence(
        kind=forward.kind,
        input_size=forward.input_size,
        hidden_size=forward.hidden_size,
        direction="bidirectional",
        weights=np.concatenate([forward.weights, backward.weights]),
        recurrent_weights=np.concatenate([forward.recurrent_weights, backward.recurrent_weights]),
        biases=np.concatenate([forward.biases, backward.biases]),
        linear_before_reset=forward.linear_before_reset,
        peepholes=peepholes,
        activations=forward.activations,
    )
