"""The load test over real gRPC. What it measures depends on the machine; what it counts does not."""

import asyncio
import http.server
import json
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner, Result

from clients.loadtest import LoadPlan, LoadTestError, Progress, read_reports, run_loadtest
from clients.loadtest import run as run_module
from lockstep.commands.loadtest import loadtest
from tests.wire_double import Fail, ServerDouble, double_in_a_thread

SHORT = {"rows": 24, "rounds": 2, "warmup_s": 0.0, "concurrency": 2}
EXPOSITION = b"""lockstep_backend_threads{model="tiny",backend="onnxruntime"} 2
lockstep_backend_threads{model="tiny",backend="tensorflow"} 1
"""


@pytest.fixture(autouse=True)
def _nobody_at_the_default_metrics_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server of somebody else's on this machine is not asked."""
    monkeypatch.setattr(run_module, "DEFAULT_HTTP", "127.0.0.1:1")


@contextmanager
def metrics() -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(EXPOSITION)

        def log_message(self, *_: object) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_every_backend_of_the_model_is_measured_and_the_server_agrees_on_the_count() -> None:
    with double_in_a_thread() as server:
        report = run_loadtest(LoadPlan(model="tiny", address=server.address, texts_per_call=3, **SHORT))
    assert [backend.backend for backend in report.backends] == ["onnxruntime", "tensorflow"]
    for backend in report.backends:
        assert backend.rows == 24
        assert backend.errors == {}
        assert backend.mean_batch_rows == pytest.approx(3)
        assert backend.phases_ms["execute"] == pytest.approx(6.0)
        assert backend.server is not None
        assert (backend.server.rows, backend.server.mean_batch_rows) == (24, 3.0)
        assert backend.offered_rows == 24
        assert [turn.round for turn in backend.rounds] == [0, 1]
    assert report.server == "double 1"


def test_an_open_loop_sends_all_that_it_offers() -> None:
    plan = LoadPlan(
        model="tiny", mode="open", rate=400.0, rows=40, rounds=1, warmup_s=0.05, backends=("free", "tensorflow")
    )
    with double_in_a_thread() as server:
        report = run_loadtest(plan_at(plan, server))
    assert [(b.backend, b.rows) for b in report.backends] == [("free", 40), ("tensorflow", 40)]


def plan_at(plan: LoadPlan, server: ServerDouble) -> LoadPlan:
    return replace(plan, address=server.address)


def test_failures_are_counted_and_never_retried() -> None:
    failures = [Fail(grpc.StatusCode.RESOURCE_EXHAUSTED, pushback_ms="1"), Fail(grpc.StatusCode.UNAVAILABLE)]
    with double_in_a_thread() as server:

        def after_waking(progress: Progress) -> None:
            if progress.number == 1:
                server.replies.extend(failures)

        plan = LoadPlan(model="tiny", address=server.address, backends=("tensorflow",), **SHORT)
        report = run_loadtest(plan, on_progress=after_waking)
    (backend,) = report.backends
    assert backend.errors == {"RESOURCE_EXHAUSTED": 1, "UNAVAILABLE": 1}
    assert backend.rows == 22
    assert len(server.calls) == 25


def test_a_backend_that_starts_on_its_first_row_is_waited_for() -> None:
    with double_in_a_thread(Fail(grpc.StatusCode.UNAVAILABLE, pushback_ms="1")) as server:
        report = run_loadtest(LoadPlan(model="tiny", address=server.address, **SHORT))
    assert sum(backend.failed_rows for backend in report.backends) == 0


def test_a_backend_that_cannot_answer_ends_the_test_by_name() -> None:
    with (
        double_in_a_thread(Fail(grpc.StatusCode.INTERNAL, "broken")) as server,
        pytest.raises(LoadTestError, match="onnxruntime does not answer: broken"),
    ):
        run_loadtest(LoadPlan(model="tiny", address=server.address, **SHORT))


def test_thread_budgets_are_read_and_unequal_ones_are_said() -> None:
    with double_in_a_thread() as server, metrics() as http_address:
        report = run_loadtest(LoadPlan(model="tiny", address=server.address, http=http_address, **SHORT))
    assert [backend.threads for backend in report.backends] == [2, 1]
    assert any("thread budgets differ" in warning for warning in report.warnings)


def test_metrics_that_were_asked_for_must_answer() -> None:
    with double_in_a_thread() as server, pytest.raises(LoadTestError, match="no metrics"):
        run_loadtest(LoadPlan(model="tiny", address=server.address, http="127.0.0.1:1", **SHORT))


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Have Ctrl-C mean what it means in a terminal: whoever runs the tests in the background may have it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_stops_and_keeps_what_was_measured() -> None:
    with double_in_a_thread() as server:

        def interrupt(progress: Progress) -> None:
            if progress.number == 2:
                os.kill(os.getpid(), signal.SIGINT)

        plan = LoadPlan(model="tiny", address=server.address, **SHORT)
        report = run_loadtest(plan, on_progress=interrupt)
    assert report.interrupted
    assert report.backends[0].backend == "onnxruntime"
    assert report.backends[0].rows == 12


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_before_anything_was_measured_is_raised() -> None:
    class Interrupting:
        def __init__(self, address: str) -> None:
            os.kill(os.getpid(), signal.SIGINT)

        async def call(self, *_: object, **__: object) -> object:
            return await asyncio.Event().wait()

        async def close(self) -> None: ...

    with pytest.raises(KeyboardInterrupt):
        run_loadtest(LoadPlan(model="tiny"), connect=Interrupting)  # type: ignore[arg-type]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(
        loadtest, [*arguments, "--rows", "9", "--warmup", "0", "--concurrency", "1", "--timeout", "5"]
    )


def test_the_command_prints_the_tables_and_writes_both_files(tmp_path: Path) -> None:
    with double_in_a_thread(models={"a": ("onnxruntime",), "b": ("tensorflow",)}) as server:
        result = run("--server", server.address, "--model", "a,b", "--out", str(tmp_path / "reports" / "lt"))
    assert result.exit_code == 0, result.output
    for part in ("onnxruntime", "tensorflow", "p99 ms", "padded/tokens", "thread"):
        assert part in result.output
    assert [r.plan.model for r in read_reports(tmp_path / "reports" / "lt.json")] == ["a", "b"]
    assert "<title>" in (tmp_path / "reports" / "lt.html").read_text()


def test_the_command_prints_json(tmp_path: Path) -> None:
    with double_in_a_thread() as server:
        result = run("--server", server.address, "--json", "--out", str(tmp_path / "lt"))
    (report,) = json.loads(result.stdout)
    assert [backend["rows"] for backend in report["backends"]] == [9, 9]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "which model? The server serves: a, b (--model)"),
        (("--model", "c"), "no model 'c'"),
        (("--model", "a", "--backends", "torch"), "no backend torch"),
        (("--model", "a", "--mode", "open"), "needs a rate"),
    ],
)
def test_wrong_usage_exits_with_2(tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    with double_in_a_thread(models={"a": ("onnxruntime",), "b": ("onnxruntime",)}) as server:
        result = run("--server", server.address, "--out", str(tmp_path / "lt"), *arguments)
    assert result.exit_code == 2
    assert says in result.output


def test_no_server_exits_with_4(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lockstep.commands.loadtest.CONNECT_S", 0.2)
    with double_in_a_thread() as server:
        address = server.address
    result = run("--server", address, "--out", str(tmp_path / "lt"))
    assert result.exit_code == 4
    assert "lockstep serve" in result.output
