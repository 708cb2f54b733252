"""The benchmark's texts: seeded, of unequal length. Knows the corpus; knows no model."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from lockstep.zoo.corpus import Corpus, Example

TEXTS: Final = 4_000
DOCUMENT_SHARE: Final = 0.15
MAX_TOKENS: Final = 256
"""Longer texts are cut by whoever tokenises them: requests ask for truncation."""
SEED: Final = 20_241


class TooFewTexts(Exception):
    """The corpus holds fewer texts of a kind than the workload needs."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Texts in the order in which they are sent: sentences and documents mixed at random."""

    texts: tuple[str, ...]
    documents: int

    @property
    def fingerprint(self) -> str:
        """Name the texts and their order."""
        return hashlib.sha256("\n".join(self.texts).encode()).hexdigest()[:16]

    def first(self, count: int) -> Workload:
        """Return the first texts of it: a workload like it, as the order is random."""
        return Workload(self.texts[:count], round(self.documents * min(1.0, count / len(self.texts))))


def of_corpus(corpus: Corpus, texts: int = TEXTS, seed: int = SEED) -> Workload:
    """Draw the workload from the corpus' test and training splits. Raises `TooFewTexts`."""
    return draw([*corpus.read("test"), *corpus.read("train")], texts, seed)


def draw(examples: Sequence[Example], texts: int = TEXTS, seed: int = SEED) -> Workload:
    """Draw texts, none twice, 15 % of them documents; the same examples and seed give the same texts in the same order.

    Raises `TooFewTexts`.
    """
    randomness = random.Random(seed)
    documents = round(texts * DOCUMENT_SHARE)
    chosen: list[str] = []
    for kind, count in (("sentence", texts - documents), ("document", documents)):
        pool = [example.text for example in examples if example.kind == kind]
        if len(pool) < count:
            raise TooFewTexts(f"the corpus holds {len(pool)} texts of kind {kind}, and the workload needs {count}")
        chosen += randomness.sample(pool, count)
    randomness.shuffle(chosen)
    return Workload(tuple(chosen), documents)
