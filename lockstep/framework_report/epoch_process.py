"""A few steps of one model's training, timed: `python -m lockstep.framework_report.epoch_process MODEL ...`.

The zoo's own training code, on a part of the corpus, for one epoch. With `--length` every text is cut or padded to
that many tokens before it is trained on: a graph of fixed shape, which computes every step of it. Without, batches are
the zoo's: texts of similar length, padded to their longest. The first step builds what is built once:
it is not counted.

Prints one JSON line on the descriptor named by `--fd`; standard output is the framework's.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path

from lockstep.zoo import batches
from lockstep.zoo.batches import Encoded, Texts, encode
from lockstep.zoo.corpus import open_corpus
from lockstep.zoo.learning import Learn, Task, sentences
from lockstep.zoo.registry import ENTRIES, Recipe
from lockstep.zoo.tokenizer import PAD_ID

SEED = 7


@dataclass(slots=True)
class Clock:
    """Counts the steps that follow the first; see `lockstep.zoo.learning.Report`."""

    steps: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    _began: tuple[float, float] = field(default=(0.0, 0.0))

    def step(self, epoch: int, step: int, steps: int, loss: float) -> None:
        """Note the instant at which a step ended."""
        now = (time.monotonic(), time.process_time())
        if step == 1:
            self._began = now
        else:
            self.steps = step - 1
            self.wall_s, self.cpu_s = now[0] - self._began[0], now[1] - self._began[1]

    def epoch(self, epoch: int, loss: float, accuracy: float) -> None:
        """Nothing: what is measured is the training alone."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and tell."""
    parser = argparse.ArgumentParser("lockstep.framework_report.epoch_process")
    parser.add_argument("model", choices=list(ENTRIES))
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--texts", type=int, required=True)
    parser.add_argument("--length", type=int, help="cut or pad every text to so many tokens")
    parser.add_argument("--eager", action="store_true", help="of TensorFlow: without graphs")
    parser.add_argument("--fd", type=int, required=True)
    given = parser.parse_args(arguments)

    entry = replace(ENTRIES[given.model], recipe=Recipe(1, 1e-3, seed=SEED))
    texts = encode(open_corpus(given.corpus), given.tokenizer)
    train = _sample(texts.train, given.texts)
    if given.length is not None:
        train = tuple(fixed(row, given.length) for row in train)
        # As many rows a step as at any other length: fewer would be another training, and cost more for itself.
        batches.BATCH_TOKENS = batches.BATCH_ROWS * given.length
    if given.eager:
        import tensorflow as tf

        tf.config.run_functions_eagerly(True)
    clock = Clock()
    learn: Learn = import_module(entry.family.training).learn
    with tempfile.TemporaryDirectory(prefix="lockstep-") as log:
        learn(Task(entry, Texts(train, sentences(texts.validation)[:2], ()), clock, Path(log)))
    steps = len(batches.shuffled(train, SEED, 0))
    result = {
        "texts": len(train),
        "steps": clock.steps,
        "all_steps": steps,
        "wall_s": clock.wall_s,
        "cpu_s": clock.cpu_s,
        "padded_tokens": sum(batch.input_ids.size for batch in batches.shuffled(train, SEED, 0)),
        "corpus_texts": len(texts.train),
    }
    with os.fdopen(given.fd, "w", encoding="utf-8") as channel:
        channel.write(json.dumps(result) + "\n")


def fixed(row: Encoded, length: int) -> Encoded:
    """Return the text as a graph of fixed length sees it: every position counts, padding too."""
    return Encoded((row.ids + (PAD_ID,) * length)[:length], row.label, row.kind)


def _sample(rows: tuple[Encoded, ...], count: int) -> tuple[Encoded, ...]:
    """Return evenly spaced rows, so that every kind of text has its share."""
    step = max(1.0, len(rows) / count)
    return tuple(rows[int(number * step)] for number in range(min(count, len(rows))))


if __name__ == "__main__":
    main()
