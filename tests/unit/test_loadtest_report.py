import json
from dataclasses import replace
from pathlib import Path

import pytest

from clients.loadtest import DocumentInvalid, LoadPlan, LoadReport, read_reports, write_reports
from clients.loadtest.report import FORMAT, BackendReport, ServerView, warnings_of
from clients.loadtest.tally import Tally
from clients.results import Duration, ModelStatistics
from protos import sentiment_pb2 as wire
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
    return BackendReport.of(
        name, [(0, tally_of(20, **changes)), (1, tally_of(10, **changes))], threads=threads, server=None
    )


def load_report(*backends: BackendReport) -> LoadReport:
    return LoadReport(
        format=FORMAT,
        plan=LoadPlan(model="tiny", mode="open", rate=10.0),
        server="double 1",
        version="1",
        started_at="2026-01-01T00:00:00+00:00",
        cores=2,
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
    report = BackendReport.of("x", [(0, tally)], threads=None, server=None)
    assert (report.mean_batch_rows, report.padding_ratio, report.mean_tokens) == (None, None, None)
    assert report.failed_rows == 5


def test_a_report_survives_being_written(tmp_path: Path) -> None:
    view = ServerView(30, 15, 30, 0, 2.0, 8.0, 1.0, 6.0)
    report = load_report(replace(backend_report(), server=view), backend_report("tensorflow", threads=None))
    assert LoadReport.from_json(report.to_json()) == report
    write_reports(tmp_path / "reports" / "loadtest.json", [report, report])
    assert read_reports(tmp_path / "reports" / "loadtest.json") == (report, report)


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("format",), 2, "format 1"),
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
        read_reports(tmp_path / "x.json")
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(DocumentInvalid, match='no list under "reports"'):
        read_reports(tmp_path / "x.json")


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
