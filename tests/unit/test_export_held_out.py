"""The held-out rows: read, labelled, and cut to every length of the grid."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lockstep.exporters.gate.held_out import HeldOutError, grid_lengths, grid_rows, read
from lockstep.server.text.encoder import TextEncoder
from tests.tiny.texts import LABELS, write_texts, write_tokenizer


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> TextEncoder:
    path = write_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer.json")
    return TextEncoder.from_file(path, 32)


def write(path: Path, *lines: object) -> Path:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def test_rows_are_cut_at_the_maximum_and_keep_labels_and_kinds(tmp_path: Path, encoder: TextEncoder) -> None:
    texts = read(write_texts(tmp_path / "texts.jsonl"), encoder, LABELS)
    assert max(len(row) for row in texts.rows) == 32
    assert set(texts.labels) == {0, 1}
    assert not texts.sentences.all()
    assert texts.batch(32, 64).shape == (32, 64)


def test_labels_may_be_words_or_missing(tmp_path: Path, encoder: TextEncoder) -> None:
    path = write(tmp_path / "t", {"text": "word1", "label": "positive"}, "", {"text": "word2"})
    assert list(read(path, encoder, LABELS).labels) == [1, -1]


def test_texts_without_tokens_are_left_out(tmp_path: Path, encoder: TextEncoder) -> None:
    path = write(tmp_path / "t", {"text": ""}, {"text": "word1"})
    assert len(read(path, encoder, LABELS).rows) == 1


def test_a_byte_order_mark_and_other_ends_of_line_in_a_text_are_taken(tmp_path: Path, encoder: TextEncoder) -> None:
    path = tmp_path / "t"
    path.write_bytes('\ufeff{"text": "word1\u2028word2"}\r\n{"text": "word1"}\r\n'.encode())
    assert len(read(path, encoder, LABELS).rows) == 2


def test_a_folder_is_no_file_of_texts(tmp_path: Path, encoder: TextEncoder) -> None:
    with pytest.raises(HeldOutError, match="Is a directory"):
        read(tmp_path, encoder, LABELS)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "\\ud83d"}', "line 2: JSON"),
        ('{"text": "a", "n": ' + "[" * 5_000 + "}", "line 2: JSON"),
        ("{", "line 2: JSON"),
        ({"label": 1}, "line 2: text: Field required"),
        ({"text": "a", "label": 2}, "line 2: label 2 of 2 labels"),
        ({"text": "a", "label": "meh"}, "line 2: label 'meh' is none of"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, encoder: TextEncoder, line: object, message: str) -> None:
    with pytest.raises(HeldOutError, match=message):
        read(write(tmp_path / "t", {"text": "word1"}, line), encoder, LABELS)


def test_a_missing_file_says_what_it_would_hold(tmp_path: Path, encoder: TextEncoder) -> None:
    with pytest.raises(HeldOutError, match="--verify-with"):
        read(tmp_path / "none", encoder, LABELS)
    with pytest.raises(HeldOutError, match="no text with any tokens"):
        read(write(tmp_path / "empty", ""), encoder, LABELS)


@pytest.mark.parametrize("max_tokens", [1, 2, 32, 100, 512])
def test_the_grid_holds_rows_of_every_length_to_the_maximum(max_tokens: int) -> None:
    rows = [np.arange(1, size, dtype=np.int64) for size in (3, 9, 40)]
    grid = grid_rows(rows, np.concatenate(rows), max_tokens)
    assert {len(row) for row in grid} == set(grid_lengths(max_tokens))
    assert {1, max_tokens} <= set(grid_lengths(max_tokens))
