"""However a load test ends, what it measured is printed and in its files, and its exit code says how it ended."""

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from click.testing import CliRunner, Result

from lockstep.clients import output_files
from lockstep.clients.loadtest import (
    CutShort,
    LoadPlan,
    LoadRun,
    Progress,
    Setting,
    metrics_scrape,
    read_run,
    run_sweep,
    session,
)
from lockstep.commands.loadtest import loadtest
from tests.failing_disk import FailingDisk
from tests.processes import children
from tests.wire_double import Fail, FailRows, Hold, ServerDouble, double_in_a_thread

ONE_BACKEND = {"a": ("onnxruntime",), "b": ("onnxruntime",), "c": ("onnxruntime",)}
MODEL_A = [FailRows({})] * 10
"""The answers that a test of nine rows asks for: one to wake the backend, then a call each."""


@pytest.fixture(autouse=True)
def _nobody_at_the_default_metrics_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_scrape, "DEFAULT_HTTP", "127.0.0.1:1")


def words(server: ServerDouble, out: Path, *more: str) -> list[str]:
    return [
        "--server", server.address, "--out", str(out), "--rows", "9", "--warmup", "0", "--concurrency", "1",
        "--timeout", "5", "--no-ceiling", *more,
    ]  # fmt: skip


def invoke(server: ServerDouble, out: Path, *more: str) -> Result:
    return CliRunner().invoke(loadtest, words(server, out, *more))


def models_of(run: LoadRun) -> list[str]:
    return [report.plan.model for report in run.reports]


def test_a_model_that_cannot_be_measured_costs_nothing_of_those_before(tmp_path: Path) -> None:
    broken = Fail(grpc.StatusCode.INTERNAL, "broken")
    with double_in_a_thread(*MODEL_A, broken, models=ONE_BACKEND) as server:
        result = invoke(server, tmp_path / "lt", "--model", "a,b,c")
    assert result.exit_code == 3
    assert "What callers saw" in result.stdout
    assert "b: onnxruntime does not answer: broken; not measured: b, c" in result.stderr
    found = read_run(tmp_path / "lt.json")
    assert models_of(found) == ["a"]
    assert found.reports[0].backends[0].rows == 9
    assert found.cut_short == "b: onnxruntime does not answer: broken; not measured: b, c"
    assert "does not answer: broken; not measured: b, c" in (tmp_path / "lt.html").read_text()


def test_a_server_that_is_gone_costs_nothing_of_what_was_measured_and_exits_with_4(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_session = session.open_session
    with ExitStack() as alive:
        server = alive.enter_context(double_in_a_thread(models=ONE_BACKEND))

        def dying(plan: LoadPlan, **setting: Any) -> Any:
            if plan.model == "b":
                alive.close()
            return open_session(plan, **setting)

        monkeypatch.setattr("lockstep.clients.loadtest.run.open_session", dying)
        result = invoke(server, tmp_path / "lt", "--model", "a,b,c", "--json", "--timeout", "0.3")
    assert result.exit_code == 4
    assert "b: no server answers at" in result.stderr
    assert models_of(printed_run(result.stdout, tmp_path)) == ["a"]
    assert models_of(read_run(tmp_path / "lt.json")) == ["a"]


def printed_run(text: str, folder: Path) -> LoadRun:
    (folder / "printed.json").write_text(text)
    return read_run(folder / "printed.json")


@pytest.mark.parametrize(
    ("out", "says"), [("file/x", "cannot be written"), ("folder", "is a folder"), ("folder/", "names no file")]
)
def test_an_output_that_cannot_be_written_is_refused_before_anything_is_sent(
    tmp_path: Path, out: str, says: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.html").mkdir()
    with double_in_a_thread() as server:
        result = CliRunner().invoke(loadtest, ["--server", server.address, "--out", f"{tmp_path}/{out}"])
        assert server.calls == []
    assert result.exit_code == 2
    assert says in result.stderr


def test_what_can_no_longer_be_written_is_printed_and_exits_with_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("lockstep.clients.loadtest.write_run", full)
    with double_in_a_thread(models={"a": ("onnxruntime",)}) as server:
        result = invoke(server, tmp_path / "lt")
    assert result.exit_code == 3
    assert "What callers saw" in result.stdout
    assert "No space left on device" in result.stderr


def test_a_report_that_cannot_be_written_whole_leaves_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with double_in_a_thread(models={"a": ("onnxruntime",)}) as server:
        assert invoke(server, tmp_path / "lt").exit_code == 0
        before = (tmp_path / "lt.json").read_bytes()
        disk = FailingDisk()
        disk.stand_in(monkeypatch, [output_files])
        disk.fill_at(6)  # after a look whether both files can be written, and the first file's opening
        assert invoke(server, tmp_path / "lt").exit_code == 3
    assert (tmp_path / "lt.json").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lt.html", "lt.json"]


def test_a_name_that_the_server_lacks_is_refused_before_the_others_are_measured(tmp_path: Path) -> None:
    with double_in_a_thread(models=ONE_BACKEND) as server:
        for wrong in (("--model", "a,nope"), ("--model", "a,b", "--backends", "torch")):
            result = invoke(server, tmp_path / "lt", *wrong)
            assert result.exit_code == 2
        assert server.calls == []


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (("--rate", "nan"), "rate is nan"),
        (("--rate", "1e12"), "may be 1,000,000 at most"),
        (("--seconds", "nan"), "seconds is nan"),
        (("--sweep-rate", "1:inf:3"), "0 < LOW < HIGH"),
        (("--sweep-rate", "1:1e300:3"), "may be 1,000,000 at most"),
        (("--sweep-concurrency", "1,1e9"), "concurrency is 1,000,000,000"),
        (("--limit", "nan"), "nan is not above 0"),
    ],
)
def test_numbers_that_make_no_test_are_wrong_usage(tmp_path: Path, wrong: tuple[str, ...], says: str) -> None:
    with double_in_a_thread(models={"a": ("onnxruntime",)}) as server:
        result = invoke(server, tmp_path / "lt", *wrong)
    assert result.exit_code == 2
    assert says in result.stderr


def test_a_generator_that_dies_costs_nothing_of_the_turns_before() -> None:
    before = children()
    plan = LoadPlan(model="a", rounds=2, rows=20, warmup_s=0.0, concurrency=2, processes=2)

    def kill_in_the_second_turn(progress: Progress) -> None:
        if progress.number == 2:
            os.kill((children() - before).pop(), signal.SIGKILL)

    with (
        double_in_a_thread(models=ONE_BACKEND) as server,
        pytest.raises(CutShort, match="a generator process ended with status -9") as cut,
    ):
        run_sweep([plan_at(plan, server)], Setting(on_progress=kill_in_the_second_turn))
    (report,) = cut.value.reports
    assert report.interrupted
    assert report.backends[0].rows == 10
    assert any("ended in turn 2 of 2: a generator process" in warning for warning in report.warnings)
    assert children() == before


def plan_at(plan: LoadPlan, server: ServerDouble) -> LoadPlan:
    return replace(plan, address=server.address)


@contextmanager
def started(server: ServerDouble, out: Path, *more: str) -> Iterator[subprocess.Popen[str]]:
    """The command in a process of its own, which signals reach."""
    command = [sys.executable, "-m", "lockstep", "loadtest", *words(server, out, *more)]
    process = subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with process:
        try:
            yield process
        finally:
            process.kill()


def until(condition: Callable[[], bool]) -> None:
    while not condition():
        threading.Event().wait(0.01)


@pytest.mark.parametrize(
    ("number", "status", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_signal_ends_the_test_and_keeps_what_was_measured(
    tmp_path: Path, number: signal.Signals, status: int, word: str
) -> None:
    with (
        double_in_a_thread(models=ONE_BACKEND) as server,
        started(server, tmp_path / "lt", "--model", "a,b", "--rows", "1000000", "--seconds", "600") as process,
    ):
        until(lambda: len(server.calls) >= 20)
        process.send_signal(number)
        printed, said = process.communicate()
    assert process.returncode == status
    assert "What callers saw" in printed
    assert f"Error: {word}; not measured: b" in said
    found = read_run(tmp_path / "lt.json")
    assert found.interrupted
    assert found.reports[0].backends[0].rows >= 15


def test_a_signal_between_two_models_keeps_the_first_and_does_not_exit_with_0(tmp_path: Path) -> None:
    hold = Hold()
    with (
        double_in_a_thread(*MODEL_A, hold, models=ONE_BACKEND) as server,
        started(server, tmp_path / "lt", "--model", "a,b,c") as process,
    ):
        until(hold.arrived.is_set)
        assert models_of(read_run(tmp_path / "lt.json")) == ["a"], "it is there before the others are measured"
        process.send_signal(signal.SIGTERM)
        process.communicate()
    assert process.returncode == 143
    found = read_run(tmp_path / "lt.json")
    assert models_of(found) == ["a"]
    assert found.cut_short == "terminated; not measured: b, c"


def test_a_signal_before_anything_was_measured_says_so(tmp_path: Path) -> None:
    hold = Hold()
    with (
        double_in_a_thread(hold, models=ONE_BACKEND) as server,
        started(server, tmp_path / "lt", "--model", "a") as process,
    ):
        until(hold.arrived.is_set)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate()
    assert process.returncode == 143
    assert "Error: terminated" in said
    assert "Traceback" not in said
    assert not (tmp_path / "lt.json").exists()


def test_a_second_signal_waits_for_nothing_and_leaves_no_generator(tmp_path: Path) -> None:
    """The generators stand still, and would never say what they measured."""
    with (
        double_in_a_thread(models=ONE_BACKEND) as server,
        started(
            server, tmp_path / "lt", "--model", "a", "--rows", "1000000", "--seconds", "600", "--concurrency", "2",
            "--processes", "2",
        ) as process,
    ):  # fmt: skip
        until(lambda: len(server.calls) >= 20)
        generators = psutil.Process(process.pid).children()
        assert len(generators) == 2
        for generator in generators:
            generator.suspend()
        ended = threading.Event()
        while not ended.wait(0.05):
            process.send_signal(signal.SIGTERM)
            if process.poll() is not None:
                ended.set()
        _, said = process.communicate()
    assert process.returncode in (143, -signal.SIGTERM), "the last of them may meet it when all is done"
    assert "Traceback" not in said
    assert not any(generator.is_running() for generator in generators)


def test_a_reader_who_has_gone_costs_nothing_of_the_files(tmp_path: Path) -> None:
    with (
        double_in_a_thread(models=ONE_BACKEND) as server,
        started(server, tmp_path / "lt", "--model", "a") as process,
    ):
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        said = process.stderr.read()
        assert process.wait() == 128 + signal.SIGPIPE
    assert "Wrote" in said
    assert "Exception" not in said
    assert models_of(read_run(tmp_path / "lt.json")) == ["a"]
