"""Files of rows for the tests of batch inference, in every format, and what reads them back."""

import csv
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

FORMATS = ("jsonl", "csv", "parquet")
WORDS = ("good", "bad", "film", "été", "a, b", 'said "so"', "two\nlines", "東京")


def rows_of(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Return rows of unequal length; a few have no text."""
    dice = random.Random(seed)
    return [
        {
            "id": number,
            "text": " ".join(dice.choices(WORDS, k=dice.randint(1, 30))) if dice.random() > 0.01 else None,
            "where": dice.choice(("here", "there")),
        }
        for number in range(count)
    ]


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Write rows in the format of the path's name."""
    match path.suffix:
        case ".jsonl":
            path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        case ".csv":
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
        case ".parquet":
            pq.write_table(pa.Table.from_pylist(list(rows)), path, row_group_size=700)
    return path


def read(path: Path) -> list[dict[str, Any]]:
    """Read rows back."""
    match path.suffix:
        case ".jsonl":
            return [json.loads(line) for line in path.read_bytes().split(b"\n") if line]
        case ".csv":
            with path.open(newline="", encoding="utf-8") as file:
                return list(csv.DictReader(file))
        case ".parquet":
            return list(pq.read_table(path).to_pylist())
    raise ValueError(path)


def row_groups(path: Path) -> Iterator[int]:
    """Yield the rows of each row group."""
    metadata = pq.read_metadata(path)
    for group in range(metadata.num_row_groups):
        yield metadata.row_group(group).num_rows
