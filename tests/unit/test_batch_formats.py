"""Readers and encoders: what goes in comes out, in every format, whatever the chunks."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lockstep.clients.batch.answers import AnswerColumns
from lockstep.clients.batch.batch_errors import ColumnMissing, ColumnsCollide, InputUnreadable, PlanRefused
from lockstep.clients.batch.csv_text import CsvEncoder, CsvReader, record
from lockstep.clients.batch.json_lines import JsonLinesEncoder, JsonLinesReader, survey
from lockstep.clients.batch.parquet import ArrowEncoder, ParquetReader, RowGroups, streamed
from lockstep.clients.batch.rows import Chunk, ChunkLimits, Position, Reader, Unreadable
from lockstep.clients.batch.streams import Source
from lockstep.clients.errors import RowError
from lockstep.clients.results import Prediction, Result
from tests.wire_double import LABELS, prediction_of

COLUMNS = AnswerColumns(LABELS, "p_")
ERROR = RowError("InputTooLong", grpc.StatusCode.INVALID_ARGUMENT, 'said "no",\nthen é')
MANY = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)


def answer_to(text: object) -> Result:
    return Prediction.from_wire(prediction_of(text, "onnxruntime"), LABELS) if isinstance(text, str) else ERROR


def chunks_of(reader: Reader) -> Iterator[Chunk]:
    try:
        while (chunk := reader.read()) is not None:
            yield chunk
    finally:
        reader.close()


def jsonl(path: Path, rows: int = 64, start: Position = Position(), schema: Any = None) -> JsonLinesReader:  # noqa: B008
    return JsonLinesReader(Source(path), "text", ChunkLimits(rows), start, schema)


def csv_reader(path: Path, rows: int = 64, start: Position = Position()) -> CsvReader:  # noqa: B008
    return CsvReader(Source(path), "text", ChunkLimits(rows), start)


def surveyed(path: Path, column: str, columns: AnswerColumns, *, types: bool) -> pa.Schema:
    with contextlib.closing(Source(path)) as source:
        return survey(source, column, columns, types=types)


def test_json_lines_are_kept_byte_by_byte(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"text":"good" ,"n":1.50, "n":1e400}\r\n\n  {}\n{"text": "\\u00e9", "big": 123456789012345678901}'
    )
    (chunk,) = chunks_of(jsonl(path))
    lines = JsonLinesEncoder(COLUMNS).encode(chunk.rows, [answer_to(text) for text in chunk.texts]).split(b"\n")
    assert lines[0].startswith(b'{"text":"good" ,"n":1.50, "n":1e400, "p_label": "positive", "p_score": 0.875,')
    assert lines[1] == (
        b'{"p_label": null, "p_score": null, "p_probabilities": null, "p_truncated": null, '
        b'"p_error": "InputTooLong: said \\"no\\",\\nthen \xc3\xa9"}'
    )
    assert lines[2].startswith(b'{"text": "\\u00e9", "big": 123456789012345678901, "p_label"')
    assert lines[3:] == [b""]
    assert chunk.end == Position(3, 4, path.stat().st_size)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"nonsense", "line 2 is not JSON"),
        (b'{"text": "caf\xe9"}', "line 2 is not UTF-8"),
        (b'["text"]', "line 2 is an array, not an object"),
        (b'{"text": 7}', "'text' is a number, not a string"),
        (b'{"text": null}', "'text' is null"),
        (b'{"other": "x"}', "has no 'text'"),
        (b'{"text": "\\ud800"}', "not valid Unicode"),
        (b"[" * 100_000, "line 2 is not JSON"),
    ],
)
def test_a_line_without_a_text_says_why_and_harms_no_other(line: bytes, why: str, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"text": "a"}\n' + line + b'\n{"text": "b"}\n')
    (chunk,) = chunks_of(jsonl(path))
    assert (chunk.texts[0], chunk.texts[2]) == ("a", "b")
    assert isinstance(chunk.texts[1], Unreadable)
    assert why in chunk.texts[1].message


@MANY
@given(
    documents=st.lists(
        st.dictionaries(
            st.sampled_from(("text", "a", "b")), TEXT | st.integers() | st.none() | st.lists(TEXT, max_size=2)
        )
    ),
    rows=st.integers(1, 5),
)
def test_json_lines_come_back_with_their_answers(documents: list[Any], rows: int, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps(document) + "\n" for document in documents))
    encoder, written, starts = JsonLinesEncoder(COLUMNS), b"", [(Position(), 0)]
    for chunk in chunks_of(jsonl(path, rows)):
        written += encoder.encode(chunk.rows, [answer_to(text) for text in chunk.texts])
        starts.append((chunk.end, len(written)))
    found = [json.loads(line) for line in written.splitlines()]
    assert [{key: one[key] for key in one if not key.startswith("p_")} for one in found] == documents
    for start, length in starts:  # from every position the rest is the same
        again = b"".join(
            encoder.encode(chunk.rows, [answer_to(text) for text in chunk.texts])
            for chunk in chunks_of(jsonl(path, rows + 1, start))
        )
        assert written[:length] + again == written


@MANY
@given(
    records=st.lists(st.tuples(TEXT.filter(bool), TEXT), max_size=12),
    rows=st.integers(1, 5),
    end=st.sampled_from(("\n", "\r\n")),
)
def test_csv_comes_back_with_its_answers(records: list[Any], rows: int, end: str, tmp_path: Path) -> None:
    import csv
    import io

    path = tmp_path / "in.csv"
    ends = end.encode()
    path.write_bytes(b"".join(record(one) + ends for one in [("text", "b, c"), *records]))
    reader = csv_reader(path, rows)
    encoder = CsvEncoder(COLUMNS, ("text", "b, c"), reader.header, reader.line_end)
    written, starts = encoder.header, [(Position(), len(encoder.header))]
    for chunk in chunks_of(reader):
        written += encoder.encode(chunk.rows, [answer_to(text) for text in chunk.texts])
        starts.append((chunk.end, len(written)))
    found = list(csv.reader(io.StringIO(written.decode(), newline="")))
    assert [tuple(one[:2]) for one in found[1:]] == records
    assert all(len(one) == 7 for one in found)
    for start, length in starts:
        again = b"".join(
            encoder.encode(chunk.rows, [answer_to(text) for text in chunk.texts])
            for chunk in chunks_of(csv_reader(path, rows + 1, start))
        )
        assert written[:length] + again == written


def test_csv_keeps_its_mark_its_quotes_and_its_ends_of_line(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(b'\xef\xbb\xbf"id",text\r\n"1","good"\r\n2,caf\xe9\r\n3\r\n\r\n4,x,y')
    reader = csv_reader(path)
    (chunk,) = chunks_of(reader)
    encoder = CsvEncoder(COLUMNS, ("id", "text"), reader.header, reader.line_end)
    lines = (encoder.header + encoder.encode(chunk.rows, [answer_to(text) for text in chunk.texts])).split(b"\r\n")
    assert lines[0] == b'\xef\xbb\xbf"id",text,p_label,p_score,p_probabilities,p_truncated,p_error'
    assert lines[1] == b'"1","good",positive,0.875,"{""negative"": 0.125, ""positive"": 0.875}",false,'
    assert lines[2].startswith(b"2,caf\xe9,,,,,")
    assert [line[:3] for line in lines[3:]] == [b"3,,", b"4,x", b""]
    assert [one.message for one in chunk.texts[1:] if isinstance(one, Unreadable)] == [
        "line 3 is not UTF-8",
        "line 4 has 1 field, the header 2",
        "line 6 has 3 fields, the header 2",
    ]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "the input is empty"),
        (b"text,text\n", "columns of the same name: 'text'"),
        (b"t\xe9xt\n", "the header is not UTF-8"),
    ],
)
def test_a_csv_header_that_will_not_do_is_refused(content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes(content)
    source = Source(tmp_path / "in.csv")
    with contextlib.closing(source), pytest.raises(InputUnreadable, match=says):
        CsvReader(source, "text", ChunkLimits(), Position())


def test_a_quote_that_is_never_closed_stops_the_reading(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes(b'text\ngood\n"never\nclosed\n')
    with contextlib.closing(csv_reader(tmp_path / "in.csv", rows=1)) as reader:
        assert reader.read() is not None
        with pytest.raises(InputUnreadable, match="opened in line 3"):
            reader.read()


def parquet_of(path: Path, chunks: Iterator[Chunk], schema: pa.Schema) -> bytes:
    """Write a Parquet file out of chunks."""
    encoder = ArrowEncoder(COLUMNS, schema)
    data = b"".join(encoder.encode(chunk.rows, [answer_to(text) for text in chunk.texts]) for chunk in chunks)
    with path.open("wb") as sink:
        groups = RowGroups(sink, encoder.schema)
        for batch in streamed(pa.BufferReader(data), len(data)):
            groups.add(batch)
        groups.close()
    return path.read_bytes()


def test_parquet_keeps_types_and_depends_on_the_rows_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lockstep.clients.batch.parquet.GROUP_ROWS", 100)
    monkeypatch.setattr("lockstep.clients.batch.parquet.GROUP_BYTES", 6_000)
    table = pa.table(
        {
            "text": pa.array([None if n % 37 == 5 else "good " * (n % 11) for n in range(350)]).dictionary_encode(),
            "n": pa.array(range(350), pa.uint16()),
            "at": pa.array([n * 10**9 + 1 for n in range(350)], pa.timestamp("ns", "UTC")),
            "deep": [{"a": [n, None], "b": str(n)} for n in range(350)],
            "raw": pa.array([bytes([n % 256]) * (n % 300) for n in range(350)], pa.large_binary()),
        }
    ).replace_schema_metadata({"owner": "us"})
    path = tmp_path / "in.parquet"
    pq.write_table(table, path, row_group_size=90)

    def reader(rows: int, start: int = 0) -> ParquetReader:
        return ParquetReader(path, "text", ChunkLimits(rows, 2_000), Position(row=start))

    schema = reader(64).schema
    whole = parquet_of(tmp_path / "whole.parquet", chunks_of(reader(64)), schema)
    found = pq.read_table(tmp_path / "whole.parquet")
    assert found.select(table.column_names).equals(pq.read_table(path))
    assert found.schema.metadata[b"owner"] == b"us"
    assert [field.type for field in found.schema][-5:] == [field.type for field in COLUMNS.fields()]
    assert found["p_error"].null_count == sum(text is not None for text in table["text"].to_pylist())
    groups = pq.read_metadata(tmp_path / "whole.parquet")
    sizes = [groups.row_group(group).num_rows for group in range(groups.num_row_groups)]
    assert sum(sizes) == 350
    assert 1 < max(sizes) <= 100
    for rows, cut in ((7, 200), (64, 90), (350, 1)):
        first: list[Chunk] = []
        for chunk in chunks_of(reader(rows)):
            if chunk.end.row > cut:
                break
            first.append(chunk)
        done = first[-1].end.row if first else 0
        parts = iter([*first, *chunks_of(reader(rows + 3, done))])
        assert parquet_of(tmp_path / "again.parquet", parts, schema) == whole


def test_parquet_becomes_text_that_can_be_read(tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": ["good", "bad"],
            "at": pa.array([1, None], pa.timestamp("ns")),
            "n": [float("nan"), 1.5],
            "deep": [{"raw": b"\xff", "x": [1]}, None],
        }
    )
    pq.write_table(table, tmp_path / "in.parquet")
    (chunk,) = chunks_of(ParquetReader(tmp_path / "in.parquet", "text", ChunkLimits(), Position()))
    first, second = map(json.loads, chunk.rows.json_objects())
    assert first == {
        "text": "good",
        "at": "1970-01-01 00:00:00.000000001",
        "n": None,
        "deep": {"raw": "/w==", "x": [1]},
    }
    assert second == {"text": "bad", "at": None, "n": 1.5, "deep": None}
    assert chunk.rows.csv_records()[1] == b"bad,,1.5,"


def test_a_parquet_column_that_holds_no_text_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [1, 2]}), tmp_path / "in.parquet")
    with pytest.raises(PlanRefused, match="'text' holds int64, not strings"):
        ParquetReader(tmp_path / "in.parquet", "text", ChunkLimits(), Position())
    (tmp_path / "in.parquet").write_bytes(b"PAR1 but not really")
    with pytest.raises(InputUnreadable, match="not a Parquet file"):
        ParquetReader(tmp_path / "in.parquet", "text", ChunkLimits(), Position())


def test_a_survey_finds_columns_in_order_and_their_types(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"text": "a", "n": 1}\n\nnonsense\n{"n": 2.5, "z": [1]}\n{"text": null, "b": {"c": true}}\n')
    found = surveyed(path, "text", COLUMNS, types=True)
    assert found.names == ["text", "n", "z", "b"]
    assert found.field("n").type == pa.float64()
    assert surveyed(path, "text", COLUMNS, types=False).names == found.names
    (chunk,) = chunks_of(jsonl(path, schema=found))
    assert chunk.rows.record_batch().to_pylist()[2] == {"text": None, "n": 2.5, "z": [1], "b": None}
    assert chunk.rows.csv_records()[3] == b',,,"{""c"": true}"'


def test_a_survey_refuses_what_cannot_be_done(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text('{"text": "a", "n": 1, "p_error": 0}\n{"text": "b", "n": "one"}\n')
    with pytest.raises(ColumnsCollide, match=r"'p_error'.*--prefix"):
        surveyed(path, "text", COLUMNS, types=False)
    with pytest.raises(ColumnMissing, match=r"no column 'body'.*it has: text, n, p_error"):
        surveyed(path, "body", AnswerColumns(LABELS, "q_"), types=False)
    with pytest.raises(PlanRefused, match="lines 1 to 2 hold values that fit no one column type"):
        surveyed(path, "text", AnswerColumns(LABELS, "q_"), types=True)


def test_a_chunk_ends_where_its_bytes_do(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps({"text": "x" * size}) + "\n" for size in (10, 500, 10, 10)))
    reader = JsonLinesReader(Source(path), "text", ChunkLimits(64, 100), Position(), None)
    assert [len(chunk.texts) for chunk in chunks_of(reader)] == [2, 2]


def test_a_compressed_file_is_read_and_gone_on_with(tmp_path: Path) -> None:
    import gzip

    path = tmp_path / "in.jsonl.gz"
    path.write_bytes(gzip.compress(b"".join(b'{"text": "%d"}\n' % number for number in range(500))))
    first, *_ = chunks_of(jsonl(path, 100))
    rest = [text for chunk in chunks_of(jsonl(path, 64, first.end)) for text in chunk.texts]
    assert [*first.texts, *rest] == [str(number) for number in range(500)]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputUnreadable, match=r"end-of-stream|Compressed"):
        list(chunks_of(jsonl(path)))
