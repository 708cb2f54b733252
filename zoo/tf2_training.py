"""The training loop of the TensorFlow models.

Owns the optimiser and the checkpoint's form (`checkpoint/model-1`, of `tf.train.Checkpoint(model=...)`).
Knows no architecture: a model is whatever its entry's `build` returns, with a `logits` method of the same
inputs, which are named as the arrays of a batch, that drops out.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from lockstep.zoo.batches import Batch, accuracy, shuffled
from lockstep.zoo.learning import Learned, Task

CLIP_NORM = 1.0
CHECKPOINT = "checkpoint/model"


def learn(task: Task) -> Learned:
    """Train one model; see `lockstep.zoo.learning`."""
    recipe, texts = task.entry.recipe, task.texts
    tf.keras.utils.set_random_seed(recipe.seed)
    model = task.build()
    signature = model.__call__.input_signature

    def feeds(batch: Batch) -> list[NDArray[np.int64]]:
        return [getattr(batch, spec.name) for spec in signature]

    def scores(batch: Batch) -> NDArray[np.float32]:
        values: NDArray[np.float32] = model(*feeds(batch)).numpy()
        return values

    steps = sum(len(shuffled(texts.train, recipe.seed, epoch)) for epoch in range(recipe.epochs))
    schedule = tf.keras.optimizers.schedules.CosineDecay(
        0.0, steps, warmup_target=recipe.learning_rate, warmup_steps=steps // 5
    )
    optimiser = tf.keras.optimizers.AdamW(schedule, weight_decay=recipe.weight_decay)
    variables = model.trainable_variables
    optimiser.build(variables)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64), *signature])  # type: ignore[untyped-decorator]
    def learn_from(labels: tf.Tensor, *inputs: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, model.logits(*inputs))
            loss = tf.reduce_mean(losses)
        gradients, _ = tf.clip_by_global_norm(tape.gradient(loss, variables), CLIP_NORM)
        optimiser.apply_gradients(zip(gradients, variables, strict=True))
        return loss

    best, best_weights = -1.0, []
    board = tf.summary.create_file_writer(str(task.log))
    with board.as_default():
        for epoch in range(1, recipe.epochs + 1):
            total = 0.0
            batches = shuffled(texts.train, recipe.seed, epoch - 1)
            for step, batch in enumerate(batches, start=1):
                total += float(learn_from(batch.labels, *feeds(batch)))
                task.report.step(epoch, step, len(batches), total / step)
            reached = accuracy(task.held_out, scores)
            task.report.epoch(epoch, total / len(batches), reached)
            tf.summary.scalar("loss", total / len(batches), epoch)
            tf.summary.scalar("validation_accuracy", reached, epoch)
            if reached > best:
                best, best_weights = reached, [variable.numpy() for variable in variables]
    board.close()
    for variable, value in zip(variables, best_weights, strict=True):
        variable.assign(value)

    def save(folder: Path) -> str:
        # `save`, not `write`: a checkpoint of `write` cannot be restored with `restore`.
        prefix = tf.train.Checkpoint(model=model).save(str(folder / CHECKPOINT))
        return Path(prefix).relative_to(folder).as_posix()

    return Learned(sum(int(np.prod(v.shape)) for v in variables), best, scores, save)
