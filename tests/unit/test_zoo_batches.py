"""The tokenizer and the batches, on a handful of sentences."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lockstep.zoo import tokenizer as tokenizers
from lockstep.zoo.batches import BATCH_ROWS, BATCH_TOKENS, Batch, Encoded, accuracy, by_length, encode, pad, shuffled
from lockstep.zoo.corpus import SPLITS, Corpus

TEXTS = ["A good film.", "a bad film!", "Not good, not bad: a film", "the café was good", "bad bad bad"]


def corpus_of(folder: Path, texts: list[str]) -> Corpus:
    folder.mkdir()
    corpus = Corpus(folder, "fingerprint", dict.fromkeys(SPLITS, len(texts)))
    for split in SPLITS:
        with corpus.path(split).open("w", encoding="utf-8") as lines:
            for number, text in enumerate(texts):
                example = {"id": str(number), "text": text, "label": number % 2, "kind": "sentence"}
                lines.write(json.dumps(example | {"source": "test"}) + "\n")
    return corpus


def test_same_texts_give_the_same_tokenizer(tmp_path: Path) -> None:
    first, second = (tokenizers.train(TEXTS, 60).to_str() for _ in range(2))
    assert first == second


def test_tokenizer_wraps_and_folds_case_and_neither_pads_nor_cuts() -> None:
    tokenizer = tokenizers.train(TEXTS, 200)
    assert tokenizer.encode("A GOOD film").tokens == ["[CLS]", "a", "good", "film", "[SEP]"]
    assert tokenizer.encode("CAFÉ").ids == tokenizer.encode("cafe").ids
    assert [tokenizer.token_to_id(token) for token in tokenizers.SPECIAL_TOKENS] == [0, 1, 2, 3, 4]
    assert tokenizer.encode("日").tokens == ["[CLS]", "[UNK]", "[SEP]"]
    assert (tokenizer.padding, tokenizer.truncation) == (None, None)
    assert len(tokenizer.encode("good " * 1000).ids) == 1002
    assert tokenizer.decode(tokenizer.encode("a good film").ids) == "a good film"


def test_tokenizer_is_trained_once_and_again_when_it_was_changed(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path / "corpus", TEXTS)
    path = tokenizers.fit(corpus, tmp_path / "tokenizer.json")
    made = path.stat().st_ino
    assert tokenizers.fit(corpus, path).stat().st_ino == made
    original = path.read_bytes()
    path.write_bytes(original + b" ")
    assert tokenizers.fit(corpus, path).read_bytes() == original


def test_encoding_cuts_in_memory_and_leaves_the_file_alone(tmp_path: Path) -> None:
    corpus = corpus_of(tmp_path / "corpus", [*TEXTS, "good " * 1000])
    path = tokenizers.fit(corpus, tmp_path / "tokenizer.json")
    before = path.read_bytes()
    texts = encode(corpus, path)
    assert max(len(row.ids) for row in texts.train) == tokenizers.MAX_TOKENS
    assert [row.label for row in texts.test] == [0, 1, 0, 1, 0, 1]
    assert path.read_bytes() == before


def test_tokenizer_with_another_pad_id_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(tokenizers.train(TEXTS, 60).to_str().replace("[PAD]", "[GAP]"))
    with pytest.raises(ValueError, match=r"\[PAD\]"):
        encode(corpus_of(tmp_path / "corpus", TEXTS), path)


def test_tokenizer_of_a_checkpoint_may_pad_and_be_larger(tmp_path: Path) -> None:
    tokenizer = tokenizers.train(TEXTS, 200)
    tokenizer.enable_padding(length=128)
    tokenizer.add_tokens([f"name{number}" for number in range(tokenizers.VOCABULARY_TOKENS)])
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    corpus = corpus_of(tmp_path / "corpus", TEXTS)
    with pytest.raises(ValueError, match="the models embed"):
        encode(corpus, path)
    texts = encode(corpus, path, vocabulary_tokens=None)
    assert [len(row.ids) for row in texts.test][:2] == [6, 6]


def row(length: int, label: int = 0) -> Encoded:
    return Encoded((7,) * length, label, "sentence")


def test_padding_is_at_the_right_end() -> None:
    batch = pad([row(1), row(3, label=1)])
    assert batch.input_ids.tolist() == [[7, 0, 0], [7, 7, 7]]
    assert batch.attention_mask.tolist() == [[1, 0, 0], [1, 1, 1]]
    assert (batch.lengths.tolist(), batch.labels.tolist()) == ([1, 3], [0, 1])
    assert {batch.input_ids.dtype, batch.attention_mask.dtype, batch.lengths.dtype} == {np.dtype(np.int64)}


@given(st.lists(st.integers(1, 256), min_size=1, max_size=300), st.integers(0, 3), st.integers(0, 3))
def test_an_epoch_sees_each_row_once_within_the_limits(lengths: list[int], seed: int, epoch: int) -> None:
    rows = [row(length) for length in lengths]
    for batches in (shuffled(rows, seed, epoch), by_length(rows)):
        assert sorted(int(n) for batch in batches for n in batch.lengths) == sorted(lengths)
        assert all(len(batch.labels) <= BATCH_ROWS for batch in batches)
        assert all(batch.input_ids.size <= BATCH_TOKENS for batch in batches)


def test_order_depends_on_seed_and_epoch_alone() -> None:
    rows = [Encoded((number + 1,), 0, "sentence") for number in range(50)]

    def order(seed: int, epoch: int) -> list[int]:
        return [int(n) for batch in shuffled(rows, seed, epoch) for n in batch.input_ids[:, 0]]

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1) != order(2, 1)


def test_accuracy_counts_the_rows_and_not_the_batches() -> None:
    def always_positive(batch: Batch) -> NDArray[np.float32]:
        return np.tile(np.array([0, 1], dtype=np.float32), (len(batch.labels), 1))

    assert accuracy([row(1 + n % 9, label=int(n < 25)) for n in range(100)], always_positive) == 0.25
