"""Tiny Keras and TensorFlow sources with seeded random weights, as a user would write them.

`python -m tests.tiny.tensorflow_sources FOLDER NAME...` writes them, in a process of its own.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tests.tiny.descriptions import write_folder
from tests.tiny.texts import LABELS, VOCABULARY

WIDTH = 12
HIDDEN = 10


def seeded_arrays(shapes: list[tuple[int, ...]], seed: int = 0) -> list[np.ndarray[Any, Any]]:
    generator = np.random.default_rng(seed)
    # Wide enough that every gate and bias matters to the answer.
    return [generator.uniform(-0.5, 0.5, shape).astype(np.float32) for shape in shapes]


def bigru() -> keras.Model:
    """Two recurrent layers, a masked mean, two dense layers."""
    ids = keras.Input((None,), dtype="int32", name="tokens")
    x = keras.layers.Embedding(VOCABULARY, WIDTH, mask_zero=True)(ids)
    x = keras.layers.Bidirectional(keras.layers.GRU(HIDDEN, return_sequences=True))(x)
    x = keras.layers.LSTM(HIDDEN, return_sequences=True)(x)
    x = keras.layers.GlobalAveragePooling1D()(x)
    x = keras.layers.Dense(6, activation="relu")(x)
    model = keras.Model(ids, keras.layers.Dense(len(LABELS))(x))
    model.set_weights(seeded_arrays([weight.shape for weight in model.get_weights()]))
    return model


class Lstm(tf.Module):  # type: ignore[misc]
    """A hand-written cell under `tf.while_loop`; the state of a row that has ended stays."""

    def __init__(self) -> None:
        super().__init__()
        shapes = [(VOCABULARY, WIDTH), (WIDTH + HIDDEN, 4 * HIDDEN), (4 * HIDDEN,), (HIDDEN, len(LABELS))]
        names = ("embedding", "kernel", "bias", "head")
        for name, shape in zip(names, shapes, strict=True):
            setattr(self, name, tf.Variable(tf.zeros(shape), name=name))

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int64), tf.TensorSpec([None], tf.int64)])  # type: ignore[untyped-decorator]
    def __call__(self, input_ids: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        embedded = tf.transpose(tf.gather(self.embedding, input_ids), [1, 0, 2])
        zero = tf.zeros([tf.shape(input_ids)[0], HIDDEN])

        def step(time: tf.Tensor, h: tf.Tensor, c: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            gates = tf.concat([tf.gather(embedded, time), h], 1) @ self.kernel + self.bias
            i, f, g, o = tf.split(gates, 4, axis=1)
            new_c = tf.sigmoid(f) * c + tf.sigmoid(i) * tf.tanh(g)
            new_h = tf.sigmoid(o) * tf.tanh(new_c)
            going = (tf.cast(time, tf.int64) < lengths)[:, tf.newaxis]
            return time + 1, tf.where(going, new_h, h), tf.where(going, new_c, c)

        _, h, _ = tf.while_loop(
            lambda time, h, c: time < tf.shape(embedded)[0],
            step,
            (tf.constant(0), zero, zero),
            shape_invariants=(tf.TensorShape([]), *[tf.TensorShape([None, HIDDEN])] * 2),
        )
        return h @ self.head


def lstm() -> tf.Module:
    return Lstm()


def main(folder: Path, names: list[str]) -> None:
    """Write the source folders of these names below `folder`."""
    for name in names:
        description = write_folder(folder / name, name)
        weights = str(folder / name / description.weights)
        if description.build is None:
            globals()[name.removeprefix("tiny-").replace("-", "_")]().save(weights)
            continue
        module = globals()[description.build.partition(":")[2]]()
        arrays = seeded_arrays([variable.shape for variable in module.variables])
        for variable, array in zip(module.variables, arrays, strict=True):
            variable.assign(array)
        tf.train.Checkpoint(model=module).write(weights)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
