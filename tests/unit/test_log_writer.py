"""Log lines are written by a thread of their own, or dropped and counted; who logs never waits."""

import os

from lockstep.server.log_writer import LogWriter

PATIENCE_S = 0.2


def read_all(descriptor: int) -> list[str]:
    os.set_blocking(descriptor, False)
    found = b""
    try:
        while part := os.read(descriptor, 1 << 16):
            found += part
    except BlockingIOError:
        pass
    return found.decode().splitlines()


def test_lines_are_written_in_order() -> None:
    reading, writing = os.pipe()
    writer = LogWriter(writing)
    for number in range(100):
        writer.write(f"line {number}")
    writer.close(10)
    assert read_all(reading) == [f"line {number}" for number in range(100)]
    os.close(reading)
    os.close(writing)


def test_a_reader_that_does_not_read_holds_up_neither_who_logs_nor_the_end() -> None:
    reading, writing = os.pipe()
    writer = LogWriter(writing, most_lines=5)
    long = "x" * 100_000  # more than a pipe takes: the thread waits in its first write
    for _ in range(50):
        writer.write(long)
    writer.close(PATIENCE_S)
    lines: list[str] = []
    while not any("were dropped" in line for line in lines):  # the reader reads again
        lines += read_all(reading)
    assert sum("log lines were dropped: the log was not read or not writable" in line for line in lines) == 1
    os.close(reading)


def test_a_reader_that_has_gone_and_a_full_disk_are_no_errors() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open("/dev/full", "wb") as full:
        for descriptor in (writing, full.fileno()):
            writer = LogWriter(descriptor)
            writer.write("nobody reads this")
            writer.close(10)
            assert not writer._thread.is_alive()
    os.close(writing)


def test_what_is_not_unicode_is_escaped() -> None:
    reading, writing = os.pipe()
    writer = LogWriter(writing)
    writer.write("lone \ud800 surrogate")
    writer.close(10)
    assert read_all(reading) == ["lone \\ud800 surrogate"]
    os.close(reading)
    os.close(writing)
