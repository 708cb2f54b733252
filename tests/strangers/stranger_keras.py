"""Convolution under two recurrent layers, two attention heads, a residual head of one sigmoid unit."""

import sys

import keras
import numpy as np
from keras import layers, ops


def build() -> keras.Model:
    ids = keras.Input((None,), dtype="int32", name="input_ids")
    mask = keras.Input((None,), dtype="float32", name="attention_mask")
    inside = ops.expand_dims(mask, -1)
    x = layers.Embedding(44, 12)(ids) * inside
    x = layers.Conv1D(10, 3, padding="same", activation="relu")(x) * inside
    boolean = ops.cast(mask, "bool")
    x = layers.Bidirectional(layers.GRU(6, return_sequences=True, reset_after=False), merge_mode="sum")(x, mask=boolean)
    y, h, c = layers.LSTM(6, return_sequences=True, return_state=True, recurrent_activation="hard_sigmoid")(
        layers.LayerNormalization()(x), mask=boolean
    )
    scores = layers.Dense(2)(y) + (inside - 1) * 1e9
    heads = ops.einsum("bth,btw->bhw", ops.softmax(scores, axis=1), y)
    features = layers.Concatenate()([layers.Flatten()(heads), h, c])
    hidden = layers.Dense(24, activation="swish")(features)
    return keras.Model([ids, mask], layers.Dense(1, activation="sigmoid")(layers.Add()([hidden, features])))


if __name__ == "__main__":
    model = build()
    random = np.random.default_rng(5)
    model.set_weights([random.uniform(-0.6, 0.6, array.shape) for array in model.get_weights()])
    model.save(sys.argv[1])
