"""The training of the Keras models: `fit`, with callbacks.

Owns the optimiser and the checkpoint's form (`model.keras`). Knows no architecture: a model is whatever its
entry's `build` returns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from zoo.batches import Batch, Encoded, Texts, accuracy, shuffled
from zoo.learning import Learned, Report, built, sentences
from zoo.registry import Entry

CLIP_NORM = 1.0
WEIGHTS = "model.keras"


def learn(entry: Entry, texts: Texts, report: Report, log: Path) -> Learned:
    """Train one model; see `zoo.learning`."""
    recipe = entry.recipe
    keras.utils.set_random_seed(recipe.seed)
    model = built(entry)
    # Traced once with both axes open; Keras's own `predict` would start a data pipeline for each batch.
    compute = tf.function(
        lambda input_ids: model(input_ids, training=False),
        input_signature=[tf.TensorSpec([None, None], tf.int64)],
    )

    def logits(batch: Batch) -> NDArray[np.float32]:
        values: NDArray[np.float32] = compute(batch.input_ids).numpy()
        return values

    steps = len(shuffled(texts.train, recipe.seed, epoch=0))
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, steps * recipe.epochs, warmup_target=recipe.learning_rate, warmup_steps=steps * recipe.epochs // 5
    )
    model.compile(
        optimizer=keras.optimizers.AdamW(schedule, weight_decay=recipe.weight_decay, global_clipnorm=CLIP_NORM),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,  # XLA compiles anew for each shape, and each batch has its own
    )
    watch = Watch(report, steps, sentences(texts.validation), logits)
    model.fit(
        stream(texts.train, recipe.seed),
        epochs=recipe.epochs,
        steps_per_epoch=steps,
        shuffle=False,
        verbose=0,
        # `watch` comes first: it adds the validation accuracy to what TensorBoard writes.
        callbacks=[watch, keras.callbacks.TensorBoard(str(log), write_graph=False)],
    )
    model.set_weights(watch.best_weights)

    def save(folder: Path) -> str:
        model.save(folder / WEIGHTS)
        return WEIGHTS

    return Learned(model.count_params(), watch.best, logits, save)


def stream(rows: tuple[Encoded, ...], seed: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield batches without end, each pass over the rows in an order of its own.

    The passes differ by a batch or two, and Keras wants epochs of one size: so it counts the steps.
    """
    for epoch in count():
        for batch in shuffled(rows, seed, epoch):
            yield batch.input_ids, batch.labels


class Watch(keras.callbacks.Callback):  # type: ignore[misc]
    """Reports a training and keeps the weights of its best epoch."""

    def __init__(
        self,
        report: Report,
        steps: int,
        held_out: tuple[Encoded, ...],
        logits: Callable[[Batch], NDArray[np.float32]],
    ) -> None:
        super().__init__()
        self._report, self._steps, self._held_out, self._logits = report, steps, held_out, logits
        self._epoch = 0
        self.best = -1.0
        self.best_weights: list[NDArray[np.float32]] = []

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Remember the epoch; Keras counts from 0."""
        self._epoch = epoch + 1

    def on_train_batch_end(self, batch: int, logs: dict[str, float]) -> None:
        """Report the step."""
        self._report.step(self._epoch, batch + 1, self._steps, logs["loss"])

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Evaluate, report, and keep the weights if they are the best so far."""
        reached = logs["val_accuracy"] = accuracy(self._held_out, self._logits)
        self._report.epoch(epoch + 1, logs["loss"], reached)
        if reached > self.best:
            self.best, self.best_weights = reached, self.model.get_weights()
