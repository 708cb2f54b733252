"""CSV with a header, in UTF-8. A record is kept byte by byte, as it is quoted; the answer's fields follow it.

So nothing is reformatted. A record may span lines. Lines that hold nothing are no rows.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Final

from lockstep.clients.batch.answers import AnswerColumns
from lockstep.clients.batch.batch_errors import InputUnreadable
from lockstep.clients.batch.rows import Chunk, ChunkLimits, Position, Rows, Text, Unreadable
from lockstep.clients.batch.streams import MAX_ROW_BYTES, Lines, Source, refuse_no_text
from lockstep.clients.results import Result

if TYPE_CHECKING:
    import pyarrow as pa

_BOM: Final = b"\xef\xbb\xbf"
_BARE_RETURN: Final = re.compile(rb"[\r\n]+[^\r\n]")
_END_OR_QUOTE: Final = re.compile(rb'"|\r\n|\r|\n')
_RETURN, _FEED = "\udc0d", "\udc0a"


class CsvRows:
    """Records, and the fields that were read from them: as many as there are columns."""

    def __init__(self, names: tuple[str, ...], records: Sequence[bytes], fields: Sequence[Sequence[str]]) -> None:
        self._names = names
        self._records = records
        self._fields = fields

    def json_objects(self) -> list[bytes]:
        """Return objects of strings."""
        import json

        return [
            json.dumps(dict(zip(self._names, map(_sound, fields), strict=True)), ensure_ascii=False).encode()
            for fields in self._fields
        ]

    def csv_records(self) -> list[bytes]:
        """Return the records as they are."""
        return list(self._records)

    def record_batch(self) -> pa.RecordBatch:
        """Return columns of strings."""
        import pyarrow as pa

        columns = [pa.array(map(_sound, column), pa.string()) for column in zip(*self._fields, strict=True)]
        return pa.RecordBatch.from_arrays(columns, names=list(self._names))


class CsvReader:
    """Reads CSV from a position on. A record that has not as many fields as the header becomes a row with an error."""

    def __init__(self, source: Source, text_column: str, limits: ChunkLimits, start: Position) -> None:
        """Take over a source and read its header. Raises `InputUnreadable`."""
        import pyarrow as pa

        csv.field_size_limit(MAX_ROW_BYTES)  # of the process: the module's own limit is 128 KiB
        self._source = source
        self._limits = limits
        self.total = source.stored_bytes
        beginning = source.beginning()
        refuse_no_text(beginning)
        returns = _ends_in_returns(beginning)
        records = _Records(Lines(source, Position(), returns=returns))
        header = records.next()
        if header is None:
            raise InputUnreadable("the input is empty: a CSV file begins with a header of column names")
        if header.bare_returns:
            raise InputUnreadable("the header has a carriage return outside quotes: end every line in the same way")
        try:
            header.raw.decode()
        except UnicodeDecodeError as error:
            raise InputUnreadable("the header is not UTF-8") from error
        self.header = header.raw
        self.line_end = header.line_end
        self._columns = tuple(header.fields)
        self.names: tuple[str, ...] | None = self._columns
        if len(set(self._columns)) < len(self._columns):
            twice = sorted({name for name in self._columns if self._columns.count(name) > 1})
            raise InputUnreadable(f"the header has columns of the same name: {', '.join(map(repr, twice))}")
        self.schema = pa.schema([(name, pa.string()) for name in self._columns])
        self._text_at = self._columns.index(text_column) if text_column in self._columns else 0
        self._records = _Records(Lines(source, start, returns=returns)) if start.byte else records
        self._row = start.row

    def read(self) -> Chunk | None:
        """Return the next rows."""
        raws: list[bytes] = []
        rows: list[Sequence[str]] = []
        texts: list[Text] = []
        size_bytes = 0
        while len(rows) < self._limits.rows and size_bytes < self._limits.size_bytes:
            found = self._records.next()
            if found is None:
                break
            size_bytes += len(found.raw)
            fields, raw = found.fields, found.raw
            if len(fields) != len(self._columns):
                texts.append(
                    Unreadable(f"line {found.line} has {_count(len(fields))}, the header {len(self._columns)}")
                )
                fields = [*fields, *[""] * len(self._columns)][: len(self._columns)]
                raw = record(fields)
            elif found.bare_returns:
                texts.append(
                    Unreadable(f"line {found.line} has a carriage return outside quotes: is it the end of a line?")
                )
                raw = record(fields)
            elif not found.sound:
                texts.append(Unreadable(f"line {found.line} is not UTF-8"))
            else:
                texts.append(fields[self._text_at])
            raws.append(raw)
            rows.append(fields)
        if not rows:
            return None
        self._row += len(rows)
        lines = self._records.lines
        end = Position(self._row, lines.line, lines.byte)
        kept = CsvRows(self._columns, raws, rows)
        return Chunk(tuple(texts), kept, size_bytes, end, self._source.stored_position(lines.byte))

    def close(self) -> None:
        """Close the source."""
        self._source.close()


class CsvEncoder:
    """Writes CSV; `header` comes first, once."""

    def __init__(
        self, columns: AnswerColumns, names: Sequence[str], header: bytes | None = None, line_end: bytes = b"\n"
    ) -> None:
        """Take the input's columns, and its header and end of line as they were read where it is CSV too."""
        self._columns = columns
        self._comma = b"," if names else b""
        self._end = line_end
        self.header = (record(names) if header is None else header) + self._comma + record(columns.names) + line_end

    def encode(self, rows: Rows, results: Sequence[Result]) -> bytes:
        """Return the records of rows with their answers."""
        answers = records(map(self._columns.csv_fields, results))
        return b"".join(
            b"".join((one, self._comma, answer, self._end))
            for one, answer in zip(rows.csv_records(), answers, strict=True)
        )


def record(fields: Sequence[str]) -> bytes:
    """Write a record without an end of line; a field is quoted where it must be."""
    return records([fields])[0]


def records(rows: Iterable[Sequence[str]]) -> list[bytes]:
    """Write records by one writer: making one takes longer than a record."""
    written = _Written()
    # The writer quotes the characters of its own line end: both of them are to be quoted.
    csv.writer(written, lineterminator="\r\n").writerows(rows)
    return [one[:-2].encode("utf-8", "surrogateescape") for one in written.records]


class _Written:
    """What a writer writes to, a record at a time."""

    def __init__(self) -> None:
        self.records: list[str] = []
        self.write = self.records.append


@dataclass(frozen=True, slots=True)
class _Record:
    """A record as it was read."""

    raw: bytes  # without the end of its line
    line_end: bytes
    fields: list[str]
    line: int  # the first of its lines
    sound: bool  # whether it is UTF-8
    bare_returns: bool  # whether there are ends of line of another kind in it, outside quotes


class _Records:
    """Records of lines. Knows which lines each was read from, so that it can be kept as it is."""

    def __init__(self, lines: Lines) -> None:
        self.lines = lines
        self._taken: list[bytes] = []
        self._taken_bytes = 0
        self._ended = False
        self._decoded_lines = self._decoded()
        self._reader = csv.reader(self._decoded_lines)

    def next(self) -> _Record | None:
        while True:
            self._taken.clear()
            self._taken_bytes = 0
            first = self.lines.line + 1
            bare_returns = False
            try:
                fields = next(self._reader)
            except StopIteration:
                return None
            except csv.Error as error:
                if not any(map(_BARE_RETURN.search, self._taken)):
                    raise InputUnreadable(f"line {first} is not CSV: {error}") from error
                fields, bare_returns = self._with_returns(), True
            if self._ended:
                raise InputUnreadable(f"a quote that is opened in line {first} or after it is never closed")
            if fields:
                raw = b"".join(self._taken)
                bare = raw.rstrip(b"\r\n")
                return _Record(bare, raw[len(bare) :] or b"\n", fields, first, _is_utf8(raw), bare_returns)

    def _with_returns(self) -> list[str]:
        """Read the record that was begun once more, with its carriage returns as any other character."""
        begun = [self._text(raw) for raw in self._taken]
        lines = (_hidden(text) for text in chain(begun, self._decoded_lines))
        return [field.replace(_RETURN, "\r").replace(_FEED, "\n") for field in next(csv.reader(lines))]

    def _decoded(self) -> Iterator[str]:
        while (raw := self.lines.next()) is not None:
            self._taken.append(raw)
            self._taken_bytes += len(raw)
            if self._taken_bytes > MAX_ROW_BYTES:
                raise InputUnreadable(
                    f"the row that ends beyond line {self.lines.line} is longer than {MAX_ROW_BYTES >> 20} MiB: "
                    "is a quote not closed?"
                )
            yield self._text(raw)
        self._ended = bool(self._taken)

    def _text(self, raw: bytes) -> str:
        text = raw.removeprefix(_BOM) if self.lines.line == 1 else raw
        return text.decode("utf-8", "surrogateescape")


def _ends_in_returns(beginning: bytes) -> bool:
    """Whether lines end in carriage returns alone, by the end of the first."""
    quoted = False
    for found in _END_OR_QUOTE.finditer(beginning):
        if found[0] == b'"':
            quoted = not quoted
        elif not quoted:
            return found[0] == b"\r"
    return False


def _hidden(text: str) -> str:
    """Replace the ends of line that are not at the end of a line: what takes their place is in no decoded text."""
    bare = text.rstrip("\r\n")
    return bare.replace("\r", _RETURN).replace("\n", _FEED) + text[len(bare) :]


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def _sound(field: str) -> str:
    """Replace what is not UTF-8: only CSV itself can keep it."""
    return field if field.isascii() else field.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _count(fields: int) -> str:
    return "1 field" if fields == 1 else f"{fields} fields"
