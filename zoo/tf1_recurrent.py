"""The TensorFlow 1 models: graph-building functions over `tf.compat.v1`, as any user of it wrote them.

Owns their architectures. Knows nothing of training and nothing of export. Each `build` function takes
`input_ids` int64[batch, length] and `lengths` int64[batch], adds the model to the default graph, and returns
logits float32[batch, labels]. Without a third argument nothing is dropped: that is the model as it is
served; a training gives the share that is kept. A checkpoint is `tf.compat.v1.train.Saver`'s.

Needs `TF_USE_LEGACY_KERAS=1` and tf_keras, where the cells of TensorFlow 1 live now.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow.compat.v1 as tf

from lockstep.zoo.corpus import LABELS
from lockstep.zoo.tokenizer import VOCABULARY_TOKENS

EMBEDDING = 64
HIDDEN = 64

Recurrent = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
"""From float32[batch, length, embedding] and the lengths to float32[batch, width]."""


def classifier(recurrent: Recurrent, input_ids: tf.Tensor, lengths: tf.Tensor, keep: tf.Tensor | float) -> tf.Tensor:
    """Build an embedding, what `recurrent` makes of it, and a linear head."""
    start = tf.random_normal_initializer(stddev=0.1)
    table = tf.get_variable("embedding", [VOCABULARY_TOKENS, EMBEDDING], initializer=start)
    state = recurrent(kept(tf.nn.embedding_lookup(table, input_ids), keep), lengths)
    weights = tf.get_variable("head/kernel", [state.shape[1], len(LABELS)])
    bias = tf.get_variable("head/bias", [len(LABELS)], initializer=tf.zeros_initializer())
    return tf.matmul(kept(state, keep), weights) + bias


def kept(x: tf.Tensor, keep: tf.Tensor | float) -> tf.Tensor:
    """Keep a share of the values, scaled up; all of them where that is what `keep` says."""
    return x if isinstance(keep, float) and keep == 1.0 else tf.nn.dropout(x, rate=1 - keep)


def final_state(cell: Any) -> Recurrent:
    """Step a cell over each row to its end, and answer its last `h`; of the uppermost, where cells are stacked."""

    def recurrent(x: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        _, state = tf.nn.dynamic_rnn(cell, x, sequence_length=lengths, dtype=tf.float32)
        if isinstance(state, tuple) and not hasattr(state, "h"):
            state = state[-1]
        return getattr(state, "h", state)

    return recurrent


def basicrnn(input_ids: tf.Tensor, lengths: tf.Tensor, keep: tf.Tensor | float = 1.0) -> tf.Tensor:
    """Build `tf1-basicrnn`."""
    return classifier(final_state(tf.nn.rnn_cell.BasicRNNCell(HIDDEN)), input_ids, lengths, keep)


def basiclstm(input_ids: tf.Tensor, lengths: tf.Tensor, keep: tf.Tensor | float = 1.0) -> tf.Tensor:
    """Build `tf1-basiclstm`."""
    return classifier(final_state(tf.nn.rnn_cell.BasicLSTMCell(HIDDEN)), input_ids, lengths, keep)


def gru(input_ids: tf.Tensor, lengths: tf.Tensor, keep: tf.Tensor | float = 1.0) -> tf.Tensor:
    """Build `tf1-gru`."""
    return classifier(final_state(tf.nn.rnn_cell.GRUCell(HIDDEN)), input_ids, lengths, keep)


def lstm_peephole(input_ids: tf.Tensor, lengths: tf.Tensor, keep: tf.Tensor | float = 1.0) -> tf.Tensor:
    """Build `tf1-lstm-peephole`."""
    cell = tf.nn.rnn_cell.LSTMCell(HIDDEN, use_peepholes=True)
    return classifier(final_state(cell), input_ids, lengths, keep)


def multirnn_2(input_ids: tf.Tensor, lengths: tf.Tensor, keep: tf.Tensor | float = 1.0) -> tf.Tensor:
    """Build `tf1-multirnn-2`."""
    return classifier(final_state(stack(2, keep)), input_ids, lengths, keep)


def multirnn_3(input_ids: tf.Tensor, lengths: tf.Tensor, keep: tf.Tensor | float = 1.0) -> tf.Tensor:
    """Build `tf1-multirnn-3`."""
    return classifier(final_state(stack(3, keep)), input_ids, lengths, keep)


def stack(layers: int, keep: tf.Tensor | float) -> Any:
    """Stack LSTM cells, each of which drops out of its output."""
    cells = [tf.nn.rnn_cell.LSTMCell(HIDDEN) for _ in range(layers)]
    return tf.nn.rnn_cell.MultiRNNCell([tf.nn.rnn_cell.DropoutWrapper(cell, output_keep_prob=keep) for cell in cells])


def bilstm(input_ids: tf.Tensor, lengths: tf.Tensor, keep: tf.Tensor | float = 1.0) -> tf.Tensor:
    """Build `tf1-bilstm`: the mean of both directions' outputs, which are zero beyond a row's end."""

    def recurrent(x: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        forward, backward = tf.nn.rnn_cell.LSTMCell(HIDDEN), tf.nn.rnn_cell.LSTMCell(HIDDEN)
        outputs, _ = tf.nn.bidirectional_dynamic_rnn(forward, backward, x, sequence_length=lengths, dtype=tf.float32)
        steps = tf.cast(lengths, tf.float32)[:, tf.newaxis]
        return tf.reduce_sum(tf.concat(outputs, axis=2), axis=1) / steps

    return classifier(recurrent, input_ids, lengths, keep)
