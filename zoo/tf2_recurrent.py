"""The recurrent TensorFlow models: a `tf.Module` each, with no Keras, as any user would write them.

Owns their architectures. Knows nothing of training and nothing of export. Each `build` function takes no
argument and returns an untrained module whose `__call__` is a `tf.function` from `input_ids`
int64[batch, length] and `lengths` int64[batch] to logits float32[batch, labels].
A checkpoint is `tf.train.Checkpoint(model=module)`.

A cell written by hand says nothing that a program could read, so each declares itself, by an attribute that
needs no import: an exporter that knows it may put a fused operator in the place of the cell's loop. Any
`tf.Module`, the model itself or one inside it, may carry

    recurrence = {
        "kind": "LSTM",                            # "LSTM", "GRU" or "RNN"
        "gates": "i,f,c,o",                        # their order in the variables: of i,f,c,o; of z,r,h; h
        "kernel": "kernel",                        # names of attributes that are tf.Variables:
        "recurrent_kernel": "recurrent_kernel",    #   float32[inputs, gates * hidden], [hidden, gates * hidden]
        "bias": "bias",                            #   float32[gates * hidden]
        "recurrent_bias": "recurrent_bias",        #   optional: added to the recurrent part, same shape
        "linear_before_reset": True,               # optional, GRU: r scales (h R + recurrent bias), not h
        "forget_bias": 0.0,                        # optional, LSTM: added to f's sum at each step
    }

    def run(self, inputs, lengths):    # float32[batch, length, inputs], int64[batch]
        ...
        return outputs, final_state    # float32[batch, length, hidden]; h, or (h, c) of an LSTM

where the activations are the usual ones (sigmoid for gates, tanh for h and c), the update of a GRU is
h' = (1 - z) * candidate + z * h, a row's state stays as it is once the row has ended, and outputs beyond its
end are zero. `run` holds the loop and nothing else: it is what is replaced.
"""

from __future__ import annotations

from typing import Any, ClassVar

import tensorflow as tf

from lockstep.zoo.corpus import LABELS
from lockstep.zoo.tf2_layers import IDS, LENGTHS, Dense, dropped, glorot
from lockstep.zoo.tokenizer import VOCABULARY_TOKENS

EMBEDDING = 64
HIDDEN = 64
DROPOUT = 0.3
FORGET_BIAS = 1.0

_VARIABLES = {"kernel": "kernel", "recurrent_kernel": "recurrent_kernel", "bias": "bias"}


class Recurrence(tf.Module):  # type: ignore[misc]
    """A cell's variables, and the loop that steps it through time. Subclasses say what a step is."""

    recurrence: ClassVar[dict[str, Any]]
    states = 1

    def __init__(self, inputs: int, units: int, gates: int) -> None:
        super().__init__(name=type(self).__name__.lower())
        self.units = units
        self.kernel = tf.Variable(glorot(inputs, gates * units), name="kernel")
        rotations = [tf.linalg.qr(tf.random.normal([units, units]))[0] for _ in range(gates)]
        self.recurrent_kernel = tf.Variable(tf.concat(rotations, axis=1), name="recurrent_kernel")
        self.bias = tf.Variable(tf.zeros(gates * units), name="bias")

    def step(self, projected: tf.Tensor, *state: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Return the next state, `h` first, of a step's input part float32[batch, gates * units]."""
        raise NotImplementedError

    def run(self, inputs: tf.Tensor, lengths: tf.Tensor) -> tuple[tf.Tensor, Any]:
        """Step the cell over each row to its end; see the module's own words for the shapes."""
        # All steps' input parts at once, then time first: a step reads one slice of the array.
        projected = tf.transpose(tf.tensordot(inputs, self.kernel, axes=1) + self.bias, [1, 0, 2])
        length, batch = tf.shape(projected)[0], tf.shape(projected)[1]
        steps = tf.TensorArray(tf.float32, size=length, element_shape=[None, projected.shape[2]]).unstack(projected)
        outputs = tf.TensorArray(tf.float32, size=length, element_shape=[None, self.units])

        def body(t: tf.Tensor, outputs: tf.TensorArray, *state: tf.Tensor) -> tuple[Any, ...]:
            inside = (tf.cast(t, tf.int64) < lengths)[:, tf.newaxis]
            answered = self.step(steps.read(t), *state)
            kept = [tf.where(inside, new, old) for new, old in zip(answered, state, strict=True)]
            return t + 1, outputs.write(t, tf.where(inside, kept[0], 0.0)), *kept

        zero = tf.zeros([batch, self.units])
        _, outputs, *state = tf.while_loop(
            lambda t, *_: t < length,
            body,
            (tf.constant(0), outputs, *[zero] * self.states),
            shape_invariants=(
                tf.TensorShape([]),
                tf.TensorShape(None),
                *[tf.TensorShape([None, self.units])] * self.states,
            ),
        )
        return tf.transpose(outputs.stack(), [1, 0, 2]), state[0] if self.states == 1 else tuple(state)


class Rnn(Recurrence):
    """The simplest: h' = tanh(x W + h R + b)."""

    recurrence: ClassVar[dict[str, Any]] = {"kind": "RNN", "gates": "h", **_VARIABLES}

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__(inputs, units, gates=1)

    def step(self, projected: tf.Tensor, *state: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Return the next (h,)."""
        (h,) = state
        return (tf.tanh(projected + tf.matmul(h, self.recurrent_kernel)),)


class Gru(Recurrence):
    """A GRU whose reset gate scales the product, so that one matrix product a step is enough."""

    recurrence: ClassVar[dict[str, Any]] = {
        "kind": "GRU",
        "gates": "z,r,h",
        **_VARIABLES,
        "recurrent_bias": "recurrent_bias",
        "linear_before_reset": True,
    }

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__(inputs, units, gates=3)
        self.recurrent_bias = tf.Variable(tf.zeros(3 * units), name="recurrent_bias")

    def step(self, projected: tf.Tensor, *state: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Return the next (h,)."""
        (h,) = state
        x_z, x_r, x_h = tf.split(projected, 3, axis=1)
        h_z, h_r, h_h = tf.split(tf.matmul(h, self.recurrent_kernel) + self.recurrent_bias, 3, axis=1)
        z = tf.sigmoid(x_z + h_z)
        candidate = tf.tanh(x_h + tf.sigmoid(x_r + h_r) * h_h)
        return ((1 - z) * candidate + z * h,)


class Lstm(Recurrence):
    """An LSTM. Its forget gate starts open: the 1.0 is part of the variable, not added at each step."""

    recurrence: ClassVar[dict[str, Any]] = {"kind": "LSTM", "gates": "i,f,c,o", **_VARIABLES}
    states = 2

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__(inputs, units, gates=4)
        self.bias.assign(tf.concat([tf.zeros(units), tf.fill([units], FORGET_BIAS), tf.zeros(2 * units)], axis=0))

    def step(self, projected: tf.Tensor, *state: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Return the next (h, c)."""
        h, c = state
        i, f, candidate, o = tf.split(projected + tf.matmul(h, self.recurrent_kernel), 4, axis=1)
        c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(candidate)
        return tf.sigmoid(o) * tf.tanh(c), c


class Classifier(tf.Module):  # type: ignore[misc]
    """An embedding, a recurrence, a linear head on its final state."""

    def __init__(self, recurrent: Recurrence) -> None:
        super().__init__(name="classifier")
        self.embedding = tf.Variable(tf.random.normal([VOCABULARY_TOKENS, EMBEDDING], stddev=0.1), name="embedding")
        self.recurrent = recurrent
        self.head = Dense(recurrent.units, len(LABELS), name="head")

    @tf.function(input_signature=(IDS, LENGTHS))  # type: ignore[untyped-decorator]
    def __call__(self, input_ids: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        """Map int64[batch, length] and int64[batch] to logits float32[batch, labels]."""
        return self.logits(input_ids, lengths, dropout=0.0)

    def logits(self, input_ids: tf.Tensor, lengths: tf.Tensor, dropout: float = DROPOUT) -> tf.Tensor:
        """Compute the logits; a training calls this, with its dropout."""
        embedded = dropped(tf.gather(self.embedding, input_ids), dropout)
        _, state = self.recurrent.run(embedded, lengths)
        h = state[0] if isinstance(state, tuple) else state
        return self.head(dropped(h, dropout))


def rnn() -> tf.Module:
    """Build `tf2-rnn`."""
    return Classifier(Rnn(EMBEDDING, HIDDEN))


def gru() -> tf.Module:
    """Build `tf2-gru`."""
    return Classifier(Gru(EMBEDDING, HIDDEN))


def lstm() -> tf.Module:
    """Build `tf2-lstm`."""
    return Classifier(Lstm(EMBEDDING, HIDDEN))
