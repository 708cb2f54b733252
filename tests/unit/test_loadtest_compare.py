import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from lockstep.clients.loadtest import LoadReport, LoadRun, write_run
from lockstep.clients.loadtest.run_comparison import Change, NotComparable, compare
from lockstep.clients.loadtest.search import BackendSearch, SearchReport, Slo
from lockstep.commands.compare import compare as command
from tests.unit.test_loadtest_report import HOST, backend_report, load_report

BACKEND = backend_report()


def run_of(p99_ms: Sequence[float], *, model: str = "tiny", **changes: Any) -> LoadRun:
    """A run at 10 rows a second whose rounds had these p99s; everything else is as in every other."""
    backend = BACKEND
    rounds = tuple(replace(backend.rounds[0], round=n, p99_ms=ms) for n, ms in enumerate(p99_ms))
    report = load_report(replace(backend, rounds=rounds))
    report = replace(report, plan=replace(report.plan, model=model), warnings=())
    return LoadRun((replace(report, **changes),))


def verdicts(changes: Sequence[Change]) -> dict[str, str]:
    return {change.figure: change.verdict for change in changes}


def test_the_same_run_twice_is_the_same() -> None:
    run = run_of([10.0, 10.2, 9.9, 10.1])
    found = compare(run, run)
    assert set(verdicts(found.changes).values()) == {"same"}
    assert (found.worse, found.differences, found.notes) == ((), (), ())


def test_what_is_slower_beyond_its_interval_and_the_tolerance_is_worse() -> None:
    found = compare(run_of([10.0, 10.2, 9.9, 10.1]), run_of([12.0, 12.2, 11.8, 12.1]))
    assert verdicts(found.changes)["p99"] == "worse"
    (change,) = found.worse
    assert change.ratio is not None
    assert change.ratio.low > 1.1
    assert change.ratio.value == pytest.approx(1.197, abs=0.01)
    assert verdicts(compare(run_of([12.0, 12.1]), run_of([10.0, 10.1])).changes)["p99"] == "better"


def test_a_sure_change_within_the_tolerance_is_none() -> None:
    before, after = run_of([10.00, 10.01, 10.00, 10.01]), run_of([10.30, 10.31, 10.30, 10.31])
    assert verdicts(compare(before, after).changes)["p99"] == "same"
    assert verdicts(compare(before, after, tolerance=0.01).changes)["p99"] == "worse"


def test_noise_is_unsure_and_not_worse() -> None:
    found = compare(run_of([10.0, 30.0, 15.0]), run_of([14.0, 40.0, 22.0]))
    assert verdicts(found.changes)["p99"] == "unsure"
    assert found.worse == ()


def slowed(run: LoadRun, *, rounds: int, times: float) -> LoadRun:
    """The run's first rounds, with every latency and every cost so many times as high."""
    (report,) = run.reports
    (backend,) = report.backends
    slow = tuple(
        replace(turn, p50_ms=times * turn.p50_ms, p99_ms=times * turn.p99_ms, cpu_ms=times * (turn.cpu_ms or 0.0))
        for turn in backend.rounds[:rounds]
    )
    return LoadRun((replace(report, backends=(replace(backend, rounds=slow),)),))


def test_one_round_proves_nothing_and_that_is_not_as_if_nothing_had_changed(tmp_path: Path) -> None:
    before = slowed(run_of([10.0]), rounds=1, times=1)
    after = slowed(before, rounds=1, times=10)
    found = compare(before, after)
    assert set(verdicts(found.changes).values()) == {"unsure"}
    (why,) = found.unjudged
    assert why.startswith("tiny@onnxruntime, 10 texts/s: rounds: 1 before, 1 after; of fewer than two there is no")
    result = invoke(tmp_path, before, after)
    assert result.exit_code == 3
    assert "Could not be judged: tiny@onnxruntime, 10 texts/s: rounds: 1 before, 1 after" in " ".join(
        result.output.split()
    )
    assert json.loads(invoke(tmp_path, before, after, "--json").stdout)["unjudged"] == [why]


def test_rounds_that_leave_every_figure_open_judge_nothing() -> None:
    (report,) = run_of([10.0, 90.0]).reports
    wild = [replace(turn, p50_ms=ms, achieved_rows_per_s=ms, cpu_ms=ms)
            for turn, ms in zip(report.backends[0].rounds, (1.0, 50.0), strict=True)]  # fmt: skip
    run = LoadRun((replace(report, backends=(replace(report.backends[0], rounds=tuple(wild)),)),))
    (why,) = compare(run, run).unjudged
    assert "rounds: 2 before, 2 after; they differ too much among themselves" in why


def test_an_open_loop_whose_latencies_are_open_is_not_judged_by_how_many_it_answered() -> None:
    (report,) = run_of([10.0, 90.0]).reports
    rounds = tuple(replace(turn, achieved_rows_per_s=10.0, p50_ms=turn.p99_ms) for turn in report.backends[0].rounds)
    run = LoadRun((replace(report, backends=(replace(report.backends[0], rounds=rounds),)),))
    found = compare(run, run)
    assert verdicts(found.changes)["answered"] == "same"
    assert len(found.unjudged) == 1


def test_what_failed_is_worse_however_few_the_rounds(tmp_path: Path) -> None:
    before = run_of([10.0])
    (report,) = before.reports
    failing = LoadRun((replace(report, backends=(replace(report.backends[0], errors={"UNAVAILABLE": 3}),)),))
    assert compare(before, failing).unjudged == ()
    assert invoke(tmp_path, before, failing).exit_code == 1
    assert len(compare(failing, failing).unjudged) == 1, "that as many failed says nothing of its pace"


def test_a_figure_that_is_unsure_passes_unless_it_is_strict(tmp_path: Path) -> None:
    before, after = run_of([10.0, 30.0, 15.0]), run_of([14.0, 40.0, 22.0])
    assert invoke(tmp_path, before, after).exit_code == 0
    assert invoke(tmp_path, before, after, "--strict").exit_code == 3
    assert invoke(tmp_path, before, before, "--tolerance", "9", "--strict").exit_code == 0


@pytest.mark.parametrize("tolerance", ["nan", "inf", "-0.1"])
def test_a_tolerance_that_is_no_part_is_refused(tmp_path: Path, tolerance: str) -> None:
    run = run_of([10.0, 10.1])
    assert invoke(tmp_path, run, run, "--tolerance", tolerance).exit_code == 2
    with pytest.raises(ValueError, match="the tolerance is"):
        compare(run, run, tolerance=float(tolerance))


def test_a_file_that_holds_no_number_is_refused(tmp_path: Path) -> None:
    run = run_of([10.0, 10.1])
    result = invoke(tmp_path, run, slowed(run, rounds=2, times=float("nan")))
    assert result.exit_code == 2
    assert "holds NaN, which is no number" in " ".join(result.output.split())


def test_runs_of_the_same_server_are_seldom_found_worse() -> None:
    rng = random.Random(1)

    def noisy() -> LoadRun:
        return run_of([10.0 * rng.lognormvariate(0, 0.1) for _ in range(5)])

    worse = sum(bool(compare(noisy(), noisy()).worse) for _ in range(300))
    assert worse / 300 < 0.05


def test_texts_that_began_to_fail_are_worse() -> None:
    before, after = run_of([10.0, 10.1]), run_of([10.0, 10.1])
    (report,) = after.reports
    failing = replace(report, backends=(replace(report.backends[0], errors={"UNAVAILABLE": 3}),))
    found = compare(before, LoadRun((failing,)))
    assert verdicts(found.changes)["failed"] == "worse"
    assert verdicts(compare(LoadRun((failing,)), before).changes)["failed"] == "better"


def test_a_backend_that_answers_nothing_any_more_is_worse() -> None:
    before, after = run_of([10.0, 10.1]), run_of([0.0, 0.0])
    (report,) = after.reports
    dead = tuple(replace(turn, achieved_rows_per_s=0.0) for turn in report.backends[0].rounds)
    found = compare(before, LoadRun((replace(report, backends=(replace(report.backends[0], rounds=dead),)),)))
    assert verdicts(found.changes)["answered"] == "worse"
    assert "better" not in verdicts(found.changes).values(), "no latency is not a short one"


def search_run(low: float | None, high: float | None) -> LoadRun:
    search = SearchReport("tiny", Slo(99, 50), 3.0, (BackendSearch("onnxruntime", low, high, True, "", ()),), False)
    return LoadRun(tuple(replace(one, purpose="search") for one in run_of([10.0]).reports), (search,))


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        ((800.0, 840.0), (800.0, 840.0), "same"),
        ((800.0, 840.0), (500.0, 520.0), "worse"),
        ((500.0, 520.0), (800.0, 840.0), "better"),
        ((800.0, 840.0), (None, 0.1), "worse"),
        ((800.0, 1200.0), (760.0, 1300.0), "unsure"),
    ],
)
def test_searches_are_compared_by_their_brackets(before: Any, after: Any, verdict: str) -> None:
    (change,) = compare(search_run(*before), search_run(*after), tolerance=0.1).changes
    assert change.verdict == verdict


def plan_with(report: LoadReport, **changes: Any) -> dict[str, Any]:
    return {"plan": replace(report.plan, **changes)}


def test_other_plans_machines_and_budgets_are_said() -> None:
    before = run_of([10.0, 10.1])
    (report,) = before.reports
    for changes, says in (
        (plan_with(report, wire="stream"), "wire: 'unary' and 'stream'"),
        (plan_with(report, texts_per_call=2), "texts per call: 1 and 2"),
        ({"environment": replace(HOST, cpu="Another")}, "cpu: A processor and Another"),
        ({"environment": replace(HOST, cores=64)}, "cores: 2 and 64"),
        ({"processes": 2}, "generator processes: 1 and 2"),
        ({"text_count": 7}, "texts: 200 and 7"),
        ({"backends": (replace(report.backends[0], threads=4),)}, "threads of onnxruntime: 1 and 4"),
    ):
        (difference,) = compare(before, LoadRun((replace(report, **changes),))).differences
        assert difference.startswith(says)


def test_another_version_of_the_model_is_noted_and_compared() -> None:
    before = run_of([10.0, 10.1])
    found = compare(before, run_of([10.0, 10.1], version="2"))
    assert found.differences == ()
    assert found.notes == ("tiny: version 1, then 2",)


def test_a_run_that_was_cut_short_is_noted() -> None:
    before = run_of([10.0, 10.1])
    found = compare(before, replace(before, cut_short="terminated; not measured: other"))
    assert found.notes == ("after: terminated; not measured: other",)


def test_what_has_nothing_in_common_does_not_compare() -> None:
    with pytest.raises(NotComparable, match=r"one holds tiny \(onnxruntime; 10 texts/s\); one holds other"):
        compare(run_of([10.0]), run_of([10.0], model="other"))


def invoke(folder: Path, before: LoadRun, after: LoadRun, *arguments: str) -> Result:
    write_run(folder / "a.json", before)
    write_run(folder / "b.json", after)
    return CliRunner().invoke(command, [str(folder / "a.json"), str(folder / "b.json"), *arguments])


def test_the_exit_code_says_whether_it_got_slower(tmp_path: Path) -> None:
    fast, slow = run_of([10.0, 10.2, 9.9]), run_of([15.0, 15.2, 14.9])
    assert invoke(tmp_path, fast, fast).exit_code == 0
    result = invoke(tmp_path, fast, slow)
    assert result.exit_code == 1
    assert "1 of 4 figures worse" in result.output
    assert invoke(tmp_path, slow, fast).exit_code == 0
    assert invoke(tmp_path, fast, slow, "--tolerance", "0.6").exit_code == 0
    document = json.loads(invoke(tmp_path, fast, slow, "--json").stdout)
    assert (document["worse"], document["comparable"]) == (1, True)


def test_what_does_not_compare_exits_with_2_and_says_why(tmp_path: Path) -> None:
    before = run_of([10.0, 10.1])
    other = run_of([10.0, 10.1], environment=replace(HOST, cores=64))
    result = invoke(tmp_path, before, other)
    assert result.exit_code == 2
    assert "cores: 2 and 64" in result.output
    assert invoke(tmp_path, before, other, "--anyway").exit_code == 0
    result = invoke(tmp_path, before, run_of([10.0], model="other"))
    assert result.exit_code == 2
    assert "no backend was under the same load" in result.output
    (tmp_path / "c.json").write_text("{}")
    result = CliRunner().invoke(command, [str(tmp_path / "a.json"), str(tmp_path / "c.json")])
    assert result.exit_code == 2
    assert "not a load test of format" in result.output
