"""The TensorFlow models: a `tf.Module` each, with no Keras, as any user would write them.

Owns their architectures. Knows nothing of training and nothing of export. Each `build` function takes no
argument and returns an untrained module whose `__call__` is a `tf.function` from `input_ids`
int64[batch, length] and `lengths` int64[batch] to logits float32[batch, labels].
A checkpoint is `tf.train.Checkpoint(model=module)`.
"""

from __future__ import annotations

import tensorflow as tf

from zoo.corpus import LABELS
from zoo.tokenizer import VOCABULARY_TOKENS

EMBEDDING = 64
HIDDEN = 64
DROPOUT = 0.3
FORGET_BIAS = 1.0

SIGNATURE = (
    tf.TensorSpec([None, None], tf.int64, name="input_ids"),
    tf.TensorSpec([None], tf.int64, name="lengths"),
)


class LstmCell(tf.Module):  # type: ignore[misc]
    """One step of an LSTM, written by hand. The gates stand in the order i, f, g, o."""

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__(name="lstm_cell")
        gates = 4 * units
        self.units = units
        self.kernel = tf.Variable(_glorot(inputs, gates), name="kernel")  # float32[inputs, 4 * units]
        self.recurrent = tf.Variable(_glorot(units, gates), name="recurrent")  # float32[units, 4 * units]
        # The forget gate starts open; its 1.0 is part of the variable, not added at each step.
        bias = tf.concat([tf.zeros(units), tf.fill([units], FORGET_BIAS), tf.zeros(2 * units)], axis=0)
        self.bias = tf.Variable(bias, name="bias")  # float32[4 * units]

    def project(self, inputs: tf.Tensor) -> tf.Tensor:
        """Map float32[..., inputs] to the gates' input part, float32[..., 4 * units]: all steps at once."""
        return tf.tensordot(inputs, self.kernel, axes=1) + self.bias

    def step(self, projected: tf.Tensor, h: tf.Tensor, c: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the next (h, c), float32[batch, units] each."""
        i, f, g, o = tf.split(projected + tf.matmul(h, self.recurrent), 4, axis=1)
        c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
        return tf.sigmoid(o) * tf.tanh(c), c


class Lstm(tf.Module):  # type: ignore[misc]
    """One LSTM under `tf.while_loop`, its final state, a linear head.

    A row's state is frozen once the row has ended, so that what stands in the padding changes nothing.
    """

    def __init__(self) -> None:
        super().__init__(name="tf2_lstm")
        self.embedding = tf.Variable(tf.random.normal([VOCABULARY_TOKENS, EMBEDDING], stddev=0.1), name="embedding")
        self.cell = LstmCell(EMBEDDING, HIDDEN)
        self.head = tf.Variable(_glorot(HIDDEN, len(LABELS)), name="head")
        self.head_bias = tf.Variable(tf.zeros(len(LABELS)), name="head_bias")

    @tf.function(input_signature=SIGNATURE)  # type: ignore[untyped-decorator]
    def __call__(self, input_ids: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        """Map int64[batch, length] and int64[batch] to logits float32[batch, labels]."""
        return self.logits(input_ids, lengths, dropout=0.0)

    def logits(self, input_ids: tf.Tensor, lengths: tf.Tensor, dropout: float = DROPOUT) -> tf.Tensor:
        """Compute the logits; a training calls this, with its dropout."""
        embedded = tf.gather(self.embedding, input_ids)
        if dropout:
            embedded = tf.nn.dropout(embedded, dropout)
        # Time first: a step reads one slice of the array, float32[batch, 4 * units].
        gates = tf.transpose(self.cell.project(embedded), [1, 0, 2])
        steps = tf.TensorArray(tf.float32, size=tf.shape(gates)[0], element_shape=[None, gates.shape[2]])
        steps = steps.unstack(gates)
        zero = tf.zeros([tf.shape(input_ids)[0], self.cell.units])

        def body(t: tf.Tensor, h: tf.Tensor, c: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            next_h, next_c = self.cell.step(steps.read(t), h, c)
            inside = (tf.cast(t, tf.int64) < lengths)[:, tf.newaxis]
            return t + 1, tf.where(inside, next_h, h), tf.where(inside, next_c, c)

        _, h, _ = tf.while_loop(
            lambda t, h, c: t < tf.shape(gates)[0],
            body,
            (tf.constant(0), zero, zero),
            shape_invariants=(
                tf.TensorShape([]),
                tf.TensorShape([None, self.cell.units]),
                tf.TensorShape([None, self.cell.units]),
            ),
        )
        if dropout:
            h = tf.nn.dropout(h, dropout)
        return tf.matmul(h, self.head) + self.head_bias


def lstm() -> tf.Module:
    """Build `tf2-lstm`."""
    return Lstm()


def _glorot(inputs: int, outputs: int) -> tf.Tensor:
    """Draw float32[inputs, outputs] from Glorot and Bengio's uniform distribution (AISTATS 2010)."""
    limit = (6.0 / (inputs + outputs)) ** 0.5
    return tf.random.uniform([inputs, outputs], -limit, limit)
