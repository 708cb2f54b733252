"""A stack of peephole cells, attention over it, a highway layer."""

import sys

import numpy as np
import tensorflow.compat.v1 as tf
from tensorflow.compat.v1.nn import dynamic_rnn, rnn_cell


def build(ids: tf.Tensor, lengths: tf.Tensor, training: bool = False) -> tf.Tensor:
    keep = 0.5 if training else 1.0
    with tf.variable_scope("encoder"):
        x = tf.nn.embedding_lookup(tf.get_variable("words", [44, 9]), ids)
        stack = [
            rnn_cell.DropoutWrapper(rnn_cell.LSTMCell(7, use_peepholes=True, forget_bias=0.4), output_keep_prob=keep),
            rnn_cell.DropoutWrapper(rnn_cell.GRUCell(8), input_keep_prob=keep, state_keep_prob=keep),
        ]
        x, states = dynamic_rnn(rnn_cell.MultiRNNCell(stack), x, sequence_length=lengths, dtype=tf.float32)
        (_, _), ends = tf.nn.bidirectional_dynamic_rnn(
            rnn_cell.BasicRNNCell(5), rnn_cell.BasicRNNCell(5), x, lengths, dtype=tf.float32, scope="top"
        )
    scores = _dense(x, "score", 1)[..., 0]
    scores += (tf.sequence_mask(lengths, tf.shape(ids)[1], tf.float32) - 1) * 1e9
    pooled = tf.reduce_sum(tf.nn.softmax(scores)[..., tf.newaxis] * x, axis=1)
    features = tf.concat([pooled, states[0].c, states[1], *ends], axis=1)
    gate = tf.sigmoid(_dense(features, "gate", features.shape[1]))
    features = gate * tf.nn.relu(_dense(features, "transform", features.shape[1])) + (1 - gate) * features
    return _dense(features, "logits", 2)


def _dense(x: tf.Tensor, name: str, units: int) -> tf.Tensor:
    with tf.variable_scope(name):
        return tf.tensordot(x, tf.get_variable("w", [x.shape[-1], units]), 1) + tf.get_variable("b", [units])


if __name__ == "__main__":
    tf.disable_eager_execution()
    build(tf.placeholder(tf.int64, [None, None]), tf.placeholder(tf.int64, [None]))
    with tf.Session() as session:
        random = np.random.default_rng(5)
        for variable in tf.global_variables():
            variable.load(random.uniform(-0.6, 0.6, variable.shape).astype(np.float32), session)
        tf.train.Saver().save(session, sys.argv[1])
