"""The benchmark's texts are the same wherever it runs."""

import pytest

from benchmarks.workload import TooFewTexts, draw
from lockstep.zoo.corpus import Example

EXAMPLES = [
    Example(str(number), f"text {number}", 0, "document" if number % 4 == 0 else "sentence", "movie")
    for number in range(400)
]


def test_the_same_seed_gives_the_same_texts_in_the_same_order() -> None:
    assert draw(EXAMPLES, 200, seed=1).fingerprint == draw(EXAMPLES, 200, seed=1).fingerprint
    assert draw(EXAMPLES, 200, seed=1).fingerprint != draw(EXAMPLES, 200, seed=2).fingerprint


def test_fifteen_percent_are_documents_and_none_comes_twice() -> None:
    workload = draw(EXAMPLES, 200)
    documents = {example.text for example in EXAMPLES if example.kind == "document"}
    assert sum(text in documents for text in workload.texts) == workload.documents == 30
    assert len(set(workload.texts)) == 200


def test_the_first_texts_are_a_workload_like_the_whole() -> None:
    workload = draw(EXAMPLES, 200)
    assert workload.first(100).texts == workload.texts[:100]
    assert workload.first(100).documents == 15


def test_a_corpus_too_small_is_said() -> None:
    with pytest.raises(TooFewTexts, match="sentence"):
        draw(EXAMPLES, 1_000)
