"""Steps that a mask skips inside a row, moved out of the way of an operator that knows only where a row ends.

Keras' recurrent layers carry their state over a masked step and answer there what they answered before
(`keras.src.backend.tensorflow.rnn.rnn`). Right padding is the case in which the kept steps are at the front already.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tensorflow as tf


class Fill(Enum):
    """What stands at a masked step of a layer's outputs."""

    ZERO = "zero"
    PREVIOUS = "previous"  # the output of the kept step before it; zero where there is none
    NEXT = "next"  # of the kept step after it, which a backward layer takes first


class KeptSteps:
    """The steps of each row that a mask keeps: mask bool[batch, length]."""

    def __init__(self, mask: tf.Tensor) -> None:
        import tensorflow as tf

        self._mask = tf.cast(mask, tf.bool)
        self._counted = tf.cumsum(tf.cast(self._mask, tf.int32), axis=1)  # int32[batch, length]: kept up to here
        self._length = tf.shape(self._mask)[1]
        self.lengths = self._counted[:, -1]  # int32[batch]

    def to_front(self, sequences: tf.Tensor) -> tf.Tensor:
        """Return [batch, length, features] with the kept steps of each row first, in their order."""
        import tensorflow as tf

        position = tf.range(self._length)[None, :]
        # Distinct keys, so that the order does not depend on how ties are broken.
        keys = tf.where(self._mask, position, position + self._length)
        order = tf.math.top_k(-keys, k=self._length).indices
        return _taken(sequences, order)

    def back(self, outputs: tf.Tensor, fill: Fill) -> tf.Tensor:
        """Return outputs [batch, length, features] of the kept steps, each at its step of the row again."""
        import tensorflow as tf

        index = self._counted - 1
        if fill is Fill.NEXT:
            index = tf.where(self._mask, index, self._counted)
            answered = self._mask | (index < self.lengths[:, None])
        else:
            answered = self._mask if fill is Fill.ZERO else index >= 0
        taken = _taken(outputs, tf.clip_by_value(index, 0, self._length - 1))
        return taken * tf.cast(answered, taken.dtype)[:, :, None]


def _taken(values: Any, index: tf.Tensor) -> tf.Tensor:
    """Return values[batch, index[batch, length], features], by one gather over all rows."""
    import tensorflow as tf

    shape = tf.shape(values)
    rows, length = shape[0], shape[1]
    flat = tf.reshape(values, [rows * length, values.shape[-1]])
    start = tf.range(rows)[:, None] * length
    taken = tf.gather(flat, tf.reshape(index + start, [-1]))
    return tf.ensure_shape(tf.reshape(taken, [rows, length, values.shape[-1]]), [None, None, values.shape[-1]])
