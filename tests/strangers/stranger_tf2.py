"""Two cells written by hand that declare their gates in orders of their own, max pooling, a bilinear head."""

import sys

import numpy as np
import tensorflow as tf


class Cell(tf.Module):
    """An LSTM of gates o, c, f, i with a forget bias, or a GRU of gates r, h, z."""

    def __init__(self, kind: str, inputs: int, units: int) -> None:
        super().__init__()
        self.lstm, self.units = kind == "LSTM", units
        gates = "o,c,f,i" if self.lstm else "r,h,z"
        count = len(gates.split(","))
        self.w = tf.Variable(tf.zeros([inputs, count * units]))
        self.u = tf.Variable(tf.zeros([units, count * units]))
        self.b = tf.Variable(tf.zeros([count * units]))
        self.recurrence = {"kind": kind, "gates": gates, "kernel": "w", "recurrent_kernel": "u", "bias": "b"}
        if self.lstm:
            self.recurrence["forget_bias"] = 0.3

    def step(self, x: tf.Tensor, h: tf.Tensor, c: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        given = x @ self.w + self.b
        if self.lstm:
            o, g, f, i = tf.split(given + h @ self.u, 4, axis=1)
            c = tf.sigmoid(f + 0.3) * c + tf.sigmoid(i) * tf.tanh(g)
            return tf.sigmoid(o) * tf.tanh(c), c
        x_r, x_h, x_z = tf.split(given, 3, axis=1)
        u_r, u_h, u_z = tf.split(self.u, 3, axis=1)
        r, z = tf.sigmoid(x_r + h @ u_r), tf.sigmoid(x_z + h @ u_z)
        return (1 - z) * tf.tanh(x_h + (r * h) @ u_h) + z * h, c

    def run(self, inputs: tf.Tensor, lengths: tf.Tensor) -> tuple[tf.Tensor, object]:
        x = tf.transpose(inputs, [1, 0, 2])
        outputs = tf.TensorArray(tf.float32, size=tf.shape(x)[0], element_shape=[None, self.units])
        zero = tf.zeros([tf.shape(x)[1], self.units])

        def body(t: tf.Tensor, outputs: tf.TensorArray, h: tf.Tensor, c: tf.Tensor) -> tuple[object, ...]:
            going = (tf.cast(t, tf.int64) < lengths)[:, tf.newaxis]
            new_h, new_c = self.step(tf.gather(x, t), h, c)
            outputs = outputs.write(t, tf.where(going, new_h, 0.0))
            return t + 1, outputs, tf.where(going, new_h, h), tf.where(going, new_c, c)

        _, outputs, h, c = tf.while_loop(
            lambda t, *_: t < tf.shape(x)[0],
            body,
            (tf.constant(0), outputs, zero, zero),
            shape_invariants=(tf.TensorShape([]), tf.TensorShape(None), *[tf.TensorShape([None, self.units])] * 2),
        )
        return tf.transpose(outputs.stack(), [1, 0, 2]), (h, c) if self.lstm else h


class Model(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = tf.Variable(tf.zeros([44, 8]))
        self.lower, self.upper = Cell("GRU", 8, 7), Cell("LSTM", 7, 6)
        self.bilinear = tf.Variable(tf.zeros([6, 6, 2]))

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None, None], tf.int32)])
    def __call__(self, input_ids: tf.Tensor, attention_mask: tf.Tensor) -> tf.Tensor:
        lengths = tf.reduce_sum(tf.cast(attention_mask, tf.int64), axis=1)
        x, _ = self.lower.run(tf.gather(self.words, input_ids), lengths)
        x, (h, _) = self.upper.run(x, lengths)
        x = tf.reduce_max(tf.where(attention_mask[..., tf.newaxis] > 0, x, -1e9), axis=1)
        return tf.einsum("bi,ijk,bj->bk", x, self.bilinear, h)


def build() -> tf.Module:
    return Model()


if __name__ == "__main__":
    model = build()
    random = np.random.default_rng(5)
    for variable in model.variables:
        variable.assign(random.uniform(-0.6, 0.6, variable.shape))
    tf.train.Checkpoint(model=model).write(sys.argv[1])
