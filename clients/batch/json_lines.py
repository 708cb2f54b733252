"""JSON lines: one object a line. A line is kept byte by byte; the answer's members are put before its last brace.

So no number, key order or escape of the input is rewritten, and no types are inferred: rows may have different keys,
and a key different types. Lines that hold nothing are no rows. Half a surrogate pair, which JSON can escape and no
other format can hold, is kept in JSON lines, and becomes U+FFFD elsewhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from lockstep.clients.batch.answers import AnswerColumns
from lockstep.clients.batch.batch_errors import ColumnMissing, InputUnreadable, PlanRefused
from lockstep.clients.batch.rows import Chunk, ChunkLimits, Position, Rows, Text, Unreadable
from lockstep.clients.batch.streams import Lines, Source, refuse_no_text
from lockstep.clients.results import Result

if TYPE_CHECKING:
    import pyarrow as pa

_BOM: Final = b"\xef\xbb\xbf"
_SURVEY_ROWS: Final = 1024
_ESCAPES: Final = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)"
)
"""Every escape of a line, surrogate pairs as one: a surrogate that is left is half of one."""

Document = dict[str, Any]


class JsonRows:
    """Lines, and the objects that were read from them (empty where one could not be)."""

    def __init__(self, lines: Sequence[bytes], documents: Sequence[Document], schema: pa.Schema | None) -> None:
        self._lines = lines
        self.documents = documents
        self._schema = schema

    def json_objects(self) -> list[bytes]:
        """Return the lines as they are."""
        return list(self._lines)

    def csv_records(self) -> list[bytes]:
        """Return the members in the order of the survey; what is no string is written as JSON."""
        from lockstep.clients.batch.csv_text import records

        assert self._schema is not None
        names = self._schema.names
        return records([_csv_value(document.get(name)) for name in names] for document in self.documents)

    def record_batch(self) -> pa.RecordBatch:
        """Return the members as columns of the surveyed types."""
        import pyarrow as pa

        assert self._schema is not None
        try:
            if not self._schema.names:
                return pa.RecordBatch.from_struct_array(pa.array(self.documents, pa.struct([])))
            return pa.RecordBatch.from_struct_array(pa.array(self.documents, pa.struct(list(self._schema))))
        except (pa.ArrowException, OverflowError) as error:
            raise InputUnreadable(f"a value does not fit its column's type: {error}") from error


class JsonLinesReader:
    """Reads JSON lines from a position on. A line that is not an object becomes a row without columns."""

    def __init__(
        self, source: Source, text_column: str, limits: ChunkLimits, start: Position, schema: pa.Schema | None
    ) -> None:
        """Take over a source. `schema` is the survey's; without it rows can only be written as JSON lines."""
        if schema is None and start.byte == 0:  # a survey has seen to it
            refuse_other_formats(source.beginning())
        self.schema = schema
        self.names = None if schema is None else tuple(schema.names)
        self.total = source.stored_bytes
        self._source = source
        self._lines = Lines(source, start)
        self._row = start.row
        self._text_column = text_column
        self._limits = limits

    def read(self) -> Chunk | None:
        """Return the next rows."""
        lines: list[bytes] = []
        documents: list[Document] = []
        texts: list[Text] = []
        size_bytes = 0
        while len(lines) < self._limits.rows and size_bytes < self._limits.size_bytes:
            raw = self._lines.next()
            if raw is None:
                break
            size_bytes += len(raw)
            stripped = raw.removeprefix(_BOM).strip() if self._lines.line == 1 else raw.strip()
            if not stripped:
                continue
            document = parse(stripped, self._lines.line)
            if isinstance(document, Unreadable):
                lines.append(b"{}")
                documents.append({})
                texts.append(document)
            else:
                lines.append(stripped)
                texts.append(text_of(document, self._text_column))
                documents.append(document if self.schema is None else _sound(stripped, document))
        if not lines:
            return None
        self._row += len(lines)
        end = Position(self._row, self._lines.line, self._lines.byte)
        rows = JsonRows(lines, documents, self.schema)
        return Chunk(tuple(texts), rows, size_bytes, end, self._source.stored_position(self._lines.byte))

    def close(self) -> None:
        """Close the source."""
        self._source.close()


class JsonLinesEncoder:
    """Writes JSON lines."""

    header = b""

    def __init__(self, columns: AnswerColumns) -> None:
        self._columns = columns

    def encode(self, rows: Rows, results: Sequence[Result]) -> bytes:
        """Return the lines of rows with their answers. Raises `ColumnsCollide`."""
        if isinstance(rows, JsonRows):  # keys may differ from row to row: a survey is not there for a pipe
            for document in rows.documents:
                self._columns.check(document, "a row")
        return b"".join(
            _spliced(one, self._columns.json_members(result))
            for one, result in zip(rows.json_objects(), results, strict=True)
        )


def parse(line: bytes, number: int) -> Document | Unreadable:
    """Read a line."""
    try:
        found = json.loads(line.decode())
    except UnicodeDecodeError:
        return Unreadable(f"line {number} is not UTF-8")
    except (ValueError, RecursionError) as error:
        return Unreadable(f"line {number} is not JSON: {error}")
    if not isinstance(found, dict):
        return Unreadable(f"line {number} is {_kind(found)}, not an object")
    return found


def refuse_other_formats(beginning: bytes) -> None:
    """Raise `InputUnreadable`, with what it is, if the first bytes of a file show that it is not JSON lines."""
    refuse_no_text(beginning)
    text = beginning.removeprefix(_BOM).decode("utf-8", "replace").lstrip()
    first = text.partition("\n")[0].rstrip()
    if text.startswith("[") and not _is_row_of_its_own(first):
        raise InputUnreadable("the input is one JSON array, not an object a line: convert it, jq -c '.[]' FILE")
    if first.endswith(",") and _length_of_object(first) == len(first) - 1:
        raise InputUnreadable("the lines of the input end in commas: remove them, sed 's/,$//' FILE")
    if _length_of_object(text) > len(first):
        raise InputUnreadable("the input has an object on several lines, not one a line: convert it, jq -c . FILE")


def _is_row_of_its_own(line: str) -> bool:
    """Whether a line is an array of something else than objects: a row that is wrong, and not a whole file."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return not any(isinstance(one, dict) for one in found)


def _length_of_object(text: str) -> int:
    """Return how long the JSON object is that a text begins with; 0 if there is none, or not all of it."""
    try:
        found, length = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return 0
    return length if isinstance(found, dict) else 0


def text_of(document: Document, column: str) -> Text:
    """Return a document's text."""
    if column not in document:
        return Unreadable(f"the row has no {column!r}")
    text = document[column]
    if not isinstance(text, str):
        return Unreadable(f"{column!r} is {_kind(text)}, not a string")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            return Unreadable(f"{column!r} is not valid Unicode: {error.reason}")
    return text


def survey(source: Source, text_column: str, columns: AnswerColumns, *, types: bool) -> pa.Schema:
    """Read a source through, from its beginning, and return its columns in the order in which they appear; blocks.

    Their types are found where they are wanted, else null. Raises `ColumnMissing` where no row has the text,
    `ColumnsCollide`, `InputUnreadable`, `PlanRefused` where a column's values fit no one type.
    """
    import pyarrow as pa

    refuse_other_formats(source.beginning())
    schema, names, widened, rows = pa.schema([]), dict[str, None](), False, 0
    for found in _blocks(source):
        rows += len(found.lines)
        for document in found.documents:
            if not (names.keys() >= document.keys()):
                names.update(dict.fromkeys(document))
        if types and found.documents:
            block = _schema_of(found)
            try:
                wider = pa.unify_schemas([schema, block], promote_options="permissive")
            except pa.ArrowException as error:
                raise _no_one_type(f"lines {found.lines[0]} to {found.lines[-1]} and those before", error) from error
            widened = widened or any(_widened(pa.struct(list(one)), pa.struct(list(wider))) for one in (schema, block))
            schema = wider
    columns.check(names)
    if rows and text_column not in names:
        raise ColumnMissing(text_column, tuple(names))
    if widened:
        _check_values(source, schema)
    return schema if types else pa.schema([(name, pa.null()) for name in names])


@dataclass(slots=True)
class _Block:
    """Rows that are surveyed at once."""

    lines: list[int] = field(default_factory=list)  # of every row
    documents: list[Document] = field(default_factory=list)  # of those that hold one
    at: list[int] = field(default_factory=list)  # the lines of the documents


def _blocks(source: Source) -> Iterator[_Block]:
    """Read a source through, from its beginning. Raises `InputUnreadable`."""
    lines, block = Lines(source, Position()), _Block()
    while (raw := lines.next()) is not None:
        stripped = raw.removeprefix(_BOM).strip() if lines.line == 1 else raw.strip()
        if not stripped:
            continue
        document = parse(stripped, lines.line)
        block.lines.append(lines.line)
        if not isinstance(document, Unreadable):
            block.documents.append(_sound(stripped, document))
            block.at.append(lines.line)
        if len(block.lines) == _SURVEY_ROWS:
            yield block
            block = _Block()
    if block.lines:
        yield block


def _schema_of(block: _Block) -> pa.Schema:
    import pyarrow as pa

    try:
        return pa.schema(list(pa.array(block.documents).type))
    except (pa.ArrowException, OverflowError) as error:
        raise _no_one_type(f"lines {block.lines[0]} to {block.lines[-1]}", error) from error


def _no_one_type(where: str, error: Exception) -> PlanRefused:
    return PlanRefused(
        f"{where} hold values that fit no one column type: {error}; write .jsonl, which keeps them as they are"
    )


def _widened(before: pa.DataType, after: pa.DataType) -> bool:
    """Whether integers have become floats, which hold few of the integers beyond 2^53."""
    import pyarrow as pa

    if pa.types.is_struct(before) and pa.types.is_struct(after):
        return any(_widened(one.type, after.field(one.name).type) for one in before)
    if pa.types.is_list(before) and pa.types.is_list(after):
        return _widened(before.value_type, after.value_type)
    return bool(pa.types.is_integer(before) and pa.types.is_floating(after))


def _check_values(source: Source, schema: pa.Schema) -> None:
    """Read a source once more; raises `PlanRefused` for the first value that its column cannot hold."""
    import pyarrow as pa

    def fits(documents: list[Document]) -> Exception | None:
        try:
            pa.array(documents, pa.struct(list(schema)))
        except (pa.ArrowException, OverflowError) as error:
            return error
        return None

    for block in _blocks(source):
        if fits(block.documents) is None:
            continue
        for line, document in zip(block.at, block.documents, strict=True):
            if (error := fits([document])) is not None:
                raise PlanRefused(
                    f"line {line} holds a value that does not fit its column's type, a float because of other lines: "
                    f"{error}; write .jsonl, which keeps every value as it is"
                ) from error


def _sound(line: bytes, document: Document) -> Document:
    """Return a line's document as it can be encoded: without halves of surrogate pairs, in names and values."""
    if rb"\ud" not in line and rb"\uD" not in line:
        return document
    sound = _ESCAPES.sub(lambda found: rb"\ufffd" if found["half"] else found[0], line)
    return document if sound == line else json.loads(sound)


def _spliced(line: bytes, members: bytes) -> bytes:
    head = line[:-1].rstrip()
    comma = b"" if head == b"{" else b", "
    return b"".join((head, comma, members, b"}\n"))


def _csv_value(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _kind(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"
