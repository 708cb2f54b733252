"""Every command ends alike by what is not its own: Ctrl-C, a full disk, a reader that has gone."""

import json
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
    assert (done.returncode, done.stderr) == (3, b"Error: cannot write standard output: no space is left\n")


SHOWN = [("classify", "good"), ("classify", "good", "--json")]


def shell(line: str, *words: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command under a shell, which redirects as its line says: `"$@" >&-`."""
    return subprocess.run(["bash", "-c", line, "bash", *command(*words)], capture_output=True, timeout=60)


@pytest.mark.parametrize("words", SHOWN)
def test_a_closed_output_is_said(words: tuple[str, ...]) -> None:
    with double_in_a_thread() as server:
        done = shell('"$@" >&-', *words, "--server", server.address)
    assert (done.returncode, done.stderr) == (3, b"Error: cannot write standard output: it is closed\n")


@pytest.mark.parametrize("line", ['"$@" 2>&-', '"$@" 2>/dev/full', '"$@" <&- 2>&-'])
def test_a_closed_or_full_standard_error_decides_nothing(line: str) -> None:
    with double_in_a_thread() as server:
        done = shell(line, "classify", "good", "--json", "--server", server.address)
    assert done.returncode == 0
    assert [one["text"] for one in json.loads(done.stdout)] == ["good"]


@pytest.mark.parametrize("words", SHOWN)
def test_a_reader_that_has_gone_ends_every_command_with_141(words: tuple[str, ...]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with double_in_a_thread() as server, open(writing, "wb") as gone:
        asked = command(*words, "--server", server.address)
        done = subprocess.run(asked, stdout=gone, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("words", [("--help",), ("--version",), ("serve", "--help")])
def test_help_for_which_there_is_no_room_is_said(words: tuple[str, ...]) -> None:
    done = shell('"$@" >/dev/full', *words)
    assert (done.returncode, done.stderr) == (3, b"Error: cannot write standard output: no space is left\n")


BATCH = ("batch", "-", "-", "--input-format", "jsonl", "--output-format", "jsonl", "--quiet")


@pytest.mark.parametrize(
    ("line", "why"), [('"$@" <&-', b"standard input is closed"), ('echo "{}" | "$@" >&-', b"standard output is closed")]
)
def test_a_batch_run_whose_stream_is_closed_ends_by_name(line: str, why: bytes) -> None:
    with double_in_a_thread() as server:
        done = shell(line, *BATCH, "--server", server.address)
    assert done.returncode == 3
    assert why in done.stderr
    assert b"Traceback" not in done.stderr


def test_what_latin_1_lacks_is_escaped_and_json_stays_json() -> None:
    text = "caf\u00e9 \u2603"
    with double_in_a_thread() as server:
        plain = shell('PYTHONIOENCODING=latin-1 "$@"', "classify", text, "--server", server.address)
        as_json = shell('PYTHONIOENCODING=latin-1 "$@"', "classify", text, "--json", "--server", server.address)
    assert (plain.returncode, as_json.returncode) == (0, 0)
    assert b"caf\xe9 \\u2603" in plain.stdout
    assert json.loads(as_json.stdout.decode("latin-1"))[0]["text"] == text


def test_a_byte_on_standard_input_that_is_not_utf_8_is_named_with_its_line() -> None:
    with double_in_a_thread() as server:
        done = shell("printf 'good\\n\\377\\n' | \"$@\"", "classify", "-", "--server", server.address)
    assert done.returncode == 2
    assert b"line 2 of standard input is not UTF-8: byte 1 is 0xff" in done.stderr


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
