"""What travels from a reader to a writer: chunks of rows, whole, in order. Knows no format and no server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Position:
    """Where the next row begins: enough to go on from there. Lines and bytes are those of text formats."""

    row: int = 0
    line: int = 0
    byte: int = 0  # of the text, uncompressed


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Why a row has no text to classify."""

    message: str


Text: TypeAlias = str | Unreadable


class Rows(Protocol):
    """Rows as they were read, in the form of any format. Where it is their own, nothing in them is changed."""

    def json_objects(self) -> list[bytes]:
        """Return each row as a JSON object, UTF-8, without an end of line."""
        ...

    def csv_records(self) -> list[bytes]:
        """Return each row as a CSV record, UTF-8, without an end of line."""
        ...

    def record_batch(self) -> pa.RecordBatch:
        """Return the rows as columns."""
        ...


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive rows, asked for in one call."""

    texts: tuple[Text, ...]
    rows: Rows
    size_bytes: int  # about what they hold in memory
    end: Position
    done: int  # of the reader's `total`, when they are written


@dataclass(frozen=True, slots=True)
class ChunkLimits:
    """When a chunk is full: at so many rows, or at so many bytes, whichever comes first; never empty."""

    rows: int = 64
    size_bytes: int = 4 * 1024 * 1024  # a quarter of what a server takes in a message by default


class Reader(Protocol):
    """Reads an input once, in order."""

    names: tuple[str, ...] | None
    """The columns in order; `None` where that cannot be known before the end."""

    total: int | None
    """How much there is to do, in the unit of `Chunk.done`; `None` where that is unknown."""

    schema: pa.Schema | None
    """The columns' types, where a format needs them and they are known."""

    def read(self) -> Chunk | None:
        """Return the next rows, or `None` at the end; blocks. Raises `InputUnreadable`."""
        ...

    def close(self) -> None:
        """Let go of the input."""
        ...
