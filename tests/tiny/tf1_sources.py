"""Tiny TensorFlow 1 sources with seeded random weights, as its users wrote them.

`TF_USE_LEGACY_KERAS=1 python -m tests.tiny.tf1_sources FOLDER NAME...` writes them, in a process of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow.compat.v1 as tf

from tests.tiny.descriptions import write_folder
from tests.tiny.texts import LABELS, VOCABULARY

WIDTH, HIDDEN = 8, 6
cells = tf.nn.rnn_cell


def embedded(ids: tf.Tensor) -> tf.Tensor:
    return tf.nn.embedding_lookup(tf.get_variable("embedding", [VOCABULARY, WIDTH]), ids)


def head(features: tf.Tensor) -> tf.Tensor:
    kernel = tf.get_variable("head", [features.shape[1], len(LABELS)])
    return tf.matmul(features, kernel) + tf.get_variable("head_bias", [len(LABELS)])


def peephole(ids: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
    """A stack of two kinds of cell, then both directions, their mean and their final states."""
    lower = cells.DropoutWrapper(cells.LSTMCell(HIDDEN, use_peepholes=True, forget_bias=0.7), output_keep_prob=1.0)
    stack = cells.MultiRNNCell([lower, cells.GRUCell(HIDDEN)])
    x, (state, h) = tf.nn.dynamic_rnn(stack, embedded(ids), sequence_length=lengths, dtype=tf.float32)
    forward, backward = cells.BasicLSTMCell(HIDDEN), cells.BasicLSTMCell(HIDDEN, forget_bias=0.3)
    both, ends = tf.nn.bidirectional_dynamic_rnn(forward, backward, x, lengths, dtype=tf.float32)
    mean = tf.reduce_sum(tf.concat(both, 2), 1) / tf.cast(lengths, tf.float32)[:, tf.newaxis]
    return head(tf.concat([state.c, state.h, h, mean, ends[0].h, ends[1].c], 1))


def time_major(ids: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
    """Time first, an initial state, a cell beside a stack in the two directions."""
    x = tf.transpose(embedded(ids), [1, 0, 2])
    first = tf.tanh(x[0])[:, :HIDDEN]
    x, _ = tf.nn.dynamic_rnn(
        cells.BasicRNNCell(HIDDEN), x, lengths, initial_state=first, time_major=True, scope="lower"
    )
    stack = cells.MultiRNNCell([cells.GRUCell(4), cells.BasicRNNCell(5)])
    (fw, bw), (end, ends) = tf.nn.bidirectional_dynamic_rnn(
        cells.GRUCell(HIDDEN), stack, x, sequence_length=lengths, dtype=tf.float32, time_major=True
    )
    steps = tf.cast(lengths, tf.float32)[:, tf.newaxis]
    return head(tf.concat([tf.reduce_sum(fw, 0) / steps, tf.reduce_sum(bw, 0) / steps, end, *ends], 1))


def own_cell(ids: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
    """A cell of the author's own: no operator is known for it."""

    class Doubling(cells.BasicRNNCell):  # type: ignore[misc]
        def call(self, inputs: tf.Tensor, state: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            output, state = super().call(inputs, state)
            return 2 * output, state

    _, state = tf.nn.dynamic_rnn(Doubling(HIDDEN), embedded(ids), sequence_length=lengths, dtype=tf.float32)
    return head(state)


def main(folder: Path, names: list[str]) -> None:
    """Write the source folders of these names below `folder`."""
    tf.disable_eager_execution()
    for name in names:
        description = write_folder(folder / name, name)
        assert description.build is not None
        write(folder / name / description.weights, globals()[description.build.partition(":")[2]])


def write(prefix: Path, function: Callable[[tf.Tensor, tf.Tensor], tf.Tensor], seed: int = 0) -> None:
    """Build a model and write a checkpoint of random weights, biases too."""
    with tf.Graph().as_default(), tf.Session() as session:
        function(tf.placeholder(tf.int64, [None, None]), tf.placeholder(tf.int64, [None]))
        variables = tf.global_variables()
        generator = np.random.default_rng(seed)
        session.run(tf.global_variables_initializer())
        for variable in variables:
            variable.load(generator.uniform(-0.5, 0.5, variable.shape).astype(np.float32), session)
        tf.train.Saver(variables).save(session, str(prefix), write_meta_graph=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
