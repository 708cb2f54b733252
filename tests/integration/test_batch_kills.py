"""Runs of `lockstep batch` that are killed, stopped, or lose their server: a double over real gRPC."""

import asyncio
import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import termios
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from lockstep.clients.batch import BatchPlan, Progress, run_batch
from lockstep.clients.batch.journal import Journal
from tests.batch_files import FORMATS, read, rows_of, write
from tests.serving import eventually
from tests.wire_double import Fail, ServerDouble, double_in_a_thread


def command(source: Path, target: Path, address: str, *flags: str) -> list[str]:
    words = [sys.executable, "-m", "lockstep", "batch", str(source), str(target), "--server", address]
    return [*words, "--commit", "0", "--quiet", *flags]


def companions(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir() if path.name.startswith(target.name + "."))


def size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def rows_kept(target: Path) -> int:
    """Return how many rows the journal of an output says are on disk."""
    journal = Journal.load(target.with_name(target.name + ".progress"))
    return -1 if journal is None else journal.position.row


def killed_when(process: subprocess.Popen[bytes], reached: Callable[[], bool], number: int = signal.SIGKILL) -> int:
    """Send a signal once something is so; returns the exit status. A run that ended meanwhile is not killed."""
    while process.poll() is None:
        if reached():
            process.send_signal(number)
            break
        time.sleep(0.001)
    return process.wait()


def kill_and_resume(folder: Path, kind: str, rows: int, kills: int, server: ServerDouble) -> None:
    """Kill a run while its server answers no more, so that it cannot end before; the last kill may come at any time."""
    address = server.address
    source = write(folder / f"in.{kind}", rows_of(rows))
    whole, target = folder / f"whole.{kind}", folder / f"out.{kind}"
    status = 0 if kind == "csv" else 1  # some rows have no text, which CSV cannot tell from an empty one
    assert subprocess.run(command(source, whole, address), check=False).returncode == status
    dice, most_calls, kept = random.Random(kind), rows // 64 // kills, 0
    for _ in range(kills - 1):
        server.answers_left = 1 + dice.randint(10, most_calls)  # of which one is for the probe
        process = subprocess.Popen(command(source, target, address))
        assert killed_when(process, lambda kept=kept: rows_kept(target) > kept) == -signal.SIGKILL
        kept = rows_kept(target)
    server.answers_left = None
    # The last kill is for the end: while Parquet is put together, or the file gets its name.
    process = subprocess.Popen(command(source, target, address))
    assembling = target.with_name(target.name + ".assembling")
    killed_when(process, assembling.exists if kind == "parquet" else lambda: rows_kept(target) == rows)
    if companions(target) or not target.exists():  # the kill came before the end, be the output whole or not
        assert subprocess.run(command(source, target, address), check=False).returncode == status
    assert target.read_bytes() == whole.read_bytes()
    assert companions(target) == []
    assert len(read(target)) == rows


@pytest.mark.parametrize("kind", FORMATS)
def test_a_run_that_is_killed_and_resumed_writes_the_same_bytes(kind: str, tmp_path: Path) -> None:
    with double_in_a_thread() as server:
        kill_and_resume(tmp_path, kind, rows=3_000, kills=3, server=server)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", FORMATS)
def test_a_run_that_is_killed_ten_times_writes_the_same_bytes(kind: str, tmp_path: Path) -> None:
    with double_in_a_thread() as server:
        kill_and_resume(tmp_path, kind, rows=19_000, kills=10, server=server)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_told_to_stop_keeps_what_was_answered(number: int, status: int, tmp_path: Path) -> None:
    rows = rows_of(20_000)
    source, target = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    partial = tmp_path / "out.jsonl.partial"
    with double_in_a_thread() as server:
        with subprocess.Popen(command(source, target, server.address), stderr=subprocess.PIPE) as process:
            assert killed_when(process, lambda: size_of(partial) > 0, number) == status
            assert process.stderr is not None
            assert b"the same command goes on from there" in process.stderr.read()
        kept = [json.loads(line) for line in partial.read_bytes().splitlines()]
        assert 0 < len(kept) < len(rows)
        asked = sum(len(call.texts) for call in server.calls)
        assert subprocess.run(command(source, target, server.address), check=False).returncode == 1
        texts = sum(row["text"] is not None for row in rows[len(kept) :])
        assert sum(len(call.texts) for call in server.calls) == asked + texts + 1  # what was kept is not asked again
    assert [row["id"] for row in read(target)] == list(range(20_000))


async def test_a_server_that_restarts_costs_nothing(tmp_path: Path) -> None:
    source, target = write(tmp_path / "in.jsonl", rows_of(3_000)), tmp_path / "out.jsonl"
    first = ServerDouble()
    async with first:
        plan = BatchPlan(source, target, first.address, "jsonl", "jsonl")
        run = asyncio.create_task(run_batch(plan))
        await eventually(lambda: len(first.calls) >= 5)
    async with ServerDouble(port=first.port):
        summary = await run
    assert (summary.rows, summary.resumed_rows) == (3_000, 0)
    assert [row["id"] for row in read(target)] == list(range(3_000))


def test_a_server_that_stays_away_stops_the_run_and_no_row_is_blamed(tmp_path: Path) -> None:
    source, target = write(tmp_path / "in.csv", rows_of(2_000)), tmp_path / "out.csv"
    with double_in_a_thread() as server:
        address = server.address
        gone = Fail(grpc.StatusCode.UNAVAILABLE, "the backend is away")
        words = command(source, target, address, "--timeout", "2")
        with subprocess.Popen(words, stderr=subprocess.PIPE) as process:
            while len(server.calls) < 5:
                time.sleep(0.001)
            server.replies.extend([gone] * 100_000)
            assert process.wait() == 3
            server.replies.clear()
            assert process.stderr is not None
            assert b"UNAVAILABLE: the backend is away" in process.stderr.read()
        assert not target.exists()
        assert subprocess.run(command(source, target, address), check=False).returncode == 0
    answered = read(target)
    assert len(answered) == 2_000
    assert not any("UNAVAILABLE" in row["error"] or "away" in row["error"] for row in answered)


def test_a_reader_that_has_enough_ends_the_run_quietly(tmp_path: Path) -> None:
    source = write(tmp_path / "in.jsonl", rows_of(20_000))
    with double_in_a_thread() as server:
        words = [*command(source, Path("-"), server.address), "--output-format", "jsonl"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline().startswith(b'{"id": 0')
            process.stdout.close()
            assert process.wait() == 141
            assert process.stderr.read() == b""


def test_a_silent_standard_input_can_be_interrupted() -> None:
    with double_in_a_thread() as server:
        words = [*command(Path("-"), Path("-"), server.address), "--input-format", "jsonl", "--output-format", "jsonl"]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(b'{"text": "good"}\n' * 64)
            process.stdin.flush()
            for _ in range(64):  # answered, though nothing follows
                assert b'"label": "positive"' in process.stdout.readline()
            process.send_signal(signal.SIGINT)
            assert process.wait() == 130


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_reader_that_stalls_does_not_keep_the_run_from_being_stopped(
    number: int, status: int, tmp_path: Path
) -> None:
    source = write(tmp_path / "in.jsonl", rows_of(3_000))
    with double_in_a_thread() as server:
        words = [*command(source, Path("-"), server.address), "--output-format", "jsonl"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, pipesize=PAGE_BYTES) as process:
            assert process.stdout is not None
            while bytes_waiting(process.stdout.fileno()) < PAGE_BYTES:
                assert process.poll() is None
            process.send_signal(number)
            assert process.wait() == status


@pytest.mark.parametrize("side", ["input", "output"])
async def test_a_fifo_that_nobody_else_opens_does_not_keep_the_run_from_being_stopped(
    side: str, tmp_path: Path
) -> None:
    fifo, file = tmp_path / "fifo", write(tmp_path / "in.csv", rows_of(3))
    os.mkfifo(fifo)
    source, target = (fifo, tmp_path / "out.csv") if side == "input" else (file, fifo)
    async with ServerDouble() as server:
        running = asyncio.create_task(run_batch(BatchPlan(source, target, server.address, "csv", "csv")))
        await eventually(lambda: any(one.name.startswith("batch-reader") for one in threading.enumerate()))
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


async def test_a_run_that_is_cancelled_while_its_files_are_opened_lets_go_of_them(tmp_path: Path) -> None:
    source, target = write(tmp_path / "in.csv", rows_of(3)), tmp_path / "out.csv"
    loop = asyncio.get_running_loop()

    def cancelled_when_open(_: Progress) -> None:
        loop.call_soon_threadsafe(running.cancel)
        while not running.cancelling():
            time.sleep(0.001)

    async with ServerDouble() as server:
        plan = BatchPlan(source, target, server.address, "csv", "csv")
        running = asyncio.create_task(run_batch(plan, cancelled_when_open))
        with pytest.raises(asyncio.CancelledError):
            await running
        assert companions(target) == ["out.csv.partial", "out.csv.progress"]
        assert (await run_batch(plan)).rows == 3


def test_fifos_are_read_and_written_once_the_other_side_is_there(tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    os.mkfifo(source)
    os.mkfifo(target)
    with double_in_a_thread() as server:
        formats = ("--input-format", "csv", "--output-format", "csv")
        with subprocess.Popen(command(source, target, server.address, *formats)) as process:
            while not server.calls:
                assert process.poll() is None
            source.write_text("text\ngood\nbad\n")
            answered = target.read_text().splitlines()
            assert process.wait() == 0
    assert [line.split(",")[1] for line in answered] == ["label", "positive", "negative"]


def test_a_second_signal_ends_at_once_what_the_first_does_not() -> None:
    """A disk that hangs, say: here, a stop that does nothing."""
    program = (
        "import signal\n"
        "from lockstep.commands.batch import _stoppable\n"
        "with _stoppable() as stop:\n"
        "    stop.act = lambda: print('stopping', flush=True)\n"
        "    print('running', flush=True)\n"
        "    while True: signal.pause()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"running\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == b"stopping\n"
        # The first sent again, and again: within half a second of it they are one request.
        while process.poll() is None:
            process.send_signal(signal.SIGINT)
            time.sleep(0.001)
        assert process.returncode == 143
        assert process.stdout.read() == b""


GIGABYTES = 2
PAGE_BYTES = 4096


def bytes_waiting(descriptor: int) -> int:
    """Return how much a pipe holds that nobody has read."""
    return int.from_bytes(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)), sys.byteorder)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_larger_than_memory_takes_no_more_of_it(kind: str, tmp_path: Path) -> None:
    """Two gigabytes: rows of 8 KiB whose text is a part, and now and then one of a megabyte."""
    most_bytes, count = GIGABYTES << 30, 0
    source, target = tmp_path / f"in.{kind}", tmp_path / f"out.{kind}"
    with Filler(source) as filler:
        while filler.written_bytes < most_bytes:
            filler.write(count)
            count += 1
    with double_in_a_thread() as server:
        server.calls = deque(maxlen=0)
        server.messages = deque(maxlen=0)
        process = subprocess.Popen(command(source, target, server.address, "--commit", "1"))
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    print(f"{kind}: {count:,} rows, {source.stat().st_size:,} bytes, peak {usage.ru_maxrss / 1024:.0f} MiB")
    assert usage.ru_maxrss * 1024 < 700 << 20
    assert target.stat().st_size > 0


class Filler:
    """Writes rows one by one, in memory that does not grow."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        self.written_bytes = 0
        self._kind = path.suffix
        self._dice = random.Random(1)
        if self._kind == ".parquet":
            schema = pa.schema([("id", pa.int64()), ("text", pa.string()), ("body", pa.string())])
            self._writer = pq.ParquetWriter(path, schema, compression="none", use_dictionary=False)
            self._rows: list[dict[str, object]] = []
        else:
            self._file = path.open("w")
            if self._kind == ".csv":
                self._file.write("id,text,body\n")

    def __enter__(self) -> "Filler":
        return self

    def __exit__(self, *_: object) -> None:
        if self._kind == ".parquet":
            self._flush()
            self._writer.close()
        else:
            self._file.close()

    def write(self, number: int) -> None:
        text = f"a good film {number} " * (1 if number % 1000 else 12_000)
        body = f"{self._dice.getrandbits(64):016x}" * (512 if number % 5000 else 65_536)
        self.written_bytes += len(text) + len(body)
        match self._kind:
            case ".jsonl":
                self._file.write(f'{{"id": {number}, "text": "{text}", "body": "{body}"}}\n')
            case ".csv":
                self._file.write(f'{number},"{text}",{body}\n')
            case _:
                self._rows.append({"id": number, "text": text, "body": body})
                if len(self._rows) == 4_096:
                    self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        self._writer.write_table(pa.Table.from_pylist(self._rows, self._writer.schema))
        self._rows.clear()
