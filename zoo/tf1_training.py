"""The training loop of the TensorFlow 1 models: one graph, one session.

Owns the optimiser and the checkpoint's form (`checkpoint/model`, of `tf.compat.v1.train.Saver`, the model's
variables alone). Knows no architecture: a model is whatever its entry's `build` adds to a graph.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow.compat.v1 as tf
from numpy.typing import NDArray

from lockstep.zoo.batches import Batch, accuracy, shuffled
from lockstep.zoo.learning import Learned, Task

CLIP_NORM = 1.0
KEEP = 0.7
CHECKPOINT = "checkpoint/model"


def learn(task: Task) -> Learned:
    """Train one model; see `lockstep.zoo.learning`."""
    recipe, texts = task.entry.recipe, task.texts
    tf.logging.set_verbosity(tf.logging.ERROR)  # that all of this is deprecated is known
    tf.disable_eager_execution()
    tf.set_random_seed(recipe.seed)
    input_ids = tf.placeholder(tf.int64, [None, None])
    lengths = tf.placeholder(tf.int64, [None])
    labels = tf.placeholder(tf.int64, [None])
    keep = tf.placeholder_with_default(1.0, [])
    logits = task.build_function()(input_ids, lengths, keep)
    variables = tf.trainable_variables()

    steps = sum(len(shuffled(texts.train, recipe.seed, epoch)) for epoch in range(recipe.epochs))
    step = tf.train.get_or_create_global_step()
    warm = tf.cast(step, tf.float32) / (steps // 5)
    rate = recipe.learning_rate * tf.minimum(warm, tf.train.cosine_decay(1.0, step - steps // 5, steps - steps // 5))
    loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))
    gradients, _ = tf.clip_by_global_norm(tf.gradients(loss, variables), CLIP_NORM)
    optimiser = tf.train.AdamOptimizer(rate)
    learn_from = optimiser.apply_gradients(zip(gradients, variables, strict=True), global_step=step)
    session = tf.Session()
    session.run(tf.global_variables_initializer())

    def feeds(batch: Batch) -> dict[tf.Tensor, NDArray[np.int64]]:
        return {input_ids: batch.input_ids, lengths: batch.lengths}

    def scores(batch: Batch) -> NDArray[np.float32]:
        values: NDArray[np.float32] = session.run(logits, feeds(batch))
        return values

    best, best_weights = -1.0, []
    with tf.summary.FileWriter(str(task.log)) as board:
        for epoch in range(1, recipe.epochs + 1):
            total = 0.0
            batches = shuffled(texts.train, recipe.seed, epoch - 1)
            for number, batch in enumerate(batches, start=1):
                fed = {**feeds(batch), labels: batch.labels, keep: KEEP}
                total += float(session.run([loss, learn_from], fed)[0])
                task.report.step(epoch, number, len(batches), total / number)
            reached = accuracy(task.held_out, scores)
            task.report.epoch(epoch, total / len(batches), reached)
            figures = {"loss": total / len(batches), "validation_accuracy": reached}
            values = [tf.Summary.Value(tag=tag, simple_value=value) for tag, value in figures.items()]
            board.add_summary(tf.Summary(value=values), epoch)
            if reached > best:
                best, best_weights = reached, session.run(variables)
    for variable, value in zip(variables, best_weights, strict=True):
        variable.load(value, session)

    def save(folder: Path) -> str:
        tf.train.Saver(variables).save(session, str(folder / CHECKPOINT), write_meta_graph=False)
        return CHECKPOINT

    return Learned(sum(int(np.prod(v.shape)) for v in variables), best, scores, save)
