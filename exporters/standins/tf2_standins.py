"""Stand-ins for TensorFlow cells that declare themselves, which become ONNX's fused recurrent operators.

A cell written by hand says nothing that a program could read, so a `tf.Module` may: by an attribute
`recurrence` that names its kind, the order of its gates and its variables, and a method `run(inputs, lengths)`
that holds its loop. `docs/exporting-tensorflow.md` gives the form. `run` is what is replaced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from lockstep.exporters.standins.recurrence import Recurrence, RecurrenceKind, UnsupportedRecurrence, reorder
from lockstep.exporters.standins.tensorflow_markers import Markers, mark

if TYPE_CHECKING:
    import tensorflow as tf

_GATES = {RecurrenceKind.RNN: "h", RecurrenceKind.GRU: "z,r,h", RecurrenceKind.LSTM: "i,o,f,c"}
"""In ONNX's order."""


class Declaration(BaseModel):
    """What a cell says of itself; the names are those of attributes that are variables."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["LSTM", "GRU", "RNN"]
    gates: str  # their order in the variables, e.g. "i,f,c,o"
    kernel: str  # float32[inputs, gates * hidden]
    recurrent_kernel: str  # float32[hidden, gates * hidden]
    bias: str | None = None  # float32[gates * hidden]
    recurrent_bias: str | None = None  # added to the recurrent part
    linear_before_reset: bool = False  # GRU: the reset gate acts after the product
    forget_bias: float = 0.0  # LSTM: added to the forget gate's sum at each step

    @property
    def order(self) -> list[int]:
        """Where each of ONNX's gates stands in the variables; raises `UnsupportedRecurrence`."""
        given, wanted = self.gates.split(","), _GATES[RecurrenceKind(self.kind)].split(",")
        if sorted(given) != sorted(wanted):
            raise UnsupportedRecurrence(f"gates {self.gates!r}: those of a {self.kind} are {','.join(wanted)}")
        return [given.index(gate) for gate in wanted]


class Tf2Standins:
    """The declared cells of one module; `describe` fills `markers` once the checkpoint is restored."""

    def __init__(self) -> None:
        self.markers = Markers()
        self._cells: dict[str, tuple[tf.Module, Declaration]] = {}

    @property
    def operators(self) -> int:
        """How many fused operators there will be."""
        return len(self._cells)

    def install(self, module: tf.Module) -> None:
        """Replace `run` of every cell within the module that declares itself, before the module is traced."""
        for cell in (module, *module.submodules):
            declared = getattr(cell, "recurrence", None)
            if not isinstance(declared, dict) or not callable(getattr(cell, "run", None)):
                continue
            try:
                self._replace(cell, Declaration.model_validate(declared))
            except (ValidationError, UnsupportedRecurrence) as error:
                self.markers.left.append(f"{cell.name}: {' '.join(str(error).split())}")

    def describe(self) -> None:
        """Read the variables of every replaced cell."""
        for key, (cell, declared) in self._cells.items():
            self.markers.recurrences[key] = _describe(cell, declared)

    def _replace(self, cell: tf.Module, declared: Declaration) -> None:
        import tensorflow as tf

        for name in filter(None, (declared.kernel, declared.recurrent_kernel, declared.bias, declared.recurrent_bias)):
            if not isinstance(getattr(cell, name, None), tf.Variable):
                raise UnsupportedRecurrence(f"its recurrence names {name!r}, which is no tf.Variable of it")
        _ = declared.order
        key = self.markers.key()
        hidden = int(getattr(cell, declared.recurrent_kernel).shape[0])
        states = 2 if declared.kind == "LSTM" else 1

        def run(inputs: tf.Tensor, lengths: tf.Tensor) -> tuple[tf.Tensor, Any]:
            x = tf.transpose(inputs, [1, 0, 2])
            y, *final = mark(key, x, lengths, [], hidden=hidden, directions=1, states=states)
            ends = tuple(state[0] for state in final)
            return tf.transpose(y[:, 0], [1, 0, 2]), ends if states == 2 else ends[0]

        self._cells[key] = (cell, declared)
        cell.run = run


def _describe(cell: Any, declared: Declaration) -> Recurrence:
    kind, order = RecurrenceKind(declared.kind), declared.order
    kernel = _array(cell, declared.kernel).T
    recurrent = _array(cell, declared.recurrent_kernel).T
    biases = [
        _array(cell, name).copy() if name else np.zeros(len(kernel), dtype=np.float32)
        for name in (declared.bias, declared.recurrent_bias)
    ]
    hidden = recurrent.shape[1]
    if kind is RecurrenceKind.LSTM:
        forget = declared.gates.split(",").index("f") * hidden
        biases[0][forget : forget + hidden] += declared.forget_bias
    return Recurrence(
        kind=kind,
        input_size=kernel.shape[1],
        hidden_size=hidden,
        direction="forward",
        weights=reorder(kernel, order)[None],
        recurrent_weights=reorder(recurrent, order)[None],
        biases=np.concatenate([reorder(bias, order) for bias in biases])[None],
        linear_before_reset=declared.linear_before_reset,
    )


def _array(cell: Any, name: str) -> Any:
    return getattr(cell, name).numpy().astype(np.float32)
