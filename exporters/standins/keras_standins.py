"""Stand-ins that carry a mask's lengths through a Keras model and become ONNX's fused recurrent operators.

In a copy of the model each recurrent layer, bidirectional or not, is swapped for a layer whose call is a
marker, which the converter turns into the operator.

A mask may skip steps inside a row: Keras' `mask_zero` masks every id 0, wherever it stands. The operator knows only
where a row ends, so the steps that the mask keeps are moved to the front of the row before it, and its outputs back
after it (`masked_steps`).

Gates, from Keras to ONNX, kernels transposed: SimpleRNN as it is; LSTM i,f,c,o -> i,o,f,c; GRU z,r,h as it
is, with `linear_before_reset` where the layer has `reset_after`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lockstep.exporters.standins.masked_steps import Fill, KeptSteps
from lockstep.exporters.standins.recurrence import (
    SIGMOID,
    TANH,
    Activation,
    Recurrence,
    RecurrenceKind,
    UnsupportedRecurrence,
    bidirectional,
    reorder,
)
from lockstep.exporters.standins.tensorflow_markers import Markers, batch_first, mark

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

_ACTIVATIONS = {
    "tanh": TANH,
    "sigmoid": SIGMOID,
    "relu": Activation("Relu"),
    "linear": Activation("Affine", alpha=1.0, beta=0.0),
    "softsign": Activation("Softsign"),
    "hard_sigmoid": Activation("HardSigmoid", alpha=1 / 6, beta=0.5),
}
"""Keras' name -> ONNX's function."""


def swap(layer: keras.Layer, markers: Markers) -> keras.Layer:
    """Return the stand-in of a recurrent layer, and any other layer as it is."""
    import keras

    if not isinstance(layer, keras.layers.RNN | keras.layers.Bidirectional):
        return layer
    try:
        recurrence = describe(layer)
    except UnsupportedRecurrence as error:
        markers.left.append(f"{layer.name}: {error}")
        return layer
    key = markers.key()
    markers.recurrences[key] = recurrence
    return _stand_in(layer, recurrence, key)


def describe(layer: Any) -> Recurrence:
    """Describe a recurrent layer or a `Bidirectional`; raises `UnsupportedRecurrence`."""
    import keras

    if isinstance(layer, keras.layers.Bidirectional):
        if layer.forward_layer.go_backwards or not layer.backward_layer.go_backwards:
            raise UnsupportedRecurrence("a Bidirectional whose directions are not forward, backward")
        return bidirectional(describe(layer.forward_layer), describe(layer.backward_layer))
    if layer.stateful:
        raise UnsupportedRecurrence("a stateful layer remembers the batch before")
    cell = layer.cell
    kinds = {
        keras.layers.SimpleRNNCell: RecurrenceKind.RNN,
        keras.layers.GRUCell: RecurrenceKind.GRU,
        keras.layers.LSTMCell: RecurrenceKind.LSTM,
    }
    if type(cell) not in kinds:  # a subclass may compute anything
        raise UnsupportedRecurrence(f"a cell of type {type(cell).__name__}")
    kind = kinds[type(cell)]
    order = {RecurrenceKind.RNN: (0,), RecurrenceKind.GRU: (0, 1, 2), RecurrenceKind.LSTM: (0, 3, 1, 2)}[kind]
    weights = reorder(_array(cell.kernel).T, order)
    recurrent_weights = reorder(_array(cell.recurrent_kernel).T, order)
    # A GRU with reset_after has two biases, of the input and of the hidden state; the others only the first.
    biases = np.zeros((2, len(weights)), dtype=np.float32)
    if cell.use_bias:
        given = np.atleast_2d(_array(cell.bias))
        for row, bias in enumerate(given):
            biases[row] = reorder(bias, order)
    return Recurrence(
        kind=kind,
        input_size=weights.shape[1],
        hidden_size=cell.units,
        direction="reverse" if layer.go_backwards else "forward",
        weights=weights[None],
        recurrent_weights=recurrent_weights[None],
        biases=biases.reshape(1, -1),
        linear_before_reset=kind is RecurrenceKind.GRU and bool(cell.reset_after),
        activations=_activations(kind, cell),
    )


def _activations(kind: RecurrenceKind, cell: Any) -> tuple[Activation, ...]:
    candidate = _activation(cell.activation)
    if kind is RecurrenceKind.RNN:
        return (candidate,)
    gates = _activation(cell.recurrent_activation)
    return (gates, candidate) if kind is RecurrenceKind.GRU else (gates, candidate, candidate)


def _activation(function: Any) -> Activation:
    name = getattr(function, "__name__", str(function))
    if name not in _ACTIVATIONS:
        raise UnsupportedRecurrence(f"the activation {name}")
    return _ACTIVATIONS[name]


def _array(variable: Any) -> Any:
    return np.asarray(variable, dtype=np.float32)


def _stand_in(layer: Any, recurrence: Recurrence, key: str) -> keras.Layer:
    """Return a layer that takes and answers what `layer` does, its recurrence a marker."""
    import keras
    import tensorflow as tf

    both = recurrence.directions == 2
    hidden = recurrence.hidden_size

    def fill(recurrence: Recurrence) -> Fill:
        if getattr(layer, "zero_output_for_mask", False):
            return Fill.ZERO
        return Fill.NEXT if recurrence.direction == "reverse" else Fill.PREVIOUS

    class StandIn(keras.layers.Layer):  # type: ignore[misc]  # the framework has no types here
        """One marker, with time first inside as the operator wants it."""

        def __init__(self) -> None:
            super().__init__(name=layer.name)
            self.supports_masking = True

        def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
            return layer.compute_mask(inputs, mask)

        def call(self, sequences: Any, initial_state: Any = None, mask: Any = None) -> Any:
            steps = None if mask is None else KeptSteps(mask)
            sequences = tf.cast(sequences, tf.float32)
            lengths = None if steps is None else steps.lengths
            x = tf.transpose(sequences if steps is None else steps.to_front(sequences), [1, 0, 2])
            y, *final = mark(
                key,
                x,
                lengths,
                _initial(recurrence, initial_state),
                hidden=hidden,
                directions=recurrence.directions,
                states=recurrence.states,
            )
            # y: [length, directions, batch, hidden]; final: [directions, batch, hidden] each
            ends = [state[direction] for direction in range(recurrence.directions) for state in final]
            if layer.return_sequences:
                outputs = [tf.transpose(y[:, d], [1, 0, 2]) for d in range(recurrence.directions)]
                if steps is not None and not both:
                    outputs = [steps.back(outputs[0], fill(recurrence))]
                if recurrence.direction == "reverse":
                    # Keras answers the steps of a backward layer in the order that they were taken.
                    outputs = [tf.reverse(outputs[0], axis=[1])]
            else:
                outputs = [ends[0], ends[recurrence.states]] if both else [ends[0]]
            merged = _merge(layer.merge_mode, y, outputs, layer.return_sequences, hidden) if both else outputs[0]
            if both and layer.return_sequences and steps is not None:
                # A Bidirectional's directions answer zeros at masked steps, which every way of merging keeps.
                parts = [steps.back(part, Fill.ZERO) for part in (merged if isinstance(merged, tuple) else (merged,))]
                merged = tuple(parts) if isinstance(merged, tuple) else parts[0]
            if not layer.return_state:
                return merged
            return (*merged, *ends) if isinstance(merged, tuple) else (merged, *ends)

    return StandIn()


def _initial(recurrence: Recurrence, given: Any) -> list[tf.Tensor]:
    """Return initial states [directions, batch, hidden] from Keras' list: one direction's, then the other's."""
    import tensorflow as tf

    if given is None:
        return []
    states = list(given) if isinstance(given, list | tuple) else [given]
    return [tf.stack(states[state :: recurrence.states]) for state in range(recurrence.states)]


def _merge(mode: str | None, y: tf.Tensor, outputs: list[tf.Tensor], sequences: bool, hidden: int) -> Any:
    import tensorflow as tf

    if mode == "concat" and sequences:
        return batch_first(y, hidden)
    forward, backward = outputs
    if mode == "concat":
        return tf.concat([forward, backward], axis=-1)
    if mode == "sum":
        return forward + backward
    if mode == "ave":
        return (forward + backward) / 2
    if mode == "mul":
        return forward * backward
    return (forward, backward)
