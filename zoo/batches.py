"""Texts as arrays: token ids, and batches of similar length.

Owns the padding and the order in which training sees the texts. Knows no framework.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray

from lockstep.zoo.corpus import Corpus, Example, Split
from lockstep.zoo.tokenizer import MAX_TOKENS, PAD_ID, VOCABULARY_TOKENS

BATCH_TOKENS = 4096
"""Padded tokens of one training batch, at most."""
BATCH_ROWS = 64
"""Rows of one training batch, at most: fewer steps an epoch would learn less from it."""
BUCKET_BATCHES = 40
"""Texts are sorted by length among this many batches' worth: similar lengths, still mixed texts."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One example as token ids, cut at `MAX_TOKENS`."""

    ids: tuple[int, ...]
    label: int
    kind: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows padded at their right end to the longest.

    input_ids: int64[batch, length]; lengths: int64[batch]; labels: int64[batch]
    """

    input_ids: NDArray[np.int64]
    lengths: NDArray[np.int64]
    labels: NDArray[np.int64]

    @property
    def attention_mask(self) -> NDArray[np.int64]:
        """int64[batch, length]: 1 where a token is, 0 in the padding."""
        return (np.arange(self.input_ids.shape[1]) < self.lengths[:, None]).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Texts:
    """The corpus as a training sees it."""

    train: tuple[Encoded, ...]
    validation: tuple[Encoded, ...]
    test: tuple[Encoded, ...]


def encode(corpus: Corpus, tokenizer: Path, vocabulary_tokens: int | None = VOCABULARY_TOKENS) -> Texts:
    """Encode the whole corpus with a `tokenizer.json`, without its padding, cut at `MAX_TOKENS`.

    Raises `ValueError` where its ids are not those that the models were built for: `vocabulary_tokens` of
    them at most, unless it is `None`.
    """
    from tokenizers import Tokenizer

    encoder = Tokenizer.from_file(str(tokenizer))
    if encoder.token_to_id("[PAD]") != PAD_ID:
        raise ValueError(f"{tokenizer} does not number [PAD] {PAD_ID}")
    if vocabulary_tokens is not None and (size := encoder.get_vocab_size()) > vocabulary_tokens:
        raise ValueError(f"{tokenizer} has {size} tokens, and the models embed {vocabulary_tokens}")
    encoder.no_padding()
    encoder.enable_truncation(MAX_TOKENS)  # in memory: the file stays without

    def rows(split: Split) -> tuple[Encoded, ...]:
        examples: list[Example] = corpus.read(split)
        encodings = encoder.encode_batch([example.text for example in examples])
        return tuple(
            Encoded(tuple(encoding.ids), example.label, example.kind)
            for encoding, example in zip(encodings, examples, strict=True)
        )

    return Texts(rows("train"), rows("validation"), rows("test"))


def pad(rows: Sequence[Encoded]) -> Batch:
    """Make one batch of rows."""
    lengths = np.array([len(row.ids) for row in rows], dtype=np.int64)
    input_ids = np.full((len(rows), int(lengths.max())), PAD_ID, dtype=np.int64)
    for place, row in enumerate(rows):
        input_ids[place, : len(row.ids)] = row.ids
    return Batch(input_ids, lengths, np.array([row.label for row in rows], dtype=np.int64))


def shuffled(rows: Sequence[Encoded], seed: int, epoch: int) -> list[Batch]:
    """Return one epoch's batches: every row once, each batch of similar lengths, in a random order."""
    random = Random(f"{seed} epoch {epoch}")
    order = list(rows)
    random.shuffle(order)
    batches: list[Batch] = []
    for start in range(0, len(order), BATCH_ROWS * BUCKET_BATCHES):
        batches += _cut(sorted(order[start : start + BATCH_ROWS * BUCKET_BATCHES], key=_length))
    random.shuffle(batches)
    return batches


def by_length(rows: Sequence[Encoded]) -> list[Batch]:
    """Return every row once, shortest first: the order that evaluates fastest."""
    return list(_cut(sorted(rows, key=_length)))


def accuracy(rows: Sequence[Encoded], scores: Callable[[Batch], NDArray[np.float32]]) -> float:
    """Return the share of `rows` whose greatest score is their label's.

    `scores` maps a batch to float32[batch, labels].
    """
    right = sum(int((scores(batch).argmax(axis=1) == batch.labels).sum()) for batch in by_length(rows))
    return right / len(rows)


def _cut(rows: Sequence[Encoded]) -> Iterator[Batch]:
    """Cut rows that are sorted by length into batches within both limits."""
    batch: list[Encoded] = []
    for row in rows:
        if batch and (len(batch) == BATCH_ROWS or (len(batch) + 1) * len(row.ids) > BATCH_TOKENS):
            yield pad(batch)
            batch = []
        batch.append(row)
    if batch:
        yield pad(batch)


def _length(row: Encoded) -> int:
    return len(row.ids)
