from dataclasses import replace

from rich.console import Console

from lockstep.clients.loadtest.record import LoadRun
from lockstep.clients.loadtest.report import BackendReport, LoadReport
from lockstep.clients.loadtest.summary import common_load, kept_up, most_kept_up, sentences, warnings_by_load
from lockstep.clients.loadtest.table import print_run
from lockstep.clients.loadtest.tally import BEHIND
from tests.unit.test_loadtest_report import backend_report, load_report

BACKEND = replace(backend_report(), offered_rows=40_000, window_s=4.0)


def at(rate: float, **achieved: float) -> LoadReport:
    backends = [
        replace(BACKEND, backend=name, offered_rows_per_s=rate, achieved_rows_per_s=found, cost=None)
        for name, found in achieved.items()
    ]
    report = load_report(*backends)
    return replace(report, plan=replace(report.plan, rate=rate), purpose="sweep")


def with_rounds(name: str, *rates: float) -> BackendReport:
    rounds = tuple(replace(BACKEND.rounds[0], round=n, achieved_rows_per_s=rate) for n, rate in enumerate(rates))
    return replace(BACKEND, backend=name, rounds=rounds, achieved_rows_per_s=sum(rates) / len(rates), cost=None)


SWEEP = [at(1000, a=1000, b=990), at(2000, a=1990, b=1500), at(4000, a=2500, b=3900)]


def test_a_backend_keeps_up_until_it_once_does_not() -> None:
    assert most_kept_up(SWEEP, "a") == 2000
    assert most_kept_up(SWEEP, "b") == 1000, "what it answered beyond is luck, or the others' texts"
    assert most_kept_up(SWEEP, "c") is None


def test_what_was_in_flight_at_the_windows_ends_is_chance_and_what_is_missing_beyond_is_not() -> None:
    """Three rounds of 1.5 s at 400 a second and 60 ms: some 24 are in flight at each end."""
    latency = replace(BACKEND.latency, mean_ms=60.0)
    rounds = tuple(replace(BACKEND.rounds[0], round=n) for n in range(3))
    backend = replace(
        BACKEND, window_s=4.5, offered_rows=1817, offered_rows_per_s=403.8, rounds=rounds, latency=latency
    )
    assert kept_up(replace(backend, achieved_rows_per_s=380.0))
    assert not kept_up(replace(backend, achieved_rows_per_s=365.6)), "a tenth of what was offered is missing"


def test_a_warning_of_one_load_names_it_and_one_of_all_does_not() -> None:
    quiet, loud = replace(SWEEP[0], warnings=("busy",)), replace(SWEEP[1], warnings=("busy", "late"))
    assert warnings_by_load([quiet, loud]) == ("busy", "2000 texts/s: late")
    console = Console(width=140)
    with console.capture() as captured:
        print_run(LoadRun((quiet, loud)), console)
    assert "! 2000 texts/s: late" in captured.get()


def test_backends_compare_at_the_heaviest_load_that_all_keep_up_with() -> None:
    assert common_load(SWEEP) is SWEEP[0]
    assert common_load(SWEEP[1:]) is None


def test_a_sweep_is_told_in_words() -> None:
    first, second = sentences(SWEEP, [])
    assert first == "Keeps up: a up to 2,000 texts/s; b up to 1,000 texts/s."
    assert second.startswith("At 1000 texts/s 99 % of calls are answered within 10.0 ms on a and 10.0 ms on b.")


def test_latencies_are_said_to_be_of_what_was_answered_where_some_was_not() -> None:
    failing = replace(BACKEND, backend="a", offered_rows=40_000, errors={"UNAVAILABLE": 400}, cost=None)
    (told,) = sentences([load_report(failing)], [])
    assert "That is of those answered: 1.00% of a's texts were not." in told


def test_what_the_generator_could_not_send_is_not_laid_on_the_backend() -> None:
    unsent = replace(BACKEND, backend="a", achieved_rows_per_s=1.0, errors={BEHIND: 39_000}, cost=None)
    (told,) = sentences([load_report(unsent)], [])
    assert told.endswith("The generator could not send so many to a: that tells of it and not of the server.")


def closed_of(*backends: BackendReport) -> LoadReport:
    report = load_report(*backends)
    return replace(report, plan=replace(report.plan, mode="closed", rate=None))


def test_a_faster_backend_is_called_so_where_every_round_agrees() -> None:
    """The machine slows down from round to round; a answers 1.3 times as many in each."""
    (told,) = sentences([closed_of(with_rounds("a", 130, 104, 78.2), with_rounds("b", 100, 80, 60))], [])
    assert told.startswith("With 32 callers: a 104 texts/s and b 80 texts/s. a answers 1.30 times as many as b (95 %")


def test_where_rounds_disagree_no_difference_is_claimed() -> None:
    (told,) = sentences([closed_of(with_rounds("a", 130, 60, 90), with_rounds("b", 90, 100, 80))], [])
    assert told.endswith("Between a and b the rounds do not tell a difference.")


def test_costs_are_told_where_the_server_told_them() -> None:
    (_, cost) = sentences([load_report(backend_report("a"))], [])
    assert cost == "A text costs the server 12.50 ms on a of CPU time (10 texts/s)."
