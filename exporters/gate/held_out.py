"""The held-out rows that the gate compares on: real text from a JSON-lines file, as token ids.

Owns the file's format ({"id", "text", "label"?, "kind"?} a line) and the choice of rows. Knows no model
beyond its tokenizer, labels and maximum.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from lockstep.exporters.conversion import ExportError, Ids
from lockstep.server.core.errors import InvalidInput
from lockstep.server.text.encoder import TextEncoder

Row = NDArray[np.int64]  # int64[length]

MAX_ROWS = 4096
"""Of one verification: more would cost minutes and could not change an accuracy by much."""

_SHOWN_CHARACTERS = 80
_GRID_LENGTHS = (1, 2, 3, 5, 8, 13, 21, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096)
_ROWS_PER_LENGTH = 4
_SPECIAL_IDS = 16
"""Of a tokenizer with more special tokens, so many are tried."""
_SPECIAL_TOKENS = 6
"""Real tokens of a row around a special one."""


class HeldOutError(ExportError):
    """The verification texts cannot be used; the message names the file and the line."""


class Line(BaseModel):
    """One line of the file."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    text: str
    id: str | int | None = None
    label: int | str | None = None  # the label's index, or the label itself
    kind: str | None = None  # "sentence" or "document"


@dataclass(frozen=True, slots=True)
class SpecialRow:
    """A row with an id inside it that held-out text may lack: padding, the unknown word, a special token."""

    ids: Row
    note: str  # which id and where, for people
    alone: bool  # nothing else is in the row: a source that masks the id may have no answer to it


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Rows of held-out text, and the rows cut from them that the grid of lengths needs."""

    rows: tuple[Row, ...]  # the texts, each cut at the model's maximum
    texts: tuple[str, ...]  # of rows, shortened for display
    labels: NDArray[np.int64]  # int64[rows]: the true label's index, -1 where the file has none
    sentences: NDArray[np.bool_]  # bool[rows]: is a sentence, not a document
    grid: tuple[Row, ...]  # rows of every length of the grid, cut from (or joined of) real text
    stream: Row  # all tokens in a row, for batches of a given shape
    special: tuple[SpecialRow, ...] = ()  # rows with each special id in every place, whatever the texts hold

    def batch(self, rows: int, length: int) -> Ids:
        """Return int64[rows, length] of real tokens, no padding."""
        ids: Ids = np.resize(self.stream, (rows, length))
        return ids

    def describe(self, index: int) -> str:
        """Return in words what stands at an index of the held-out rows and, after them, those of the grid."""
        if index < len(self.rows):
            return f'"{self.texts[index]}"'
        tokens = len(self.grid[index - len(self.rows)])
        return f"a row of {tokens} token{'' if tokens == 1 else 's'}"


def read(path: Path, encoder: TextEncoder, labels: Sequence[str], pad_id: int = 0) -> HeldOut:
    """Read the texts and encode them; raises `HeldOutError`.

    Of more than MAX_ROWS texts, evenly spaced ones are taken. A text without tokens is left out.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors begin a file with a byte order mark
    except FileNotFoundError:
        raise HeldOutError(
            f"{path}: no such file. It holds the held-out texts that an export is verified with, one JSON "
            'object a line, {"text": ..., "label": 0}; name one with --verify-with'
        ) from None
    except UnicodeDecodeError as error:
        raise HeldOutError(f"{path}: not UTF-8 text ({error})") from error
    except OSError as error:
        raise HeldOutError(f"{path}: {error.strerror}") from error
    # By line feeds alone: a text may hold other ends of line.
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    step = max(1.0, len(lines) / MAX_ROWS)
    chosen = [int(i * step) for i in range(int(len(lines) / step))]
    parsed = [_parse(path, *lines[number], labels) for number in chosen]
    rows, texts, truths, sentences = [], [], [], []
    encodings = encoder.encode([line.text for line, _ in parsed], truncate=True)
    for (line, label), encoding in zip(parsed, encodings, strict=True):
        if isinstance(encoding, InvalidInput):
            continue
        rows.append(encoding.ids)
        texts.append(shorten(line.text))
        truths.append(label)
        sentences.append(line.kind != "document")
    if not rows:
        raise HeldOutError(f"{path}: holds no text with any tokens")
    stream = np.concatenate(rows)
    return HeldOut(
        rows=tuple(rows),
        texts=tuple(texts),
        labels=np.array(truths, dtype=np.int64),
        sentences=np.array(sentences, dtype=np.bool_),
        grid=grid_rows(rows, stream, encoder.max_tokens),
        stream=stream,
        special=special_rows(stream, special_ids(encoder, pad_id), encoder.max_tokens),
    )


def special_ids(encoder: TextEncoder, pad_id: int) -> dict[int, str]:
    """Return the ids that must be tried inside rows, and what each is: padding first, then special tokens.

    A text can spell a special token out, and some vocabularies give unknown words the id of the padding. Of more
    than _SPECIAL_IDS, evenly spaced ones are taken.
    """
    tokens = encoder.special_tokens
    last = encoder.vocabulary - 1
    named = {pad_id: f"the padding id {pad_id}"} | {number: f"{token}, id {number}" for number, token in tokens.items()}
    named |= {number: f"id {number}" for number in (0, last) if number not in named}
    found = [number for number in named if 0 <= number <= last]
    step = max(1.0, len(found) / _SPECIAL_IDS)
    return {number: named[number] for number in (found[int(i * step)] for i in range(int(len(found) / step)))}


def special_rows(stream: Row, ids: Mapping[int, str], max_tokens: int) -> tuple[SpecialRow, ...]:
    """Return rows with each id at the beginning, inside, twice inside, at the end, and alone, of real tokens else."""
    rows = []
    for number, name in ids.items():
        text = np.resize(stream[stream != number] if (stream != number).any() else stream, _SPECIAL_TOKENS)
        one = np.array([number], dtype=np.int64)
        half = len(text) // 2
        places = {
            "alone": one,
            "at the beginning": np.concatenate([one, text]),
            "inside": np.concatenate([text[:half], one, text[half:]]),
            "twice inside": np.concatenate([text[:half], one, text[half : half + 1], one, text[half + 1 :]]),
            "at the end": np.concatenate([text, one, one]),
        }
        rows += [
            SpecialRow(row, f"with {name}, {place}", place == "alone")
            for place, row in places.items()
            if 0 < len(row) <= max_tokens
        ]
    return tuple(rows)


def grid_lengths(max_tokens: int) -> tuple[int, ...]:
    """Return the lengths of the grid, tokens: from 1 to the maximum, both included."""
    return tuple(sorted({length for length in _GRID_LENGTHS if length < max_tokens} | {max_tokens}))


def grid_rows(rows: Sequence[Row], stream: Row, max_tokens: int) -> tuple[Row, ...]:
    """Return a few rows of every length of the grid.

    A row is the beginning of a real text that is long enough; where too few are, the stream of all texts is
    cut instead, repeated if need be.
    """
    longest_last = sorted(rows, key=len)
    grid = []
    for length in grid_lengths(max_tokens):
        enough = [row for row in longest_last if len(row) >= length][: 8 * _ROWS_PER_LENGTH]
        picked = enough[:: max(1, len(enough) // _ROWS_PER_LENGTH)][:_ROWS_PER_LENGTH]
        cuts = [row[:length] for row in picked]
        for part in itertools.islice(itertools.count(), _ROWS_PER_LENGTH - len(cuts)):
            cuts.append(np.resize(np.roll(stream, -part * 7 * length), length))
        grid.extend(cuts)
    return tuple(grid)


def shorten(text: str) -> str:
    """Return the text on one line, cut for display."""
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN_CHARACTERS else line[: _SHOWN_CHARACTERS - 1] + "…"


def _parse(path: Path, number: int, line: str, labels: Sequence[str]) -> tuple[Line, int]:
    try:
        parsed = Line.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise HeldOutError(f"{path}, line {number}: {where or 'JSON'}: {first['msg']}") from error
    if parsed.label is None:
        return parsed, -1
    if isinstance(parsed.label, str):
        if parsed.label not in labels:
            raise HeldOutError(f"{path}, line {number}: label {parsed.label!r} is none of {list(labels)}")
        return parsed, list(labels).index(parsed.label)
    if not 0 <= parsed.label < len(labels):
        raise HeldOutError(f"{path}, line {number}: label {parsed.label} of {len(labels)} labels")
    return parsed, parsed.label
