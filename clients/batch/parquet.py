"""Parquet: columns and their types are kept, the answer's columns follow them.

A Parquet file cannot be continued once its writer is gone. So answers are kept as Arrow streams, one after the other
(`ArrowEncoder`), and become one Parquet file at the end, in row groups that depend on nothing but the rows
(`RowGroups`): neither on how they came in chunks, nor on how often the run was killed.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import json
import math
from collections.abc import Callable, Generator, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lockstep.clients.batch.answers import AnswerColumns
from lockstep.clients.batch.batch_errors import InputUnreadable, PlanRefused
from lockstep.clients.batch.rows import Chunk, ChunkLimits, Position, Rows, Text, Unreadable
from lockstep.clients.results import Result

GROUP_ROWS: Final = 16_384
GROUP_BYTES: Final = 32 * 1024 * 1024
_PAGE_BYTES: Final = 1024 * 1024
_VALUE_BYTES: Final = 8  # about what a value of fixed width, or of a list, takes
_COMPRESSION: Final = "zstd"
_LISTS: Final = ((pa.types.is_list, pa.list_), (pa.types.is_large_list, pa.large_list))
_BINARY: Final = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)


class ArrowRows:
    """Rows as columns."""

    def __init__(self, batch: pa.RecordBatch, row: int = 0) -> None:
        """Take rows; `row` of the input come before them."""
        self._batch = batch
        self._row = row

    def json_objects(self) -> list[bytes]:
        """Return objects; times are written by ISO 8601, bytes by Base64, what is no number as null."""
        return [
            json.dumps(document, ensure_ascii=False, default=_plain).encode("utf-8", "replace")
            for document in self._documents()
        ]

    def csv_records(self) -> list[bytes]:
        """Return records; what is no string is written as JSON would write it, null is empty."""
        from lockstep.clients.batch.csv_text import records

        return records([_csv_value(value) for value in document.values()] for document in self._documents())

    def record_batch(self) -> pa.RecordBatch:
        """Return the columns as they are."""
        return self._batch

    def _documents(self) -> list[dict[str, Any]]:
        columns = []
        for name, column in zip(self._batch.schema.names, self._batch.columns, strict=True):
            try:
                columns.append(_python_values(column))
            except (pa.ArrowException, ValueError, OverflowError) as error:
                row = next(row for row in range(len(column)) if not _can_be_shown(column.slice(row, 1)))
                raise InputUnreadable(
                    f"row {self._row + row + 1}: the value of {name!r} cannot be written as text: {error}"
                ) from error
        names = self._batch.schema.names
        return [
            {name: _finite(value) for name, value in zip(names, row, strict=True)}
            for row in (zip(*columns, strict=True) if columns else [()] * self._batch.num_rows)
        ]


class ParquetReader:
    """Reads a Parquet file from a row on."""

    def __init__(self, path: Path, text_column: str, limits: ChunkLimits, start: Position) -> None:
        """Open a file. Raises `PlanRefused` for a text column that holds no strings, `InputUnreadable`."""
        try:
            # Buffered: else a whole row group's columns are held in memory at once.
            self._file = pq.ParquetFile(path, buffer_size=_PAGE_BYTES, pre_buffer=False)
        except pa.ArrowException as error:
            raise InputUnreadable(f"not a Parquet file: {error}") from error
        self.schema: pa.Schema = self._file.schema_arrow
        names: tuple[str, ...] = tuple(self.schema.names)
        self.names: tuple[str, ...] | None = names
        self.total: int | None = self._file.metadata.num_rows
        if len(set(names)) < len(names):
            raise InputUnreadable("the input has columns of the same name")
        if text_column in names and not _holds_text(self.schema.field(text_column).type):
            kind = self.schema.field(text_column).type
            raise PlanRefused(f"column {text_column!r} holds {kind}, not strings (--text-column)")
        self._text_column = text_column
        self._limits = limits
        self._row = start.row
        self._slices = self._from(start.row)

    def read(self) -> Chunk | None:
        """Return the next rows."""
        try:
            batch = next(self._slices, None)
        except (pa.ArrowException, OSError) as error:
            raise InputUnreadable(f"after row {self._row}: {error}") from error
        if batch is None:
            return None
        rows = ArrowRows(batch, self._row)
        self._row += batch.num_rows
        texts: list[Text] = [
            Unreadable(f"{self._text_column!r} is null") if text is None else text
            for text in _strings(batch.column(self._text_column))
        ]
        end = Position(row=self._row)
        return Chunk(tuple(texts), rows, sum(_sizes(batch)), end, self._row)

    def close(self) -> None:
        """Close the file."""
        self._slices.close()
        self._file.close()

    def _from(self, row: int) -> Generator[pa.RecordBatch, None, None]:
        """Yield slices within the limits, from a row on; row groups before it are not read."""
        metadata = self._file.metadata
        ends = list(accumulate(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)))
        groups = [group for group, end in enumerate(ends) if end > row]
        if not groups:
            return
        skip = row - (ends[groups[0]] - metadata.row_group(groups[0]).num_rows)
        for batch in self._file.iter_batches(self._limits.rows, row_groups=groups):
            if skip >= batch.num_rows:
                skip -= batch.num_rows
                continue
            yield from _within(batch.slice(skip), self._limits.size_bytes)
            skip = 0


class ArrowEncoder:
    """Writes rows with their answers as Arrow streams, one for each chunk: they may follow one another in a file."""

    header = b""

    def __init__(self, columns: AnswerColumns, schema: pa.Schema) -> None:
        """Take the input's types. Raises `PlanRefused` where Parquet has no such type."""
        self._columns = columns
        self.schema = pa.schema([*schema, *columns.fields()], schema.metadata)
        # Metadata is for the final file; a stream of few rows should not repeat it.
        self._stream_schema = self.schema.remove_metadata()
        self._options = pa.ipc.IpcWriteOptions(compression="lz4")
        try:
            RowGroups(pa.BufferOutputStream(), self.schema).close()
        except pa.ArrowException as error:
            raise PlanRefused(f"Parquet cannot hold these columns: {error}") from error

    def encode(self, rows: Rows, results: Sequence[Result]) -> bytes:
        """Return the stream of rows with their answers."""
        columns = [*rows.record_batch().columns, *self._columns.arrays(results)]
        batch = pa.RecordBatch.from_arrays(columns, schema=self._stream_schema)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self._stream_schema, options=self._options) as stream:
            stream.write_batch(batch)
        written: bytes = sink.getvalue().to_pybytes()
        return written


class RowGroups:
    """Writes batches as one Parquet file, in row groups that depend on the rows alone."""

    def __init__(self, sink: Any, schema: pa.Schema) -> None:
        """Write to a path or a file-like object."""
        self._schema = schema
        self._writer = pq.ParquetWriter(sink, schema, compression=_COMPRESSION)
        self._pending: list[pa.RecordBatch] = []
        self._pending_rows = 0
        self._pending_bytes = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Take rows; a row group is written when it is full, by rows or by bytes."""
        begin = 0
        for row, size_bytes in enumerate(_sizes(batch)):
            if self._pending_rows + row - begin == GROUP_ROWS or (
                self._pending_bytes and self._pending_bytes + size_bytes > GROUP_BYTES
            ):
                self._take(batch.slice(begin, row - begin))
                self._write()
                begin = row
            self._pending_bytes += size_bytes
        self._take(batch.slice(begin))

    def close(self) -> None:
        """Write what is left, and the footer."""
        if self._pending_rows:
            self._write()
        self._writer.close()

    def _take(self, batch: pa.RecordBatch) -> None:
        self._pending.append(batch)
        self._pending_rows += batch.num_rows

    def _write(self) -> None:
        # Pages end where arrays do: one array a column, so that they depend on the rows alone.
        table = pa.Table.from_batches(self._pending).combine_chunks().cast(self._schema)
        self._writer.write_table(table, row_group_size=GROUP_ROWS)
        self._pending, self._pending_rows, self._pending_bytes = [], 0, 0


def streamed(source: pa.NativeFile, size_bytes: int) -> Iterator[pa.RecordBatch]:
    """Yield the batches of Arrow streams that follow one another."""
    while source.tell() < size_bytes:
        stream = pa.ipc.open_stream(source)
        yield from stream


def _holds_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _holds_text(kind.value_type)
    return any(holds(kind) for holds in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))


def _strings(column: pa.Array) -> list[str | Unreadable | None]:
    try:
        return list(column.to_pylist())
    except UnicodeDecodeError:
        return [None if one is None else _decoded(one) for one in column.cast(_undecoded(column.type)).to_pylist()]


def _decoded(raw: bytes) -> str | Unreadable:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return Unreadable("the text is not UTF-8")


def _within(batch: pa.RecordBatch, size_bytes: int) -> Iterator[pa.RecordBatch]:
    begin, held = 0, 0
    for row, size in enumerate(_sizes(batch)):
        if held and held + size > size_bytes:
            yield batch.slice(begin, row - begin)
            begin, held = row, 0
        held += size
    yield batch.slice(begin)


def _sizes(batch: pa.RecordBatch) -> list[int]:
    """Return about how many bytes each row takes: a function of its values alone, not of how they lie in memory."""
    sizes = [_VALUE_BYTES * batch.num_columns] * batch.num_rows
    for column in batch.columns:
        kind = column.type
        if any(holds(kind) for holds in _BINARY):
            lengths, unit = pc.binary_length(column), 1
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
            lengths, unit = pc.list_value_length(column), _VALUE_BYTES
        else:
            continue
        sizes = [size + unit * (length or 0) for size, length in zip(sizes, lengths.to_pylist(), strict=True)]
    return sizes


def _python_values(column: pa.Array) -> list[Any]:
    """Return values that Python can hold: a time may be finer than Python's own, a string may not be UTF-8."""
    shown = column.cast(_shown(column.type)) if _shown(column.type) != column.type else column
    try:
        return list(shown.to_pylist())
    except UnicodeDecodeError:
        raw = shown.cast(_undecoded(shown.type)).to_pylist()
        return [_with_text(value, shown.type) for value in raw]


def _can_be_shown(column: pa.Array) -> bool:
    try:
        _python_values(column)
    except (pa.ArrowException, ValueError, OverflowError):
        return False
    return True


def _shown(kind: pa.DataType) -> pa.DataType:
    """Return a type whose values Python can hold."""
    if pa.types.is_timestamp(kind) or pa.types.is_time(kind) or pa.types.is_date(kind):
        return pa.string()
    return pa.int64() if pa.types.is_duration(kind) else _inside(kind, _shown)


def _undecoded(kind: pa.DataType) -> pa.DataType:
    """Return a type with bytes for strings."""
    if pa.types.is_string(kind) or pa.types.is_string_view(kind):
        return pa.binary()
    return pa.large_binary() if pa.types.is_large_string(kind) else _inside(kind, _undecoded)


def _inside(kind: pa.DataType, changed: Callable[[pa.DataType], pa.DataType]) -> pa.DataType:
    """Return a type with the types inside it changed."""
    if pa.types.is_dictionary(kind):
        return changed(kind.value_type)
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(changed(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(changed(kind.key_type), changed(kind.item_type))
    for holds, of in _LISTS:
        if holds(kind):
            return of(kind.value_field.with_type(changed(kind.value_type)))
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(kind.value_field.with_type(changed(kind.value_type)), kind.list_size)
    return kind


def _with_text(value: Any, kind: pa.DataType) -> Any:
    """Decode the bytes that stand for strings of a type; what is not UTF-8 becomes U+FFFD."""
    if value is None:
        return None
    if isinstance(value, bytes) and _holds_text(kind):
        return value.decode("utf-8", "replace")
    if pa.types.is_dictionary(kind):
        return _with_text(value, kind.value_type)
    if pa.types.is_struct(kind):
        return {field.name: _with_text(value[field.name], field.type) for field in kind}
    if pa.types.is_map(kind):
        return [(_with_text(key, kind.key_type), _with_text(item, kind.item_type)) for key, item in value]
    if isinstance(value, list):
        return [_with_text(one, kind.value_type) for one in value]
    return value


def _csv_value(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    found = json.dumps(value, ensure_ascii=False, default=_plain)
    return json.loads(found) if found.startswith('"') else found


def _plain(value: object) -> object:
    match value:
        case datetime.date() | datetime.time():
            return value.isoformat()
        case decimal.Decimal():
            return str(value)
        case datetime.timedelta():
            return value.total_seconds()
        case bytes():
            return base64.b64encode(value).decode()
        case _:
            return str(value)


def _finite(value: Any) -> Any:
    """Replace what JSON has no number for."""
    match value:
        case float() if not math.isfinite(value):
            return None
        case list():
            return [_finite(one) for one in value]
        case dict():
            return {name: _finite(one) for name, one in value.items()}
        case _:
            return value
