"""Text -> ids -> padded batches."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.server.core.errors import InputTooLong, InvalidInput
from lockstep.server.core.messages import Encoding
from lockstep.server.text.encoder import Side, TextEncoder
from lockstep.server.text.padding import pad
from tests import doubles


@pytest.fixture(scope="module")
def encoder() -> TextEncoder:
    return TextEncoder(doubles.tokenizer().to_str(), max_tokens=6)


def test_each_text_is_encoded_on_its_own(encoder: TextEncoder) -> None:
    rows = encoder.encode(["good film", "bad"])
    assert [row.ids.tolist() for row in rows if isinstance(row, Encoding)] == [[2, 4, 6, 3], [2, 5, 3]]


def test_a_text_without_tokens_is_refused(encoder: TextEncoder) -> None:
    for text in ("", "  \n\t "):
        (row,) = encoder.encode([text])
        assert isinstance(row, InvalidInput)
        assert "no tokens" in row.message


def test_a_long_text_is_refused_with_both_numbers_and_its_neighbours_are_not(encoder: TextEncoder) -> None:
    long, short = encoder.encode(["good " * 10, "good"])
    assert isinstance(long, InputTooLong)
    assert "12 tokens" in long.message
    assert "maximum is 6" in long.message
    assert isinstance(short, Encoding)


def test_truncation_keeps_the_special_tokens_and_says_so(encoder: TextEncoder) -> None:
    long, short = encoder.encode(["good " * 10, "good"], truncate=True)
    assert isinstance(long, Encoding)
    assert long.truncated
    assert long.ids.tolist() == [2, 4, 4, 4, 4, 3]
    assert isinstance(short, Encoding)
    assert not short.truncated


def test_a_text_is_cut_on_the_side_that_its_model_cuts() -> None:
    cases: dict[Side, list[int]] = {"right": [2, 5, 4, 4, 4, 3], "left": [2, 4, 4, 4, 6, 3]}
    for side, kept in cases.items():
        encoder = TextEncoder(doubles.tokenizer().to_str(), 6, side)
        (row,) = encoder.encode(["bad " + "good " * 10 + "film"], truncate=True)
        assert isinstance(row, Encoding)
        assert row.ids.tolist() == kept


def test_a_file_that_is_no_tokenizer_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer\.json: not a tokenizer"):
        TextEncoder.from_file(path, 8)


@given(st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=20), min_size=1, max_size=20))
def test_padding_keeps_every_row_and_fills_with_the_pad_id(rows: list[list[int]]) -> None:
    batch = pad([np.array(row, dtype=np.int64) for row in rows], pad_id=0)
    assert batch.length == max(map(len, rows))
    assert batch.lengths.tolist() == [len(row) for row in rows]
    for padded, row in zip(batch.ids.tolist(), rows, strict=True):
        assert padded == row + [0] * (batch.length - len(row))
