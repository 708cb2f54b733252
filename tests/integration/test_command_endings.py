"""Every command ends alike by what is not its own: Ctrl-C, a full disk, a reader that has gone."""

import os
import signal
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from lockstep.cli import main
from tests.wire_double import Hold, double_in_a_thread


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "lockstep", *words]


def test_ctrl_c_ends_a_command_that_waits_with_130() -> None:
    with double_in_a_thread(Hold()) as server:
        words = command("classify", "a good film", "--server", server.address)
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            while not server.calls:
                assert process.poll() is None
                time.sleep(0.001)
            process.send_signal(signal.SIGINT)
            assert process.wait() == 130
            assert process.stderr is not None
            assert process.stderr.read() == b"Interrupted.\n"


@pytest.mark.parametrize("words", [("classify", "good"), ("classify", "good", "--json")])
def test_a_full_disk_behind_the_output_is_said(words: tuple[str, ...]) -> None:
    with double_in_a_thread() as server, open("/dev/full", "wb") as full:
        asked = command(*words, "--server", server.address)
        done = subprocess.run(asked, stdout=full, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (3, b"Error: cannot write the output: No space left on device\n")


def test_a_reader_that_has_gone_ends_a_command_quietly() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with double_in_a_thread() as server, open(writing, "wb") as gone:
        words = command("classify", "good", "--json", "--server", server.address)
        done = subprocess.run(words, stdout=gone, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("seconds", ["nan", "inf", "0", "-1"])
@pytest.mark.parametrize(
    "words",
    [("classify", "good"), ("models",), ("latency",), ("load", "tiny"), ("unload", "tiny"), ("batch", "a", "b")],
)
def test_a_timeout_that_is_no_time_is_wrong_usage(words: tuple[str, ...], seconds: str) -> None:
    result = CliRunner().invoke(main, [*words, "--timeout", seconds])
    assert result.exit_code == 2
    assert "Invalid value for '--timeout'" in result.output
