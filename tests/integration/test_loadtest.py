"""The load test over real gRPC. What it measures depends on the machine; what it counts does not."""

import asyncio
import http.server
import json
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner, Result

from lockstep.clients.loadtest import (
    Ceiling,
    LoadPlan,
    LoadTestError,
    Progress,
    Setting,
    Slo,
    loads_of,
    measure,
    measure_ceiling,
    metrics_scrape,
    read_run,
    run_loadtest,
    run_search,
    run_sweep,
)
from lockstep.commands.loadtest import loadtest
from lockstep.protos import sentiment_pb2 as wire
from tests.processes import children
from tests.wire_double import Fail, ServerDouble, double_in_a_thread

SHORT = {"rows": 24, "rounds": 2, "warmup_s": 0.0, "concurrency": 2}
EXPOSITION = b"""lockstep_backend_threads{model="tiny",backend="onnxruntime"} 2
lockstep_backend_threads{model="tiny",backend="tensorflow"} 1
"""


@pytest.fixture(autouse=True)
def _nobody_at_the_default_metrics_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server of somebody else's on this machine is not asked."""
    monkeypatch.setattr(metrics_scrape, "DEFAULT_HTTP", "127.0.0.1:1")


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


def test_a_text_that_a_backend_refuses_does_not_pass_for_a_backend_that_does_not_answer(tmp_path: Path) -> None:
    texts = tmp_path / "texts.jsonl"
    texts.write_text('""\n')
    with double_in_a_thread() as server:
        run_loadtest(LoadPlan(model="tiny", address=server.address, texts=str(texts), **SHORT))
        assert list(server.calls[0].texts) == ["A film to remember."]


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


@pytest.mark.parametrize("way", ["unary", "stream"])
def test_several_generators_send_each_call_once(way: Any) -> None:
    plan = LoadPlan(
        model="tiny", backends=("onnxruntime",), mode="open", rate=400.0, rows=40, rounds=2, warmup_s=0.05,
        processes=2, wire=way,
    )  # fmt: skip
    with double_in_a_thread() as server:
        report = run_loadtest(plan_at(plan, server))
        (backend,) = report.backends
        sent = len(server.calls)
    assert (report.processes, backend.rows, backend.errors) == (2, 40, {})
    assert backend.server is not None
    assert sent == 1 + backend.server.rows, "one to wake the backend"
    assert sum(found.rows_per_s for found in backend.slices) > 0


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_ends_the_generators_too_and_keeps_what_they_measured() -> None:
    plan = LoadPlan(model="tiny", backends=("onnxruntime",), concurrency=2, seconds=60.0, warmup_s=0.0, processes=2)
    with double_in_a_thread() as server:

        def interrupt() -> None:
            while len(server.calls) < 20:
                threading.Event().wait(0.01)
            os.kill(os.getpid(), signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        report = run_loadtest(plan_at(plan, server))
        thread.join()
    assert report.interrupted
    assert report.backends[0].rows >= 15
    assert report.backends[0].window_s < 20


def test_a_generator_that_dies_ends_the_test_with_its_last_words() -> None:
    plan = LoadPlan(model="tiny", backends=("onnxruntime",), concurrency=2, seconds=60.0, warmup_s=0.0, processes=2)
    before = children()
    with double_in_a_thread() as server:

        def kill() -> None:
            while len(server.calls) < 20:
                threading.Event().wait(0.01)
            os.kill((children() - before).pop(), signal.SIGKILL)

        thread = threading.Thread(target=kill)
        thread.start()
        with pytest.raises(LoadTestError, match="a generator process ended with status -9"):
            run_loadtest(plan_at(plan, server))
        thread.join()
    assert children() == before


class StandingStill(ServerDouble):
    """Wakes at once, and then answers nobody until so many calls have come."""

    def __init__(self, until_calls: int) -> None:
        super().__init__(models={"tiny": ("onnxruntime",)})
        self.until_calls = until_calls
        self.moves_again = asyncio.Event()

    async def Classify(self, request: Any, context: Any) -> wire.ClassifyResponse:  # noqa: N802
        response = await super().Classify(request, context)
        if len(self.calls) > self.until_calls:
            self.moves_again.set()
        if len(self.calls) > 1:
            await self.moves_again.wait()
        return response


@pytest.mark.parametrize("processes", [1, 2])
async def test_a_server_that_stands_still_is_charged_for_everyone_who_waited(processes: int) -> None:
    """Fifty calls are due in a second, and none is answered before the last was sent: call k waits (49 - k) / 50 s.

    So these are bounds from below, however slow the machine; a tester that waits for its answers would see one call.
    """
    plan = LoadPlan(
        model="tiny", mode="open", arrivals="constant", rate=50.0, rows=50, rounds=1, warmup_s=0.0, timeout_s=60.0,
        processes=processes,
    )  # fmt: skip
    async with StandingStill(until_calls=50) as server:
        report = await measure(plan_at(plan, server))
    (backend,) = report.backends
    assert backend.rows == 50
    assert backend.latency.max_ms >= 980
    assert backend.latency.p90_ms >= 880
    assert backend.latency.p50_ms >= 480
    assert backend.latency.mean_ms >= 490


@pytest.mark.parametrize(("way", "processes"), [("unary", 1), ("stream", 2)])
def test_the_generators_own_ceiling_is_measured(way: Any, processes: int) -> None:
    before = children()
    plan = LoadPlan(model="m", wire=way, processes=processes, texts_per_call=3)
    ceiling = measure_ceiling(plan, seconds=0.3)
    assert (ceiling.wire, ceiling.processes, ceiling.texts_per_call) == (way, processes, 3)
    assert ceiling.calls_per_s > 0
    assert ceiling.cpu_us_per_call > 0
    assert ceiling.most_rows_per_s == 3 * ceiling.most_calls_per_s
    assert children() == before


def test_a_sweep_makes_a_report_of_each_load_and_asks_no_more_of_a_backend_that_is_saturated() -> None:
    """The double answers nothing in time from 300 a second on: nothing beyond is sent after that."""
    base = LoadPlan(model="tiny", backends=("onnxruntime",), rounds=2, rows=20, warmup_s=0.0, timeout_s=5.0)
    seen: list[float | None] = []
    with double_in_a_thread() as server:

        def told(progress: Progress) -> None:
            seen.append(progress.plan.rate)
            if progress.plan.rate == 300:
                server.replies.extend([Fail(grpc.StatusCode.RESOURCE_EXHAUSTED)] * 10)

        plans = loads_of(plan_at(base, server), rates=[400, 100, 300])
        reports = run_sweep(plans, Setting(on_progress=told))
    assert [report.plan.rate for report in reports] == [100, 300, 400]
    assert seen == [100, 300, 300, 100]
    assert [sum(b.rows for b in report.backends) for report in reports] == [20, 0, 0]
    assert any("not asked for more than 300 texts/s" in warning for warning in reports[-1].warnings)


def test_a_search_finds_the_most_that_the_generator_can_send_where_the_server_holds_it() -> None:
    ceiling = Ceiling(9.0, 1, "unary", 1, 20_000.0, 0.2)
    plan = LoadPlan(model="tiny", rounds=1, seconds=0.3, warmup_s=0.0, concurrency=2)
    turns: list[str] = []
    with double_in_a_thread() as server:
        found = run_search(
            plan_at(plan, server),
            Slo.parse("p50=9s"),
            Setting(ceiling=ceiling, on_progress=lambda progress: turns.append(progress.leg.backend)),
        )
    assert [(one.backend, one.low, one.high, one.settled) for one in found.search.backends] == [
        ("onnxruntime", 40.0, None, True),
        ("tensorflow", 40.0, None, True),
    ]
    assert {report.purpose for report in found.reports} == {"search"}
    assert sorted(turns[:2]) == sorted(turns[2:4]) == ["onnxruntime", "tensorflow"], "backends take turns"


def test_a_search_where_every_call_fails_ends_without_a_rate() -> None:
    failures = [Fail(grpc.StatusCode.RESOURCE_EXHAUSTED)] * 2000
    plan = LoadPlan(model="tiny", backends=("onnxruntime",), rounds=1, seconds=0.2, warmup_s=0.0, concurrency=1, rows=4)
    with double_in_a_thread() as server:

        def told(progress: Progress) -> None:
            if progress.plan.mode == "open":
                server.replies = deque(failures)

        found = run_search(plan_at(plan, server), Slo.parse("p99=50ms"), Setting(on_progress=told))
        server.replies.clear()
    (backend,) = found.search.backends
    assert backend.low is None
    assert {one.reached_ms for one in backend.tries} == {None}


def test_a_sweep_ends_at_its_limit() -> None:
    base = LoadPlan(model="tiny", backends=("onnxruntime",), rounds=2, rows=4, warmup_s=0.0)
    with double_in_a_thread() as server:
        reports = run_sweep(loads_of(plan_at(base, server), callers=[1, 2]), Setting(limit_s=-1.0))
    assert [report.backends for report in reports] == [(), ()]
    assert "the limit of -1 s was reached after 0 of 4 turns" in reports[-1].warnings


def run(*arguments: str) -> Result:
    return CliRunner().invoke(
        loadtest,
        [*arguments, "--rows", "9", "--warmup", "0", "--concurrency", "1", "--timeout", "5", "--no-ceiling"],
    )


def test_the_command_prints_the_tables_and_writes_both_files(tmp_path: Path) -> None:
    with double_in_a_thread(models={"a": ("onnxruntime",), "b": ("tensorflow",)}) as server:
        result = run("--server", server.address, "--model", "a,b", "--out", str(tmp_path / "reports" / "lt"))
    assert result.exit_code == 0, result.output
    for part in ("onnxruntime", "tensorflow", "p99 ms", "padded/tokens", "thread"):
        assert part in result.output
    assert [r.plan.model for r in read_run(tmp_path / "reports" / "lt.json").reports] == ["a", "b"]
    assert "<title>" in (tmp_path / "reports" / "lt.html").read_text()


def test_the_command_sweeps_and_says_how_it_was_called(tmp_path: Path) -> None:
    with double_in_a_thread(models={"a": ("onnxruntime",)}) as server:
        result = run("--server", server.address, "--sweep-rate", "100:300:3", "--out", str(tmp_path / "lt"))
    assert result.exit_code == 0, result.output
    found = read_run(tmp_path / "lt.json")
    assert [(report.plan.mode, report.plan.rate) for report in found.reports] == [
        ("open", 100), ("open", 200), ("open", 300)
    ]  # fmt: skip
    assert found.command is not None
    assert "--sweep-rate 100,200,300" in found.command
    assert "--no-ceiling" in found.command


def test_the_command_prints_json(tmp_path: Path) -> None:
    with double_in_a_thread() as server:
        result = run("--server", server.address, "--json", "--out", str(tmp_path / "lt"))
    (report,) = json.loads(result.stdout)["reports"]
    assert [backend["rows"] for backend in report["backends"]] == [9, 9]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--model", "a", "--sweep-rate", "9:1:3"), "0 < LOW < HIGH"),
        (("--model", "a", "--sweep-rate", "1,x"), "numbers separated by commas"),
        (("--model", "a", "--sweep-rate", "1,2", "--rate", "5"), "name one kind"),
        (("--model", "a", "--lengths", "gamma:3"), "expected fixed:32"),
        (("--model", "a", "--texts", "nowhere.txt"), "no file nowhere.txt"),
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
