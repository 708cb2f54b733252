"""`lockstep batch` against a real gRPC server that answers as the test says."""

import contextlib
import gzip
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner, Result

from lockstep.clients.batch import BatchPlan, rows_kept, run_batch
from lockstep.clients.errors import ServerFailure
from lockstep.commands.batch import batch
from lockstep.local_server import LocalServer
from tests.batch_files import FORMATS, read, rows_of, write
from tests.wire_double import Fail, FailRows, Reply, ServerDouble, double_in_a_thread

INTERNAL = grpc.StatusCode.INTERNAL


def run(*words: object) -> Result:
    return CliRunner().invoke(batch, [str(word) for word in words])


class Picky(ServerDouble):
    """Fails every call that holds a certain text."""

    async def Classify(self, request, context):  # type: ignore[no-untyped-def]  # noqa: N802
        if "poison" in request.texts:
            await context.abort(INTERNAL, "request 7 failed")
        return await super().Classify(request, context)


@pytest.mark.parametrize("target_kind", FORMATS)
@pytest.mark.parametrize("source_kind", FORMATS)
def test_every_format_becomes_every_other(source_kind: str, target_kind: str, tmp_path: Path) -> None:
    rows = rows_of(200, seed=3)
    source, target = write(tmp_path / f"in.{source_kind}", rows), tmp_path / f"out.{target_kind}"
    with double_in_a_thread() as server:
        result = run(source, target, "--server", server.address)
    found = read(target)
    empty = any(row["text"] is None for row in rows)
    assert result.exit_code == (1 if empty and source_kind != "csv" else 0), result.output
    assert list(found[0]) == ["id", "text", "where", "label", "score", "probabilities", "truncated", "error"]
    assert [int(row["id"]) for row in found] == list(range(200))
    for row, written in zip(rows, found, strict=True):
        assert (written["text"] or None) == row["text"]
        if row["text"] is not None:
            assert written["label"] == ("positive" if "good" in row["text"] else "negative")
            assert float(written["score"]) == (0.875 if "good" in row["text"] else 0.75)
            probabilities = written["probabilities"]
            assert (json.loads(probabilities) if target_kind == "csv" else probabilities).keys() == {
                "negative",
                "positive",
            }
            assert not written["error"]


def test_a_row_that_fails_has_its_error_and_the_run_goes_on(tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"text": "good"}\n{"text": "long"}\n{"text": "bad"}\n')
    probe: Reply = FailRows({})
    long = FailRows({1: ("InputTooLong", grpc.StatusCode.INVALID_ARGUMENT, "600 tokens, at most 512")})
    with double_in_a_thread(probe, long) as server:
        result = run(source, target, "--server", server.address)
    assert result.exit_code == 1
    assert "1 with an error" in result.output
    assert [row["error"] for row in read(target)] == [None, "InputTooLong: 600 tokens, at most 512", None]


async def test_a_call_that_fails_for_one_row_fails_that_row_alone(tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps({"text": f"{n}" if n != 37 else "poison"}) + "\n" for n in range(100)))
    async with Picky() as server:
        summary = await run_batch(BatchPlan(source, target, server.address, "jsonl", "jsonl"))
    assert (summary.rows, summary.failed_rows) == (100, 1)
    errors = [row["error"] for row in read(target)]
    assert [number for number, error in enumerate(errors) if error] == [37]
    assert errors[37] == "ServerFailure: request 7 failed"


def test_strict_stops_at_the_row_and_goes_on_without(tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"text": "a"}\n' * 100 + "oops\n" + '{"text": "b"}\n' * 100)
    with double_in_a_thread() as server:
        strict = run(source, target, "--server", server.address, "--strict")
        assert strict.exit_code == 1
        assert "row 101 failed: InvalidInput: line 101 is not JSON" in strict.output
        assert not target.exists()
        lenient = run(source, target, "--server", server.address)
    assert lenient.exit_code == 1
    assert "64 of them by an earlier run" in lenient.output
    assert len(read(target)) == 201


def test_an_output_that_is_there_is_replaced_only_when_asked(tmp_path: Path) -> None:
    source, target = write(tmp_path / "in.csv", rows_of(3)), tmp_path / "out.csv"
    target.write_text("mine")
    with double_in_a_thread() as server:
        refused = run(source, target, "--server", server.address)
        assert (refused.exit_code, target.read_text()) == (2, "mine")
        assert "--overwrite" in refused.output
        assert run(source, target, "--server", server.address, "--overwrite").exit_code == 0
    assert len(read(target)) == 3


def test_an_input_that_changed_is_not_gone_on_with(tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"text": "a"}\n' * 100 + "oops\n")
    with double_in_a_thread() as server:
        assert run(source, target, "--server", server.address, "--strict").exit_code == 1
        source.write_text('{"text": "b"}\n' * 100)
        refused = run(source, target, "--server", server.address)
        assert refused.exit_code == 2
        assert "the input has changed since 64 of its rows were answered" in refused.output
        assert run(source, target, "--server", server.address, "--restart").exit_code == 0
    assert {row["text"] for row in read(target)} == {"b"}


def test_files_without_rows_become_files_without_rows(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "in.jsonl").write_text("\n")
    (tmp_path / "in.csv").write_text("text\n")
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "in.parquet")
    with double_in_a_thread() as server:
        for kind in FORMATS:
            result = run(tmp_path / f"in.{kind}", tmp_path / f"out.{kind}", "--server", server.address)
            assert result.exit_code == 0, result.output
            assert read(tmp_path / f"out.{kind}") == []


def test_a_pipe_in_and_a_pipe_out(tmp_path: Path) -> None:
    source, target = write(tmp_path / "in.csv", rows_of(300)), tmp_path / "out.parquet"
    words = [sys.executable, "-m", "lockstep", "batch", "-", "-", "--input-format", "csv"]
    with double_in_a_thread() as server, source.open("rb") as given, target.open("wb") as taken:
        words += ["--output-format", "parquet", "--server", server.address]
        with subprocess.Popen(["cat"], stdin=given, stdout=subprocess.PIPE) as cat:
            done = subprocess.run(words, stdin=cat.stdout, stdout=taken, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 0, done.stderr
    assert b"standard output: 300 rows" in done.stderr
    assert [row["id"] for row in read(target)] == [str(number) for number in range(300)]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("missing.jsonl", "out.jsonl"), "there is no file missing.jsonl"),
        (("in.csv", "in.csv", "--overwrite"), "the output is the input"),
        (("in.csv", "nowhere/out.csv"), "there is no folder nowhere"),
        (("in.csv", "out.csv", "--text-column", "body"), "no column 'body' (--text-column); it has: id, text, where"),
        (("in.csv", "out.txt"), "which format has out.txt"),
        (("in.csv", "out.csv", "--model", "other"), "no model 'other'"),
        (("labelled.jsonl", "out.jsonl"), "'label'; name the added ones otherwise: --prefix predicted_"),
        (("-", "out.parquet", "--input-format", "jsonl"), "a pipe will not do"),
        (("-", "out.parquet", "--input-format", "parquet"), "a pipe will not do"),
        (("in.csv", "out.csv", "--local", "--server", "x:1"), "exclude each other"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_written(
    words: tuple[str, ...], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "in.csv", rows_of(3))
    (tmp_path / "labelled.jsonl").write_text('{"text": "a", "label": 1}\n')
    before = sorted(tmp_path.iterdir())
    with double_in_a_thread() as server:
        asked = words if "--local" in words else (*words, "--server", server.address)
        result = run(*asked)
    assert result.exit_code == 2
    assert says in result.output
    assert sorted(tmp_path.iterdir()) == before


def test_no_server_exits_with_4_and_says_how_to_start_one(tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", rows_of(3))
    with double_in_a_thread() as server:
        address = server.address
    result = run(source, tmp_path / "out.csv", "--server", address, "--timeout", "0.2")
    assert result.exit_code == 4
    assert "lockstep serve" in result.output


@pytest.mark.parametrize("answered", [0, 2])
def test_a_refused_call_stops_the_run_and_what_was_answered_is_kept(answered: int, tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", rows_of(3))
    replies: list[Reply] = [FailRows({})] * (1 + answered)
    with double_in_a_thread(*replies, Fail(grpc.StatusCode.PERMISSION_DENIED, "not for you")) as server:
        result = run(source, tmp_path / "out.csv", "--server", server.address, "--rows-per-call", "1", "--calls", "1")
    assert result.exit_code == 3
    assert "PERMISSION_DENIED: not for you" in result.output
    assert ("What was answered is kept (2 rows)" in result.output) == (answered > 0)
    assert ("goes on from there" in result.output) == (answered > 0)


CANCELLED = Fail(grpc.StatusCode.CANCELLED, "the server stops")


def test_a_call_that_the_server_cancels_is_sent_again(tmp_path: Path) -> None:
    """What a server does with calls in flight when it stops; whether they end so or as UNAVAILABLE is a race."""
    source = write(tmp_path / "in.csv", rows_of(3))
    with double_in_a_thread(FailRows({}), CANCELLED, CANCELLED) as server:
        assert run(source, tmp_path / "out.csv", "--server", server.address).exit_code == 0
        assert len(server.calls) == 4


def test_a_server_that_cancels_every_call_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lockstep.clients.batch.calls._CANCELLED_WAITS_S", (0.0, 0.0, 0.0))
    source = write(tmp_path / "in.csv", rows_of(3))
    with double_in_a_thread(FailRows({}), *[CANCELLED] * 4) as server:
        result = run(source, tmp_path / "out.csv", "--server", server.address)
    assert (result.exit_code, "CANCELLED: the server stops" in result.output) == (3, True)


class Broken(ServerDouble):
    """Answers so many calls, then fails every one."""

    def __init__(self, answers: int) -> None:
        super().__init__()
        self.answers = answers

    async def Classify(self, request, context):  # type: ignore[no-untyped-def]  # noqa: N802
        if len(self.calls) >= self.answers:
            self.calls.append(request)
            await context.abort(INTERNAL, "request 7 failed")
        return await super().Classify(request, context)


async def test_a_server_that_fails_on_everything_stops_the_run_and_no_row_is_blamed(tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"text": "good"}\n' * 1_000)
    async with Broken(answers=3) as server:
        plan = BatchPlan(source, target, server.address, "jsonl", "jsonl", calls=1)
        with pytest.raises(ServerFailure, match="request 7 failed"):
            await run_batch(plan)
        assert len(server.calls) < 20  # not every row was asked for alone
        assert rows_kept(plan) == 128
        server.answers = 1_000
        summary = await run_batch(plan)
    assert (summary.rows, summary.resumed_rows, summary.failed_rows) == (1_000, 128, 0)


async def test_answers_that_hold_nothing_but_failures_stop_the_run_too(tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"text": "good"}\n' * 2)
    all_failed: Reply = FailRows(dict.fromkeys(range(2), ("Internal", INTERNAL, "no memory")))
    probe_failed: Reply = FailRows({0: ("Internal", INTERNAL, "no memory")})
    async with ServerDouble(FailRows({}), all_failed, probe_failed, all_failed) as server:
        plan = BatchPlan(source, target, server.address, "jsonl", "jsonl")
        with pytest.raises(ServerFailure, match="no memory"):
            await run_batch(plan)
        server.replies.appendleft(FailRows({}))  # the next run's probe
        summary = await run_batch(plan)  # the rows fail, another text is answered: they are to blame
    assert (summary.rows, summary.failed_rows) == (2, 2)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("in.parquet", b"", "not a Parquet file"),
        ("in.jsonl.gz", b"no gzip", "Not a gzipped file"),
        ("in.jsonl.gz", gzip.compress(b'{"text": "good"}\n' * 9)[:-9], "ended before the end-of-stream"),
        ("in.jsonl", b'[{"text": "good"},\n {"text": "bad"}]\n', "one JSON array, not an object a line"),
        ("in.jsonl", b'[{"text": "good"}]', "jq -c '.[]' FILE"),
        ("in.jsonl", b'{\n "text": "good"\n}\n', "an object on several lines, not one a line"),
        ("in.jsonl", b'{"text": "good"},\n{"text": "bad"}\n', "end in commas"),
        ("in.jsonl", '{"text": "good"}\n'.encode("utf-16"), "it is UTF-16: convert it, iconv"),
        ("in.jsonl", b"PAR1 and so on", "--input-format parquet"),
        ("in.csv", "text\ngood\n".encode("utf-16-le"), "it is UTF-16: convert it, iconv"),
        ("in.csv", b'text\n"good\n', "is never closed"),
        ("in.csv", b"", "the input is empty"),
        ("in.csv", b"text,text\n", "columns of the same name"),
        ("in.csv", b"t\xe9xt\n", "the header is not UTF-8"),
    ],
    ids=[
        "parquet",
        "gzip",
        "gzip cut",
        "array",
        "array in a line",
        "pretty",
        "commas",
        "utf-16",
        "arrow",
        "utf-16 csv",
        "quote",
        "empty",
        "same name",
        "header",
    ],
)
def test_an_input_that_is_not_what_its_name_says_ends_with_3(
    name: str, content: bytes, says: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with double_in_a_thread() as server:
        result = run(tmp_path / name, tmp_path / "out.jsonl", "--server", server.address)
    assert result.exit_code == 3
    assert says in result.output
    assert "goes on from there" not in result.output
    assert "Usage" not in result.output


def test_half_a_surrogate_pair_costs_nothing_but_itself(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    lines = [
        r'{"text": "good", "note": "a\ud83d", "deep": {"\uDE00": ["\\ud83d", "\ud83d\ude00"]}}',
        r'{"text": "good\ud83d", "note": "b"}',
    ]
    source.write_text("\n".join(lines))
    with double_in_a_thread() as server:
        for kind in FORMATS:
            result = run(source, tmp_path / f"out.{kind}", "--server", server.address)
            assert result.exit_code == 1, result.output
    assert (tmp_path / "out.jsonl").read_text().startswith(lines[0][:-1])
    for kind in ("csv", "parquet"):
        first, second = read(tmp_path / f"out.{kind}")
        deep = json.loads(first["deep"]) if kind == "csv" else first["deep"]
        assert (first["note"], deep) == ("a\ufffd", {"\ufffd": ["\\ud83d", "\U0001f600"]})
        assert first["label"] == "positive"
        assert (second["text"], second["label"] or None) == ("good\ufffd", None)
        assert "not valid Unicode" in second["error"]


@pytest.mark.parametrize("kind", FORMATS)
def test_a_full_disk_behind_a_pipe_is_said(kind: str, tmp_path: Path) -> None:
    source = write(tmp_path / "in.csv", rows_of(3))
    words = [sys.executable, "-m", "lockstep", "batch", str(source), "-", "--output-format", kind, "--quiet"]
    with double_in_a_thread() as server, open("/dev/full", "wb") as full:
        done = subprocess.run([*words, "--server", server.address], stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 3
    assert done.stderr == b"Error: standard output: No space left on device\n"


@pytest.mark.parametrize("option", ["--timeout", "--commit"])
@pytest.mark.parametrize("seconds", ["nan", "inf", "-1"])
def test_a_time_that_is_none_is_wrong_usage(option: str, seconds: str) -> None:
    result = run("in.csv", "out.csv", option, seconds)
    assert result.exit_code == 2
    assert f"Invalid value for '{option}'" in result.output


def test_an_address_that_is_none_is_wrong_usage(tmp_path: Path) -> None:
    result = run(write(tmp_path / "in.csv", rows_of(3)), tmp_path / "out.csv", "--server", "a:1,a:1")
    assert result.exit_code == 2
    assert "an address is named twice" in result.output


def test_a_server_of_the_run_s_own_leaves_nothing_where_we_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "in.csv", rows_of(3))
    asked: list[str] = []
    with double_in_a_thread() as server:

        @contextlib.contextmanager
        def local_server(repository: Path, log: Path, *flags: str) -> Iterator[LocalServer]:
            asked.extend(flags)
            yield LocalServer(server.address, "")

        monkeypatch.setattr("lockstep.local_server.local_server", local_server)
        assert run("in.csv", "out.csv", "--local", "--repository", tmp_path).exit_code == 0
    state = Path(asked[asked.index("--state") + 1])
    assert state.is_absolute()
    assert not state.is_relative_to(tmp_path)
    assert not state.parent.exists()
