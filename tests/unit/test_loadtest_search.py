"""The search for the highest rate that holds a promise, against servers whose limit is known."""

import math
import random
from collections.abc import Callable

import pytest

from lockstep.clients.loadtest.find import judge
from lockstep.clients.loadtest.latency_histogram import RELATIVE_ERROR, Latencies
from lockstep.clients.loadtest.search import RESOLUTION, Search, Slo
from lockstep.clients.loadtest.tally import Tally


def run(search: Search, holds: Callable[[float], bool]) -> Search:
    while (rate := search.next_rate()) is not None:
        search.tell(rate, holds(rate))
    return search


@pytest.mark.parametrize("limit", [0.7, 13.0, 437.0, 512.0, 9001.0])
@pytest.mark.parametrize("start", [1.0, 100.0, 5000.0])
def test_the_bracket_closes_round_the_limit_and_both_ends_are_confirmed(limit: float, start: float) -> None:
    search = run(Search(start, most_tries=60), lambda rate: rate <= limit)
    assert search.settled
    assert search.low is not None
    assert search.high is not None
    assert search.low <= limit < search.high
    assert search.high / search.low <= 1 + RESOLUTION
    for end in (search.low, search.high):
        assert sum(rate == end for rate, _ in search.tries) >= 2


def test_a_stall_that_fails_one_try_does_not_trap_the_search_below_it() -> None:
    turns = iter([False])  # the first try, whatever its rate
    search = run(Search(400.0, most_tries=60), lambda rate: next(turns, True) and rate <= 500)
    assert search.settled
    assert search.low is not None
    assert 500 / (1 + RESOLUTION) <= search.low <= 500


def test_a_lucky_try_does_not_raise_what_is_reported() -> None:
    lucky = iter([True])
    search = run(Search(800.0, most_tries=60), lambda rate: next(lucky, False) or rate <= 500)
    assert search.low is not None
    assert search.low <= 500


def test_near_its_limit_a_server_that_holds_by_chance_still_ends_the_search() -> None:
    rng = random.Random(2)
    for _ in range(50):
        search = run(Search(300.0), lambda rate: rng.random() < 1 / (1 + math.exp((rate - 500) / 20)))
        assert len(search.tries) <= search.most_tries
        assert search.low is not None
        assert 350 < search.low < 600


def test_the_search_asks_for_no_more_than_the_generator_can_send() -> None:
    search = run(Search(100.0, ceiling=350.0), lambda _: True)
    assert max(rate for rate, _ in search.tries) == 350
    assert (search.low, search.high, search.settled) == (350, None, True)
    assert "the generator cannot send more" in search.why()


def test_a_server_that_holds_nothing_ends_the_search_at_the_lowest_rate() -> None:
    search = run(Search(10.0), lambda _: False)
    assert (search.low, search.high, search.settled) == (None, 0.1, True)
    assert search.why() == "not even 0.1 texts/s hold"


def test_the_search_ends_after_so_many_tries_and_says_so() -> None:
    search = run(Search(1.0, most_tries=5), lambda rate: rate < 1e6)
    assert len(search.tries) == 5
    assert not search.settled
    assert "ended after 5 tries" in search.why()


@pytest.mark.parametrize(
    ("text", "percentile", "limit_ms"), [("p99=50ms", 99, 50), ("p99.9=1.5s", 99.9, 1500), ("p50 = 3ms", 50, 3)]
)
def test_promises_are_read(text: str, percentile: float, limit_ms: float) -> None:
    assert Slo.parse(text) == Slo(percentile, limit_ms)


@pytest.mark.parametrize("text", ["99=50ms", "p99=50", "p100=5ms", "p99=0ms", "p0=5ms"])
def test_a_promise_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected p99=50ms|between 0 and 100"):
        Slo.parse(text)


def test_a_call_that_failed_is_slower_than_any_limit() -> None:
    latencies = Latencies()
    for n in range(1, 981):
        latencies.record(n / 1000)
    slo = Slo(97.0, 5000.0)
    assert slo.reached_ms(latencies, failed=0) == pytest.approx(951, rel=RELATIVE_ERROR, abs=1)
    assert slo.reached_ms(latencies, failed=20) == pytest.approx(970, rel=RELATIVE_ERROR, abs=1)
    assert slo.reached_ms(latencies, failed=31) == math.inf
    assert slo.reached_ms(Latencies(), failed=0) == math.inf


def test_a_growing_queue_keeps_no_promise_however_short_it_still_is() -> None:
    def tally(completed: int) -> Tally:
        tally = Tally(window_s=10.0, offered_rows=10_000, completed_rows=completed)
        tally.latency.record(0.01, 10_000)
        return tally

    slo = Slo(99, 5000.0)
    assert judge(slo, 1000.0, tally(9900), 1).held
    assert not judge(slo, 1000.0, tally(8000), 1).held
    assert judge(Slo(99, 5.0), 1000.0, tally(9900), 1).held is False
