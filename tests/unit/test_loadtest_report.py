import json
from dataclasses import replace
from pathlib import Path

import pytest

from lockstep.clients.loadtest import DocumentInvalid, LoadPlan, LoadReport, LoadRun, read_run, write_run
from lockstep.clients.loadtest.ceiling import Ceiling
from lockstep.clients.loadtest.document import from_document
from lockstep.clients.loadtest.environment import Environment
from lockstep.clients.loadtest.metrics_scrape import Spent
from lockstep.clients.loadtest.report import FORMAT, BackendReport, LegSeen, ServerView, warnings_of
from lockstep.clients.loadtest.tally import BEHIND, Tally
from lockstep.clients.results import Duration, ModelStatistics
from lockstep.protos import sentiment_pb2 as wire
from tests.wire_double import LABELS, prediction_of


def tally_of(rows: int, *, latency_s: float = 0.01, lag_s: float = 0.0, window_s: float = 2.0) -> Tally:
    tally = Tally(window_s=window_s, completed_rows=rows)
    for number in range(rows):
        tally.offer(1, lag_s=lag_s)
        prediction = prediction_of("word " * (number + 1), "x", batch_rows=2, batch_tokens=rows)
        tally.answer(
            wire.ClassifyResponse(labels=LABELS, results=[wire.Result(prediction=prediction)]),
            latency_s=latency_s,
        )
    return tally


def backend_report(name: str = "onnxruntime", *, threads: int | None = 1, **changes: float) -> BackendReport:
    legs = [
        LegSeen(0, tally_of(20, **changes), 1.0, 2.0, Spent(40, 0.4, 0.3, 0.1, 50_000_000)),
        LegSeen(1, tally_of(10, **changes), 4.0, 2.0, Spent(20, 0.2, 0.15, 0.05, 60_000_000)),
    ]
    return BackendReport.of(name, legs, threads=threads, server=None)


HOST = Environment("A processor", 2, 8_000_000_000, "Linux", "3.13", "0.1.0", "1.81", 0.2)
CEILING = Ceiling(2000.0, 1, "unary", 1, 400.0, 0.8)


def load_report(*backends: BackendReport) -> LoadReport:
    return LoadReport(
        format=FORMAT,
        purpose="run",
        plan=LoadPlan(model="tiny", mode="open", rate=10.0),
        server="double 1",
        version="1",
        started_at="2026-01-01T00:00:00+00:00",
        cores=2,
        environment=HOST,
        processes=1,
        ceiling=CEILING,
        texts="built-in sample",
        text_count=200,
        backends=backends or (backend_report(),),
        warnings=("careful",),
        interrupted=False,
    )


def test_legs_add_up() -> None:
    report = backend_report()
    assert report.rows == 30
    assert report.window_s == 4.0
    assert report.achieved_rows_per_s == report.offered_rows_per_s == 7.5
    assert [found.achieved_rows_per_s for found in report.rounds] == [10, 5]
    assert report.mean_batch_rows == pytest.approx(2)
    assert report.padding_ratio == pytest.approx((20 * 20 + 10 * 10) / (210 + 55))
    assert report.phases_ms["execute"] == pytest.approx(6.0)
    assert [(found.tokens, found.rows) for found in report.by_length] == [("1-16", 26), ("17-32", 4)]


def test_a_backend_that_answered_nothing_has_no_means() -> None:
    tally = Tally(window_s=1.0)
    tally.fail(5, "UNAVAILABLE")
    report = BackendReport.of("x", [LegSeen(0, tally)], threads=None, server=None)
    assert (report.mean_batch_rows, report.padding_ratio, report.mean_tokens) == (None, None, None)
    assert report.failed_rows == 5


def test_a_report_survives_being_written(tmp_path: Path) -> None:
    view = ServerView(30, 15, 30, 0, 2.0, 8.0, 1.0, 6.0)
    report = load_report(replace(backend_report(), server=view), backend_report("tensorflow", threads=None))
    assert LoadReport.from_json(report.to_json()) == report
    run = LoadRun((report, report), command="lockstep loadtest")
    write_run(tmp_path / "reports" / "loadtest.json", run)
    assert read_run(tmp_path / "reports" / "loadtest.json") == run


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("format",), 1, "format 2"),
        (("plan", "mode"), "sideways", r"LoadReport\.plan\.mode is 'sideways'"),
        (("plan", "rounds"), 0, r"LoadReport\.plan: rounds is 0"),
        (("backends", 0, "rows"), "30", r"LoadReport\.backends\[0\]\.rows is '30', and must be int"),
        (("backends", 0, "rows"), True, r"backends\[0\]\.rows is True"),
        (("backends", 0, "more"), 1, r"unknown \['more'\]"),
        (("backends", 0, "errors"), [], r"errors is \[\], and must be an object"),
        (("warnings",), "none", "must be a list"),
    ],
)
def test_a_report_that_does_not_fit_is_refused_by_path(path: tuple[str | int, ...], value: object, says: str) -> None:
    document = json.loads(load_report().to_json())
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(DocumentInvalid, match=says):
        LoadReport.from_json(json.dumps(document))


def test_a_file_that_is_no_report_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(DocumentInvalid, match=r"x\.json"):
        read_run(tmp_path / "x.json")
    (tmp_path / "x.json").write_text('{"format": 1, "reports": []}')
    with pytest.raises(DocumentInvalid, match=r"x\.json: not a load test of format 2"):
        read_run(tmp_path / "x.json")


def test_equal_budgets_and_a_quiet_generator_give_no_warning() -> None:
    assert warnings_of([backend_report(), backend_report("tensorflow")]) == ()


def test_unequal_thread_budgets_are_said() -> None:
    (warning,) = warnings_of([backend_report(threads=2), backend_report("tensorflow", threads=1)])
    assert warning == "thread budgets differ, so backends do not compare: onnxruntime 2, tensorflow 1"


def test_unknown_thread_budgets_are_said() -> None:
    (warning,) = warnings_of([backend_report(threads=2), backend_report("tensorflow", threads=None)])
    assert warning == "thread budgets could not be checked: onnxruntime 2, tensorflow unknown"


def test_free_rows_have_no_thread_budget_to_check() -> None:
    assert warnings_of([backend_report(threads=2), backend_report("free", threads=None)]) == ()


def test_a_generator_that_was_the_bottleneck_is_said() -> None:
    (warning,) = warnings_of([replace(backend_report(), generator_cpu_share=0.9)])
    assert "90% of a core" in warning
    (warning,) = warnings_of([backend_report(lag_s=0.005, latency_s=0.02)])
    assert "5.0 ms late" in warning
    assert warnings_of([backend_report(lag_s=0.005, latency_s=0.2)]) == ()


def test_a_run_near_the_generators_ceiling_is_said() -> None:
    ceiling = replace(CEILING, cpu_us_per_call=1e6 / 9)  # of 7.5 rows a second
    (warning,) = warnings_of([backend_report()], ceiling=ceiling)
    assert "within 20% of what the generator can send at all (9)" in warning
    assert warnings_of([backend_report()], ceiling=replace(ceiling, texts_per_call=2)) == ()


def test_a_machine_that_others_used_is_said() -> None:
    assert warnings_of([backend_report()], environment=HOST) == ()
    (warning,) = warnings_of([backend_report()], environment=replace(HOST, load_average=1.5))
    assert "load average 1.5 on 2 cores" in warning


def test_costs_are_of_all_that_the_server_executed_meanwhile() -> None:
    cost = backend_report().cost
    assert cost is not None
    assert (cost.execute_cpu_ms, cost.worker_cpu_ms, cost.gateway_cpu_ms) == pytest.approx((7.5, 10.0, 2.5))
    assert (cost.cpu_ms, cost.resident_bytes) == (pytest.approx(12.5), 60_000_000)
    assert [turn.cpu_ms for turn in backend_report().rounds] == pytest.approx([12.5, 12.5])


def test_slices_lie_on_the_time_of_the_run() -> None:
    tally = Tally(window_s=1.2)
    tally.fail(2, "UNAVAILABLE", slice_=0)
    answer = wire.ClassifyResponse(labels=LABELS, results=[wire.Result(prediction=prediction_of("x", "x"))])
    tally.answer(answer, latency_s=0.010, slice_=1)
    tally.answer(answer, latency_s=0.030, slice_=1)
    tally.answer(answer, latency_s=0.020, slice_=2)
    report = BackendReport.of("x", [LegSeen(0, tally, 10.0, 1.2)], threads=None, server=None)
    assert [found.at_s for found in report.slices] == pytest.approx([10.25, 10.75, 11.1])
    assert [found.failed_rows for found in report.slices] == [2, 0, 0]
    assert [found.rows_per_s for found in report.slices] == pytest.approx([0, 4, 5])
    assert [found.mean_ms for found in report.slices] == pytest.approx([0, 20, 20])
    assert [found.max_ms for found in report.slices] == pytest.approx([0, 30, 20])


def test_failed_rows_are_said() -> None:
    (warning,) = warnings_of([replace(backend_report(), errors={"UNAVAILABLE": 3})])
    assert warning == "onnxruntime: 3 rows failed and are in no percentile: UNAVAILABLE 3"


def test_the_servers_view_adds_up_its_legs() -> None:
    def statistics(rows: int, batches: int) -> ModelStatistics:
        zero = Duration(0, 0)
        return ModelStatistics(
            "m@x", "1", rows, batches, Duration(rows, rows * 8_000_000), zero, zero, zero, zero, zero
        )

    view = ServerView.of([statistics(10, 2), statistics(20, 4)])
    assert (view.rows, view.batches, view.mean_batch_rows, view.mean_call_ms) == (30, 6, 5.0, 8.0)
    assert ServerView.of([statistics(0, 0)]).mean_batch_rows is None


def test_a_generator_that_fell_behind_is_said_with_what_it_did_not_send() -> None:
    tally = tally_of(20, lag_s=5.0)
    tally.refuse(980, BEHIND)
    report = BackendReport.of("x", [LegSeen(0, tally)], threads=1, server=None)
    assert report.offered_rows == report.rows + report.failed_rows == 1000
    assert any(
        "x: the generator could not send 500 texts/s: it fell 5.0 s behind, ended the turn, and never sent 980 of 1,000"
        in warning
        for warning in warnings_of([report])
    )


def test_a_file_of_before_there_was_a_field_is_read() -> None:
    document = json.loads(LoadRun((load_report(),)).to_json())
    del document["cut_short"]
    assert from_document(LoadRun, document).cut_short is None
    del document["reports"]
    with pytest.raises(DocumentInvalid, match=r"missing \['reports'\]"):
        from_document(LoadRun, document)
