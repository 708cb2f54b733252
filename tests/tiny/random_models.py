"""Stacks of recurrent layers as a `Spec` draws them: kinds, sizes, directions, biases, poolings and heads.

Builders of exports take no argument, so the spec that is built stands in `current`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.tiny.texts import VOCABULARY


@dataclass(frozen=True)
class Spec:
    kind: str  # RNN, GRU or LSTM
    variant: int  # of the kind: nonlinearity, reset_after, peepholes and the like
    sizes: tuple[int, ...]  # hidden units of each layer
    both: bool
    width: int
    bias: bool
    pooling: str  # final, mean, max or attention
    head: tuple[int, ...]
    seed: int


current: list[Spec] = []


def torch_model() -> Any:
    import torch
    from torch import nn
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    from tests.tiny.torch_sources import seeded

    spec = current[-1]
    directions = 2 if spec.both else 1

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(VOCABULARY, spec.width)
            self.layers = nn.ModuleList()
            width = spec.width
            for place, size in enumerate(spec.sizes):
                more: dict[str, Any] = {}
                if spec.kind == "RNN" and spec.variant % 2:
                    more["nonlinearity"] = "relu"
                # Two layers in one module now and then.
                count = 2 if spec.variant == 2 and place == 0 else 1
                kind = getattr(nn, spec.kind)
                self.layers.append(
                    kind(width, size, count, bias=spec.bias, bidirectional=spec.both, batch_first=True, **more)
                )
                width = directions * size
            self.score = nn.Linear(width, 1)
            self.dense = nn.ModuleList()
            for size in spec.head:
                self.dense.append(nn.Linear(width, size))
                width = size
            self.out = nn.Linear(width, 2)

        def forward(self, input_ids: Any, attention_mask: Any, lengths: Any) -> Any:
            x = pack_padded_sequence(self.embedding(input_ids), lengths.cpu(), batch_first=True, enforce_sorted=False)
            for layer in self.layers:
                x, final = layer(x)
            state = final[0] if isinstance(final, tuple) else final
            states, _ = pad_packed_sequence(x, batch_first=True)
            inside = attention_mask[:, : states.shape[1]].unsqueeze(2) != 0
            if spec.pooling == "final":
                pooled = state[-directions:].transpose(0, 1).flatten(1)
            elif spec.pooling == "mean":
                pooled = (states * inside).sum(1) / lengths.unsqueeze(1)
            elif spec.pooling == "max":
                pooled = states.masked_fill(~inside, float("-inf")).amax(1)
            else:
                weights = self.score(states).masked_fill(~inside, float("-inf")).softmax(1)
                pooled = (weights * states).sum(1)
            for dense in self.dense:
                pooled = torch.tanh(dense(pooled))
            return self.out(pooled)

    return seeded(Model(), spec.seed)


def keras_model() -> Any:
    import keras
    from keras import layers, ops

    spec = current[-1]
    ids = keras.Input((None,), dtype="int64", name="input_ids")
    inside = ops.expand_dims(ops.not_equal(ids, 0), 2)
    x = layers.Embedding(VOCABULARY, spec.width, mask_zero=True)(ids)
    for place, size in enumerate(spec.sizes):
        more: dict[str, Any] = {"reset_after": bool(spec.variant % 2)} if spec.kind == "GRU" else {}
        if spec.kind == "RNN" and spec.variant % 2:
            more["activation"] = "relu"
        sequences = spec.pooling != "final" or place + 1 < len(spec.sizes)
        kind = getattr(layers, "SimpleRNN" if spec.kind == "RNN" else spec.kind)
        layer = kind(size, use_bias=spec.bias, return_sequences=sequences, **more)
        x = layers.Bidirectional(layer)(x) if spec.both else layer(x)
    if spec.pooling == "mean":
        x = layers.GlobalAveragePooling1D()(x)
    elif spec.pooling == "max":
        x = ops.max(ops.where(inside, x, -1e9), axis=1)
    elif spec.pooling == "attention":
        weights = ops.softmax(ops.where(inside, layers.Dense(1)(x), -1e9), axis=1)
        x = ops.sum(weights * x, axis=1)
    for size in spec.head:
        x = layers.Dense(size, activation="tanh")(x)
    model = keras.Model(ids, layers.Dense(2)(x))
    random = np.random.default_rng(spec.seed)
    model.set_weights([random.uniform(-0.5, 0.5, array.shape) for array in model.get_weights()])
    return model


def tf1_model(ids: Any, lengths: Any) -> Any:
    import tensorflow.compat.v1 as tf

    spec, cells = current[-1], tf.nn.rnn_cell

    def cell(size: int) -> Any:
        if spec.kind == "RNN":
            return cells.BasicRNNCell(size, activation=tf.nn.relu if spec.variant == 1 else None)
        if spec.kind == "GRU":
            return cells.GRUCell(size)
        if spec.variant == 0:
            return cells.BasicLSTMCell(size, forget_bias=0.5)
        return cells.LSTMCell(size, use_peepholes=spec.variant == 1, forget_bias=float(spec.bias))

    def stack() -> Any:
        made = [cells.DropoutWrapper(cell(size), output_keep_prob=1.0) for size in spec.sizes]
        return cells.MultiRNNCell(made) if len(made) > 1 else made[0]

    def hidden(state: Any) -> Any:
        top = state[-1] if isinstance(state, tuple) and not hasattr(state, "h") else state
        return getattr(top, "h", top)

    x = tf.nn.embedding_lookup(tf.get_variable("embedding", [VOCABULARY, spec.width]), ids)
    if spec.both:
        both, ends = tf.nn.bidirectional_dynamic_rnn(stack(), stack(), x, lengths, dtype=tf.float32)
        x, state = tf.concat(both, 2), tf.concat([hidden(end) for end in ends], 1)
    else:
        x, end = tf.nn.dynamic_rnn(stack(), x, sequence_length=lengths, dtype=tf.float32)
        state = hidden(end)
    inside = tf.sequence_mask(lengths, tf.shape(ids)[1])[:, :, tf.newaxis]
    if spec.pooling == "mean":
        state = tf.reduce_sum(x, 1) / tf.cast(lengths, tf.float32)[:, tf.newaxis]
    elif spec.pooling == "max":
        state = tf.reduce_max(tf.where(tf.broadcast_to(inside, tf.shape(x)), x, tf.fill(tf.shape(x), -1e9)), 1)
    elif spec.pooling == "attention":
        scores = tf.tensordot(x, tf.get_variable("score", [x.shape[2], 1]), 1)
        weights = tf.nn.softmax(tf.where(inside, scores, tf.fill(tf.shape(scores), -1e9)), axis=1)
        state = tf.reduce_sum(weights * x, 1)
    for place, size in enumerate((*spec.head, 2)):
        state = tf.matmul(tf.tanh(state), tf.get_variable(f"head{place}", [state.shape[1], size]))
    return state
