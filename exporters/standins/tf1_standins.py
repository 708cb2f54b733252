"""Stand-ins that carry the lengths through a TensorFlow 1 graph and become ONNX's fused recurrent operators.

While the author's graph is built again, `dynamic_rnn` and `bidirectional_dynamic_rnn` are swapped for functions
that have the framework make each cell's variables, under the names that the checkpoint knows, and put a marker
in the loop's place. Once the checkpoint is restored, each marker's cell is described.

Gates, from TensorFlow 1 to ONNX, kernels split into the input's rows and the state's, then transposed: LSTM
i,j,f,o -> i,o,f,c, with the forget bias added to f's; GRU r,u and the candidate -> z,r,h, the reset gate before
the product; peepholes i,o,f.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lockstep.exporters.standins.rebinding import copied, rebound
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
from lockstep.exporters.standins.tensorflow_markers import Markers, mark

if TYPE_CHECKING:
    import tensorflow as tf

_ACTIVATIONS = {"tanh": TANH, "sigmoid": SIGMOID, "relu": Activation("Relu")}
_KINDS = {
    "BasicRNNCell": RecurrenceKind.RNN,
    "GRUCell": RecurrenceKind.GRU,
    "BasicLSTMCell": RecurrenceKind.LSTM,
    "LSTMCell": RecurrenceKind.LSTM,
}


@dataclass(frozen=True, slots=True)
class _Leaf:
    """A cell that is one operator."""

    cell: Any
    kind: RecurrenceKind
    hidden: int

    @property
    def states(self) -> int:
        return 2 if self.kind is RecurrenceKind.LSTM else 1


class Tf1Standins:
    """What stands in for the loops of one graph; `describe` fills `markers` once variables have values."""

    def __init__(self) -> None:
        self.markers = Markers()
        self._cells: dict[str, tuple[_Leaf, ...]] = {}  # of one direction, or of both
        self._directions: dict[str, str] = {}

    @property
    def operators(self) -> int:
        """How many fused operators there will be."""
        return len(self._cells)

    def describe(self, session: tf.compat.v1.Session) -> None:
        """Read every marked cell's variables; raises `UnsupportedRecurrence`."""
        for key, leaves in self._cells.items():
            direction = self._directions[key]
            if direction == "bidirectional":
                forward, backward = leaves
                both = bidirectional(_describe(forward, "forward", session), _describe(backward, "reverse", session))
                self.markers.recurrences[key] = both
            else:
                self.markers.recurrences[key] = _describe(leaves[0], direction, session)

    @contextmanager
    def standing_in(self) -> Iterator[None]:
        """Have every call of the loops' functions make markers, where their cells are known."""
        from tensorflow.python.ops import rnn

        loop, both_loops = copied(rnn.dynamic_rnn), copied(rnn.bidirectional_dynamic_rnn)

        def dynamic_rnn(cell: Any, inputs: Any, *arguments: Any, **named: Any) -> Any:
            try:
                leaves = _leaves(cell)
            except UnsupportedRecurrence as error:
                self.markers.left.append(str(error))
                return loop(cell, inputs, *arguments, **named)
            return self._dynamic_rnn(cell, leaves, inputs, *arguments, **named)

        def bidirectional_dynamic_rnn(cell_fw: Any, cell_bw: Any, inputs: Any, *arguments: Any, **named: Any) -> Any:
            try:
                leaves = _leaves(cell_fw), _leaves(cell_bw)
            except UnsupportedRecurrence as error:
                self.markers.left.append(str(error))
                return both_loops(cell_fw, cell_bw, inputs, *arguments, **named)
            return self._bidirectional(cell_fw, cell_bw, leaves, inputs, *arguments, **named)

        replacements: dict[Callable[..., Any], Callable[..., Any]] = {
            rnn.dynamic_rnn: dynamic_rnn,
            rnn.bidirectional_dynamic_rnn: bidirectional_dynamic_rnn,
        }
        with rebound(replacements):
            yield

    def _dynamic_rnn(
        self,
        cell: Any,
        leaves: Sequence[_Leaf],
        inputs: tf.Tensor,
        sequence_length: Any = None,
        initial_state: Any = None,
        dtype: Any = None,
        parallel_iterations: Any = None,
        swap_memory: bool = False,
        time_major: bool = False,
        scope: Any = None,
    ) -> tuple[Any, Any]:
        import tensorflow as tf

        del dtype, parallel_iterations, swap_memory  # how the loop runs, not what it answers
        with tf.compat.v1.variable_scope(scope or "rnn"):
            x = _time_first(inputs, time_major)
            _make_variables(cell, x)
            y, ends = self._stack(leaves, x, sequence_length, _split(leaves, initial_state), "forward")
        return (y if time_major else tf.transpose(y, [1, 0, 2])), _joined(cell, ends)

    def _bidirectional(
        self,
        cell_fw: Any,
        cell_bw: Any,
        leaves: tuple[Sequence[_Leaf], Sequence[_Leaf]],
        inputs: tf.Tensor,
        sequence_length: Any = None,
        initial_state_fw: Any = None,
        initial_state_bw: Any = None,
        dtype: Any = None,
        parallel_iterations: Any = None,
        swap_memory: bool = False,
        time_major: bool = False,
        scope: Any = None,
    ) -> tuple[Any, Any]:
        import tensorflow as tf

        del dtype, parallel_iterations, swap_memory
        cells = (cell_fw, cell_bw)
        initial = [
            _split(side, state) for side, state in zip(leaves, (initial_state_fw, initial_state_bw), strict=True)
        ]
        with tf.compat.v1.variable_scope(scope or "bidirectional_rnn"):
            x = _time_first(inputs, time_major)
            for name, cell in zip(("fw", "bw"), cells, strict=True):
                with tf.compat.v1.variable_scope(name):
                    _make_variables(cell, x)
            if _alike(*leaves) and not any(initial):
                ys, ends = self._together(leaves[0][0], leaves[1][0], x, sequence_length)
            else:
                answers = [
                    self._stack(side, x, sequence_length, states, direction)
                    for side, states, direction in zip(leaves, initial, ("forward", "reverse"), strict=True)
                ]
                ys, ends = [y for y, _ in answers], [end for _, end in answers]
        outputs = tuple(y if time_major else tf.transpose(y, [1, 0, 2]) for y in ys)
        return outputs, tuple(_joined(cell, end) for cell, end in zip(cells, ends, strict=True))

    def _stack(
        self, leaves: Sequence[_Leaf], x: tf.Tensor, lengths: Any, initial: list[list[Any]], direction: str
    ) -> tuple[tf.Tensor, list[list[tf.Tensor]]]:
        """Mark one operator a cell; return the steps' outputs and each cell's final states, h first."""
        ends = []
        for place, leaf in enumerate(leaves):
            key = self._mark(direction, leaf)
            given = [state[None] for state in initial[place]] if initial else []
            y, *final = mark(key, x, lengths, given, hidden=leaf.hidden, directions=1, states=leaf.states)
            x = y[:, 0]
            ends.append([state[0] for state in final])
        return x, ends

    def _together(
        self, forward: _Leaf, backward: _Leaf, x: tf.Tensor, lengths: Any
    ) -> tuple[list[tf.Tensor], list[list[list[tf.Tensor]]]]:
        key = self._mark("bidirectional", forward, backward)
        y, *final = mark(key, x, lengths, [], hidden=forward.hidden, directions=2, states=forward.states)
        return [y[:, 0], y[:, 1]], [[[state[side] for state in final]] for side in (0, 1)]

    def _mark(self, direction: str, *leaves: _Leaf) -> str:
        key = self.markers.key()
        self._cells[key] = leaves
        self._directions[key] = direction
        return key


def _leaves(cell: Any) -> tuple[_Leaf, ...]:
    """Return the cells of a stack, the lowest first; raises `UnsupportedRecurrence`."""
    from tf_keras.src.layers.rnn import legacy_cell_wrappers as wrappers
    from tf_keras.src.layers.rnn import legacy_cells as cells

    if type(cell) is cells.MultiRNNCell:
        if not cell._state_is_tuple:
            raise UnsupportedRecurrence("a MultiRNNCell whose state is no tuple")
        return tuple(leaf for one in cell._cells for leaf in _leaves(one))
    if type(cell) is wrappers.DropoutWrapper:
        for share in ("input", "state", "output"):
            if getattr(cell, f"_{share}_keep_prob") != 1.0:
                raise UnsupportedRecurrence("a DropoutWrapper that drops, in a graph that is to be served")
        return _leaves(cell.cell)
    if type(cell) is wrappers.DeviceWrapper:
        return _leaves(cell.cell)
    known = {getattr(cells, name): kind for name, kind in _KINDS.items()}
    if type(cell) not in known:  # a subclass may compute anything
        raise UnsupportedRecurrence(f"a cell of type {type(cell).__name__}")
    for feature in ("num_proj", "cell_clip", "proj_clip"):
        if getattr(cell, f"_{feature}", None) is not None:
            raise UnsupportedRecurrence(f"a cell with {feature}")
    name = getattr(cell._activation, "__name__", str(cell._activation))
    if name not in _ACTIVATIONS:
        raise UnsupportedRecurrence(f"the activation {name}")
    return (_Leaf(cell, known[type(cell)], cell._num_units),)


def _describe(leaf: _Leaf, direction: str, session: tf.compat.v1.Session) -> Recurrence:
    cell, hidden = leaf.cell, leaf.hidden
    candidate = _ACTIVATIONS[getattr(cell._activation, "__name__", str(cell._activation))]
    peepholes = None
    activations: tuple[Activation, ...]
    if leaf.kind is RecurrenceKind.GRU:
        gates, gate_bias, kernel, bias = session.run(
            [cell._gate_kernel, cell._gate_bias, cell._candidate_kernel, cell._candidate_bias]
        )
        r, u = np.split(gates, 2, axis=1)
        together = np.concatenate([u, r, kernel], axis=1)
        bias = np.concatenate([gate_bias[hidden:], gate_bias[:hidden], bias])
        order: tuple[int, ...] = (0, 1, 2)
        activations = (SIGMOID, candidate)
    else:
        together, bias = session.run([cell._kernel, cell._bias])
        order, activations = (0,), (candidate,)
        if leaf.kind is RecurrenceKind.LSTM:
            bias = bias.copy()
            bias[2 * hidden : 3 * hidden] += cell._forget_bias
            order, activations = (0, 3, 2, 1), (SIGMOID, candidate, candidate)
            if getattr(cell, "_use_peepholes", False):
                i, o, f = session.run([cell._w_i_diag, cell._w_o_diag, cell._w_f_diag])
                peepholes = np.concatenate([i, o, f])[None].astype(np.float32)
    inputs = len(together) - hidden
    biases = np.concatenate([reorder(bias, order), np.zeros_like(bias)])
    return Recurrence(
        kind=leaf.kind,
        input_size=inputs,
        hidden_size=hidden,
        direction=direction,
        weights=reorder(together[:inputs].T, order)[None],
        recurrent_weights=reorder(together[inputs:].T, order)[None],
        biases=biases[None].astype(np.float32),
        peepholes=peepholes,
        activations=activations,
    )


def _make_variables(cell: Any, x: tf.Tensor) -> None:
    """Have the cell take a step, as its loop would: that makes its variables, and no answer depends on the step."""
    cell(x[0], cell.zero_state(x.shape[1] or _rows(x), x.dtype))


def _rows(x: tf.Tensor) -> tf.Tensor:
    import tensorflow as tf

    return tf.shape(x)[1]


def _time_first(inputs: tf.Tensor, time_major: bool) -> tf.Tensor:
    import tensorflow as tf

    return inputs if time_major else tf.transpose(inputs, [1, 0, 2])


def _alike(forward: Sequence[_Leaf], backward: Sequence[_Leaf]) -> bool:
    """Return whether both directions are one cell each that one operator can be."""
    if len(forward) != 1 or len(backward) != 1:
        return False
    one, other = forward[0], backward[0]
    return (one.kind, one.hidden, *_features(one.cell)) == (other.kind, other.hidden, *_features(other.cell))


def _features(cell: Any) -> tuple[Any, ...]:
    return getattr(cell._activation, "__name__", ""), getattr(cell, "_use_peepholes", False)


def _split(leaves: Sequence[_Leaf], state: Any) -> list[list[Any]]:
    """Return each cell's initial states, h before c; nothing where none is given."""
    if state is None:
        return []
    states = state if len(leaves) > 1 else (state,)
    return [_h_first(leaf, one) for leaf, one in zip(leaves, states, strict=True)]


def _h_first(leaf: _Leaf, state: Any) -> list[Any]:
    import tensorflow as tf

    if leaf.kind is not RecurrenceKind.LSTM:
        return [state]
    c, h = state if isinstance(state, tuple) else tf.split(state, 2, axis=1)
    return [h, c]


def _joined(cell: Any, ends: list[list[Any]]) -> Any:
    """Return the final states in the form that this cell answers."""
    remaining = iter(ends)

    def join(one: Any) -> Any:
        import tensorflow as tf
        from tf_keras.src.layers.rnn import legacy_cells

        if hasattr(one, "_cells"):
            return tuple(join(inner) for inner in one._cells)
        if hasattr(one, "cell"):
            return join(one.cell)
        h, *c = next(remaining)
        if not c:
            return h
        return legacy_cells.LSTMStateTuple(c[0], h) if one._state_is_tuple else tf.concat([c[0], h], 1)

    return join(cell)
