"""What both kinds of TensorFlow model are made of. Owns no model."""

from __future__ import annotations

import tensorflow as tf

IDS = tf.TensorSpec([None, None], tf.int64, name="input_ids")
LENGTHS = tf.TensorSpec([None], tf.int64, name="lengths")
MASK = tf.TensorSpec([None, None], tf.int64, name="attention_mask")


def glorot(inputs: int, outputs: int) -> tf.Tensor:
    """Draw float32[inputs, outputs] from Glorot and Bengio's uniform distribution (AISTATS 2010)."""
    limit = (6.0 / (inputs + outputs)) ** 0.5
    return tf.random.uniform([inputs, outputs], -limit, limit)


def dropped(x: tf.Tensor, rate: float) -> tf.Tensor:
    """Drop a share of the values, and none of them where the share is zero."""
    return tf.nn.dropout(x, rate) if rate else x


def masked_mean(states: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Average float32[batch, length, width] over the places where bool[batch, length] holds."""
    weights = tf.cast(mask, states.dtype)[:, :, tf.newaxis]
    return tf.reduce_sum(states * weights, axis=1) / tf.reduce_sum(weights, axis=1)


class Dense(tf.Module):  # type: ignore[misc]
    """A matrix and a bias."""

    def __init__(self, inputs: int, outputs: int, name: str) -> None:
        super().__init__(name=name)
        self.kernel = tf.Variable(glorot(inputs, outputs), name="kernel")
        self.bias = tf.Variable(tf.zeros(outputs), name="bias")

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Map float32[..., inputs] to float32[..., outputs]."""
        return tf.tensordot(x, self.kernel, axes=1) + self.bias
