"""Inputs as people have them: compressed, with other ends of line, with values that do not fit."""

import bz2
import gzip
import json
import lzma
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lockstep.clients.batch import json_lines
from lockstep.clients.batch.answers import AnswerColumns
from lockstep.clients.batch.batch_errors import InputUnreadable, PlanRefused
from lockstep.clients.batch.csv_text import CsvReader
from lockstep.clients.batch.json_lines import JsonLinesReader, survey
from lockstep.clients.batch.parquet import ParquetReader
from lockstep.clients.batch.plan import format_of
from lockstep.clients.batch.rows import Chunk, ChunkLimits, Position, Reader, Unreadable
from lockstep.clients.batch.streams import Source

COLUMNS = AnswerColumns(("negative", "positive"), "p_")
BEYOND = 2**53 + 1


def chunks_of(reader: Reader) -> Iterator[Chunk]:
    try:
        while (chunk := reader.read()) is not None:
            yield chunk
    finally:
        reader.close()


def surveyed(path: Path) -> pa.Schema:
    with closing(Source(path)) as source:
        return survey(source, "text", COLUMNS, types=True)


def texts_of(reader: Reader) -> list[object]:
    return [text for chunk in chunks_of(reader) for text in chunk.texts]


def csv_of(path: Path, rows: int = 64, start: Position = Position()) -> CsvReader:  # noqa: B008  frozen
    return CsvReader(Source(path), "text", ChunkLimits(rows), start)


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return bytes(sink.getvalue().to_pybytes())


@pytest.mark.parametrize("named", [False, True], ids=["by its first bytes", "by its name"])
@pytest.mark.parametrize(
    ("compress", "end"), [(gzip.compress, ".GZ"), (bz2.compress, ".bz2"), (lzma.compress, ".xz"), (zstd, ".zst")]
)
def test_a_compressed_file_is_read_and_gone_on_with(
    compress: Callable[[bytes], bytes], end: str, named: bool, tmp_path: Path
) -> None:
    path = tmp_path / f"in.jsonl{end if named else ''}"
    path.write_bytes(compress(b"".join(b'{"text": "%d"}\n' % number for number in range(50_000))))
    assert format_of(path, None, output=False) == "jsonl"
    first, *_ = chunks_of(JsonLinesReader(Source(path), "text", ChunkLimits(40_000), Position(), None))
    rest = texts_of(JsonLinesReader(Source(path), "text", ChunkLimits(), first.end, None))
    assert [*first.texts, *rest] == [str(number) for number in range(50_000)]
    assert surveyed(path).names == ["text"]
    path.write_bytes(path.read_bytes()[:-20])
    with closing(Source(path)) as cut, pytest.raises(InputUnreadable):
        texts_of(JsonLinesReader(cut, "text", ChunkLimits(), Position(), None))


@pytest.mark.parametrize(
    "line", [b"oops", b"[1, 2]", b"[]", b'"text"', b'{"text": "cut', b'{"text": "good"} {"text": "bad"}']
)
def test_a_first_line_that_is_wrong_alone_is_a_row_with_an_error(line: bytes, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(line + b'\n{"text": "good"}\n')
    first, second = texts_of(JsonLinesReader(Source(path), "text", ChunkLimits(), Position(), None))
    assert isinstance(first, Unreadable)
    assert second == "good"


@pytest.mark.parametrize(("one", "other"), [("n", "n"), ("[n]", "[n]"), ('{"a": n}', '{"a": n}')])
@pytest.mark.parametrize("values", [(BEYOND, 1.5), (1.5, BEYOND), (-BEYOND, 1.5)])
def test_an_integer_that_no_float_holds_is_refused_before_the_run(
    values: tuple[float, float], one: str, other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_lines, "_SURVEY_ROWS", 1)
    path = tmp_path / "in.jsonl"
    rows = [template.replace("n", repr(value)) for template, value in zip((one, other), values, strict=True)]
    path.write_text("".join(f'{{"text": "a", "m": {row}}}\n' for row in rows))
    with pytest.raises(PlanRefused, match=rf"line {2 - values.index(1.5)} holds a value .*9007199254740993.*jsonl"):
        surveyed(path)


def test_integers_and_floats_that_fit_one_type_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lines, "_SURVEY_ROWS", 1)
    path = tmp_path / "in.jsonl"
    path.write_text(f'{{"text": "a", "n": {2**53}}}\n{{"text": "b", "n": 1.5}}\n')
    schema = surveyed(path)
    (chunk,) = chunks_of(JsonLinesReader(Source(path), "text", ChunkLimits(), Position(), schema))
    assert [row["n"] for row in chunk.rows.record_batch().to_pylist()] == [2.0**53, 1.5]


def invalid() -> pa.Array:
    """Return two strings of which the second is not UTF-8."""
    return pa.Array.from_buffers(pa.string(), 2, [None, *pa.array([b"ok", b"\xff"]).buffers()[1:]])


def test_a_string_that_is_not_utf_8_costs_nothing_but_itself(tmp_path: Path) -> None:
    table = pa.table(
        {
            "text": ["good", "bad"],
            "note": invalid(),
            "notes": pa.ListArray.from_arrays([0, 1, 2], invalid()),
            "deep": pa.StructArray.from_arrays([invalid(), pa.array([b"\xfe", None])], ["note", "raw"]),
        }
    )
    pq.write_table(table, tmp_path / "in.parquet")
    (chunk,) = chunks_of(ParquetReader(tmp_path / "in.parquet", "text", ChunkLimits(), Position()))
    assert chunk.texts == ("good", "bad")
    first, second = map(json.loads, chunk.rows.json_objects())
    assert first == {"text": "good", "note": "ok", "notes": ["ok"], "deep": {"note": "ok", "raw": "/g=="}}
    assert second == {"text": "bad", "note": "\ufffd", "notes": ["\ufffd"], "deep": {"note": "\ufffd", "raw": None}}
    assert chunk.rows.csv_records()[0] == b'good,ok,"[""ok""]","{""note"": ""ok"", ""raw"": ""/g==""}"'


def test_times_inside_other_values_are_written_as_text_too(tmp_path: Path) -> None:
    table = pa.table({"text": ["a"], "at": pa.array([[1]], pa.list_(pa.timestamp("ns")))})
    pq.write_table(table, tmp_path / "in.parquet")
    (chunk,) = chunks_of(ParquetReader(tmp_path / "in.parquet", "text", ChunkLimits(), Position()))
    assert json.loads(chunk.rows.json_objects()[0])["at"] == ["1970-01-01 00:00:00.000000001"]


def test_lines_may_end_in_carriage_returns_alone(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(b'"te\nxt",text\r1,good\r2,"two\rlines"\r\r3,last')
    reader = csv_of(path, 1)
    first, *rest = chunks_of(reader)
    assert (reader.names, reader.line_end) == (("te\nxt", "text"), b"\r")
    assert [text for chunk in (first, *rest) for text in chunk.texts] == ["good", "two\rlines", "last"]
    assert [chunk.rows.csv_records() for chunk in rest] == [[b'2,"two\rlines"'], [b"3,last"]]
    assert texts_of(csv_of(path, 64, first.end)) == ["two\rlines", "last"]


def test_many_lines_that_end_in_carriage_returns_are_all_read(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(b"text\r" + b"".join(b"row %d\r" % number for number in range(30_000)))
    assert texts_of(csv_of(path)) == [f"row {number}" for number in range(30_000)]


def test_a_carriage_return_within_a_row_costs_that_row_alone(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(b'text,note\na\rb,"x\ny"\n"c\rd",z\ngood,w\n')
    (chunk,) = chunks_of(csv_of(path))
    first, *others = chunk.texts
    assert first == Unreadable("line 2 has a carriage return outside quotes: is it the end of a line?")
    assert others == ["c\rd", "good"]
    assert chunk.rows.csv_records() == [b'"a\rb","x\ny"', b'"c\rd",z', b"good,w"]
