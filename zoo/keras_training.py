"""The training of the Keras models: `fit`, with callbacks, on whichever backend Keras runs.

Owns the optimiser and the checkpoint's form (`model.keras`). Knows no architecture: a model is whatever its
entry's `build` returns, with inputs named as the arrays of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import keras
import numpy as np
from numpy.typing import NDArray

from lockstep.zoo.batches import Batch, accuracy, shuffled
from lockstep.zoo.learning import Learned, Task

CLIP_NORM = 1.0
WEIGHTS = "model.keras"

Feeds = NDArray[np.int64] | tuple[NDArray[np.int64], ...]


def learn(task: Task) -> Learned:
    """Train one model; see `lockstep.zoo.learning`."""
    recipe, texts = task.entry.recipe, task.texts
    keras.utils.set_random_seed(recipe.seed)
    model = task.build()
    one_column = task.entry.activation == "sigmoid"
    # jax compiles anew for each shape, and each batch has its own.
    compiles = keras.backend.backend() == "jax"
    fit_shape = few_shapes if compiles else as_it_is

    def feeds(batch: Batch) -> Feeds:
        arrays = tuple(getattr(batch, tensor.name) for tensor in model.inputs)
        return arrays if len(arrays) > 1 else arrays[0]

    def scores(batch: Batch) -> NDArray[np.float32]:
        rows = len(batch.labels)
        values: NDArray[np.float32] = model.predict_on_batch(feeds(fit_shape(batch)))[:rows]
        return np.concatenate([1 - values, values], axis=1) if one_column else values

    def stream() -> Iterator[tuple[Feeds, NDArray[np.int64], NDArray[np.float32]]]:
        # Without end: the passes differ by a batch or two, and Keras wants epochs of one size, so it counts.
        for epoch in count():
            for batch in shuffled(texts.train, recipe.seed, epoch):
                shaped = fit_shape(batch)
                weights = (np.arange(len(shaped.labels)) < len(batch.labels)).astype(np.float32)
                yield feeds(shaped), shaped.labels[:, None], weights

    steps = len(shuffled(texts.train, recipe.seed, epoch=0))
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, steps * recipe.epochs, warmup_target=recipe.learning_rate, warmup_steps=steps * recipe.epochs // 5
    )
    model.compile(
        optimizer=keras.optimizers.AdamW(schedule, weight_decay=recipe.weight_decay, global_clipnorm=CLIP_NORM),
        loss=keras.losses.BinaryCrossentropy()
        if one_column
        else keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=compiles,  # TensorFlow's XLA would compile for each shape too
    )
    watch = Watch(task, steps, scores)
    model.fit(
        stream(),
        epochs=recipe.epochs,
        steps_per_epoch=steps,
        shuffle=False,
        verbose=0,
        # `watch` comes first: it adds the validation accuracy to what TensorBoard writes.
        callbacks=[watch, keras.callbacks.TensorBoard(str(task.log), write_graph=False)],
    )
    model.set_weights(watch.best_weights)

    def save(folder: Path) -> str:
        model.save(folder / WEIGHTS)
        return WEIGHTS

    return Learned(model.count_params(), watch.best, scores, save)


def as_it_is(batch: Batch) -> Batch:
    """Return the batch."""
    return batch


def few_shapes(batch: Batch) -> Batch:
    """Return the batch with rows and steps of padding added, to powers of two of at least 32 and 16."""
    rows, length = batch.input_ids.shape
    more = (0, max(32, 1 << (rows - 1).bit_length()) - rows)
    return Batch(
        np.pad(batch.input_ids, (more, (0, max(16, 1 << (length - 1).bit_length()) - length))),
        np.pad(batch.lengths, more),
        np.pad(batch.labels, more),
    )


class Watch(keras.callbacks.Callback):  # type: ignore[misc]
    """Reports a training and keeps the weights of its best epoch."""

    def __init__(self, task: Task, steps: int, scores: Callable[[Batch], NDArray[np.float32]]) -> None:
        super().__init__()
        self._task, self._steps, self._scores = task, steps, scores
        self._epoch = 0
        self.best = -1.0
        self.best_weights: list[NDArray[np.float32]] = []

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Remember the epoch; Keras counts from 0."""
        self._epoch = epoch + 1

    def on_train_batch_end(self, batch: int, logs: dict[str, float]) -> None:
        """Report the step."""
        self._task.report.step(self._epoch, batch + 1, self._steps, logs["loss"])

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Evaluate, report, and keep the weights if they are the best so far."""
        reached = logs["val_accuracy"] = accuracy(self._task.held_out, self._scores)
        self._task.report.epoch(epoch + 1, logs["loss"], reached)
        if reached > self.best:
            self.best, self.best_weights = reached, self.model.get_weights()
