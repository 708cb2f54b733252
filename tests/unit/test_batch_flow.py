"""The flow keeps order and bounds, the journal what is known; neither needs a file of rows or a server."""

import asyncio
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from lockstep.clients.batch import output as output_module
from lockstep.clients.batch.batch_errors import InputUnreadable, OutputFailed, PlanRefused, ResumeRefused
from lockstep.clients.batch.csv_text import CsvRows
from lockstep.clients.batch.flow import Window, flow
from lockstep.clients.batch.journal import Journal
from lockstep.clients.batch.output import OutputFile, lock
from lockstep.clients.batch.plan import format_of
from lockstep.clients.batch.rows import Chunk, Position
from lockstep.clients.batch.streams import Fingerprint
from lockstep.clients.errors import RowError
from lockstep.clients.results import Result
from tests.failing_disk import FailingDisk

ANSWER = RowError("InvalidInput", grpc.StatusCode.INVALID_ARGUMENT, "a double")
JOURNAL = Journal(Fingerprint(3, 4, "ab"), {"--truncate": False, "labels": ["a", "b"]}, Position(), 0, 0)


def chunk(number: int, size_bytes: int = 1) -> Chunk:
    return Chunk((str(number),), CsvRows((), (), ()), size_bytes, Position(number + 1), number)


class Stage:
    """A source of chunks, a server that answers when it is told to, and a sink."""

    def __init__(self, chunks: int, size_bytes: int = 1, fails_after: bool = False) -> None:
        self.chunks = [chunk(number, size_bytes) for number in range(chunks)]
        self.fails_after = fails_after
        self.read_chunks = 0
        self.asked: dict[int, asyncio.Future[list[Result]]] = {}
        self.written: list[int] = []

    async def read(self) -> Chunk | None:
        if self.read_chunks == len(self.chunks):
            if self.fails_after:
                raise InputUnreadable("line 9 is no line")
            return None
        self.read_chunks += 1
        return self.chunks[self.read_chunks - 1]

    async def ask(self, one: Chunk) -> list[Result]:
        self.asked[one.done] = asyncio.get_running_loop().create_future()
        return await self.asked[one.done]

    async def write(self, one: Chunk, _: list[Result]) -> None:
        self.written.append(one.done)

    def answer(self, *numbers: int) -> None:
        for number in numbers:
            self.asked[number].set_result([ANSWER])


async def settled() -> None:
    for _ in range(200):
        await asyncio.sleep(0)


async def test_answers_are_written_in_order_whichever_comes_first() -> None:
    stage = Stage(5)
    running = asyncio.create_task(flow(stage.read, stage.ask, stage.write, Window(calls=5)))
    await settled()
    stage.answer(4, 2, 1)
    await settled()
    assert stage.written == []
    stage.answer(0)
    await settled()
    assert stage.written == [0, 1, 2]
    stage.answer(3)
    await running
    assert stage.written == [0, 1, 2, 3, 4]


async def test_calls_chunks_and_bytes_are_bounded() -> None:
    for size_bytes, held in ((1, 8), (10, 5)):
        stage = Stage(50, size_bytes)
        running = asyncio.create_task(flow(stage.read, stage.ask, stage.write, Window(2, size_bytes=50)))
        await settled()
        assert (stage.read_chunks, sorted(stage.asked)) == (held, [0, 1])
        stage.answer(1)  # the first is still out: the others go on within the bound
        await settled()
        assert (stage.read_chunks, sorted(stage.asked)) == (held, [0, 1, 2])
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert all(future.done() for future in stage.asked.values())


async def test_what_comes_before_an_unreadable_row_is_written() -> None:
    stage = Stage(3, fails_after=True)
    running = asyncio.create_task(flow(stage.read, stage.ask, stage.write, Window(3)))
    await settled()
    stage.answer(2, 1, 0)
    with pytest.raises(InputUnreadable, match="line 9"):
        await running
    assert stage.written == [0, 1, 2]


async def test_what_comes_before_a_call_that_failed_is_written() -> None:
    stage = Stage(4)
    running = asyncio.create_task(flow(stage.read, stage.ask, stage.write, Window(4)))
    await settled()
    stage.asked[2].set_exception(OutputFailed("a double"))
    stage.answer(3, 1)
    await settled()
    assert not running.done()
    stage.answer(0)
    with pytest.raises(OutputFailed):
        await running
    assert stage.written == [0, 1]


def test_a_journal_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "out.progress"
    assert Journal.load(path) is None
    journal = replace(JOURNAL, position=Position(7, 9, 1234), output_bytes=99, failed_rows=2, complete=True)
    journal.save(path)
    assert Journal.load(path) == journal
    assert [one.name for one in tmp_path.iterdir()] == ["out.progress"]


@pytest.mark.parametrize("rest", ["", "2}", '1, "input": {}}', '2, "input": null, "output": 3}'])
def test_a_journal_that_cannot_be_read_is_refused(rest: str, tmp_path: Path) -> None:
    (tmp_path / "out.progress").write_text('{\n "format": ' + rest)
    with pytest.raises(ResumeRefused, match="--restart"):
        Journal.load(tmp_path / "out.progress")


@pytest.mark.parametrize("content", ["{}", "[]", "notes of somebody else\n"])
def test_a_file_that_is_no_journal_is_not_taken_for_one(content: str, tmp_path: Path) -> None:
    (tmp_path / "out.progress").write_text(content)
    with pytest.raises(PlanRefused, match=r"not the journal of a batch run: move it away") as raised:
        Journal.load(tmp_path / "out.progress")
    assert not isinstance(raised.value, ResumeRefused)


@pytest.mark.parametrize("content", [b"", bytes(512)])
def test_what_a_power_cut_leaves_of_a_first_journal_is_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "out.progress").write_bytes(content)
    assert Journal.load(tmp_path / "out.progress") is None


def test_a_run_that_would_answer_otherwise_does_not_go_on() -> None:
    JOURNAL.check(JOURNAL.input, dict(JOURNAL.work))
    with pytest.raises(ResumeRefused, match="the input has changed"):
        JOURNAL.check(replace(JOURNAL.input, modified_ns=5), JOURNAL.work)
    with pytest.raises(ResumeRefused, match="--truncate was False and is True"):
        JOURNAL.check(JOURNAL.input, JOURNAL.work | {"--truncate": True})


def test_what_lies_beyond_the_journal_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    first = OutputFile(path, JOURNAL, None, None)
    first.append(b"one\n", Position(1), 0)
    first.commit()
    first.append(b"two\n", Position(2), 1)
    first.close()  # as a kill would
    begun = Journal.load(tmp_path / "out.jsonl.progress")
    assert begun is not None
    assert (begun.position.row, begun.output_bytes, begun.failed_rows) == (1, 4, 0)
    second = OutputFile(path, JOURNAL, begun, None)
    second.append(b"2\n", Position(2), 1)
    second.finish()
    second.close()
    assert path.read_bytes() == b"one\n2\n"
    assert [one.name for one in tmp_path.iterdir()] == ["out.jsonl"]


def test_two_runs_do_not_write_one_output(tmp_path: Path) -> None:
    first = OutputFile(tmp_path / "out.jsonl", JOURNAL, None, None)
    with pytest.raises(PlanRefused, match="another run is writing"):
        OutputFile(tmp_path / "out.jsonl", JOURNAL, None, None)
    first.close()


def test_a_full_disk_is_said_and_costs_nothing_that_was_committed(tmp_path: Path) -> None:
    output = OutputFile(tmp_path / "out.jsonl", JOURNAL, None, None)
    output.append(b"one\n", Position(1), 0)
    output.commit()
    kept = output._file
    with open("/dev/full", "ab", buffering=0) as full:
        output._file = full.fileno()
        with pytest.raises(OutputFailed, match=r"out\.jsonl\.partial: No space left on device"):
            output.append(b"two\n", Position(2), 0)
    output._file = kept
    output.close()
    begun = Journal.load(tmp_path / "out.jsonl.progress")
    assert begun is not None
    assert begun.position.row == 1


@pytest.mark.parametrize(
    ("name", "found"),
    [("a.jsonl", "jsonl"), ("a.ndjson.gz", "jsonl"), ("A.CSV", "csv"), ("a.b.parquet", "parquet")],
)
def test_a_name_says_the_format(name: str, found: str) -> None:
    assert format_of(Path(name), None, output=False) == found


def test_a_format_that_nothing_says_is_asked_for() -> None:
    with pytest.raises(PlanRefused, match=r"standard input.*--input-format jsonl"):
        format_of(None, None, output=False)
    with pytest.raises(PlanRefused, match=r"a\.txt.*--output-format"):
        format_of(Path("a.txt"), None, output=True)
    with pytest.raises(PlanRefused, match="not compressed"):
        format_of(Path("a.csv.gz"), None, output=True)


STRANGER = "a download of another tool\n"


@pytest.mark.parametrize("suffix", [".partial", ".assembling", ".progress", ".progress.new"])
@pytest.mark.parametrize("restart", [False, True])
def test_a_file_that_no_run_made_is_left_alone(suffix: str, restart: bool, tmp_path: Path) -> None:
    path, theirs = tmp_path / "out.jsonl", tmp_path / f"out.jsonl{suffix}"
    theirs.write_text(STRANGER)
    with pytest.raises(PlanRefused, match=r"move it away, delete it, or name another output"):
        OutputFile(path, JOURNAL, None, None, restart=restart)
    assert theirs.read_text() == STRANGER
    assert list(tmp_path.iterdir()) == [theirs]


@pytest.mark.parametrize("suffix", [".partial", ".assembling", ".progress", ".progress.new"])
def test_no_link_is_followed_to_what_it_names(suffix: str, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text(STRANGER)
    (tmp_path / f"out.jsonl{suffix}").symlink_to("precious")
    with pytest.raises(PlanRefused):
        OutputFile(tmp_path / "out.jsonl", JOURNAL, None, None)
    assert (tmp_path / "precious").read_text() == STRANGER


def test_a_partial_file_that_became_a_link_is_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    first = OutputFile(path, JOURNAL, None, None)
    first.append(b"one\n", Position(1), 0)
    first.commit()
    first.close()
    (tmp_path / "precious").write_text(STRANGER)
    first.partial.unlink()
    first.partial.symlink_to("precious")
    with pytest.raises(PlanRefused, match="is a symbolic link"):
        OutputFile(path, JOURNAL, Journal.load(tmp_path / "out.jsonl.progress"), None)
    assert (tmp_path / "precious").read_text() == STRANGER


def test_a_claim_that_comes_after_the_end_of_another_run_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.jsonl"
    first = OutputFile(path, JOURNAL, None, None)
    first.append(b"one\n", Position(1), 0)
    first.commit()
    begun = Journal.load(tmp_path / "out.jsonl.progress")

    def late(descriptor: int, path: Path) -> None:
        monkeypatch.undo()
        first.append(b"two\n", Position(2), 0)
        first.finish()
        first.close()
        lock(descriptor, path)

    monkeypatch.setattr(output_module, "lock", late)
    with pytest.raises(PlanRefused, match="another run has just written"):
        OutputFile(path, JOURNAL, begun, None)
    assert path.read_bytes() == b"one\ntwo\n"
    assert list(tmp_path.iterdir()) == [path]


def test_an_output_that_appears_during_the_run_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    output = OutputFile(path, JOURNAL, None, None)
    output.append(b"one\n", Position(1), 0)
    path.write_text(STRANGER)
    with pytest.raises(OutputFailed, match=r"has appeared since the run began.*out\.jsonl\.partial; --overwrite"):
        output.finish()
    output.close()
    assert path.read_text() == STRANGER
    again = OutputFile(path, JOURNAL, Journal.load(tmp_path / "out.jsonl.progress"), None, overwrite=True)
    again.finish()
    again.close()
    assert path.read_bytes() == b"one\n"
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_sync_has_lost_is_not_recorded_as_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux reports lost pages once: the second sync succeeds."""
    disk = FailingDisk()
    disk.stand_in(monkeypatch, [output_module])
    output = OutputFile(tmp_path / "out.jsonl", JOURNAL, None, None)
    output.append(b"one\n", Position(1), 0)
    disk.fill_at(1)
    with pytest.raises(OutputFailed):
        output.commit()
    disk.recover()
    output.commit()
    output.close()
    assert Journal.load(tmp_path / "out.jsonl.progress") == JOURNAL


def test_the_partial_file_of_a_private_output_is_private_too(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.touch(0o600)
    output = OutputFile(path, JOURNAL, None, None, overwrite=True)
    assert output.partial.stat().st_mode & 0o777 == 0o600
    output.close()
