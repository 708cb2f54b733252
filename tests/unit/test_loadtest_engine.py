"""The engine on a loop whose time is virtual: seconds pass at once, and every latency is known exactly."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any

import grpc
import pytest

from lockstep.clients.errors import Unavailable
from lockstep.clients.loadtest import engine
from lockstep.clients.loadtest.engine import LegResult, run_leg
from lockstep.clients.loadtest.latency_histogram import RELATIVE_ERROR
from lockstep.clients.loadtest.plan import Leg, LoadPlan, Share, generators, legs
from lockstep.clients.loadtest.tally import BEHIND, NOT_SENT, Tally
from lockstep.clients.loadtest.texts import Texts
from lockstep.protos import sentiment_pb2 as wire
from tests.wire_double import LABELS, prediction_of

TEXTS = Texts("test", tuple(f"text number {n}" for n in range(10)))


class VirtualSelector(selectors.DefaultSelector):
    """Instead of sleeping, moves the loop's clock."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "everything waits and nothing would ever wake it"
        self.now_s += max(0.0, timeout)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._virtual = VirtualSelector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now_s


class FakeTransport:
    """Answers after a latency that may depend on the instant; with a `queue`, one call after the other."""

    def __init__(self, latency_s: Callable[[float], float], *, queue: bool = False) -> None:
        self._latency_s = latency_s
        self._queue = queue
        self._free_at_s = 0.0
        self.sent: list[tuple[float, wire.ClassifyRequest]] = []
        self.fail_at: set[int] = set()

    async def classify(self, request: wire.ClassifyRequest, *, timeout_s: float) -> wire.ClassifyResponse:
        now_s = asyncio.get_running_loop().time()
        number = len(self.sent)
        self.sent.append((now_s, request))
        begin_s = max(now_s, self._free_at_s) if self._queue else now_s
        end_s = self._free_at_s = begin_s + self._latency_s(begin_s)
        await asyncio.sleep(end_s - now_s)
        if number in self.fail_at:
            raise Unavailable("gone", code=grpc.StatusCode.UNAVAILABLE)
        predictions = [prediction_of(text, "x") for text in request.texts]
        return wire.ClassifyResponse(
            labels=LABELS, results=[wire.Result(prediction=prediction) for prediction in predictions]
        )

    async def call(self, method: object, request: object, *, timeout_s: float) -> Any:
        raise AssertionError("the engine only classifies")

    async def close(self) -> None:
        raise AssertionError("the engine does not own its transport")


def run(main: Coroutine[Any, Any, LegResult]) -> LegResult:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def run_plan(transport: FakeTransport, **changes: Any) -> LegResult:
    plan = LoadPlan(**{"model": "m", "rounds": 1, "warmup_s": 0.0, **changes})
    return run(run_leg(plan, legs(plan, ["x"])[0], transport, TEXTS))


def test_a_known_latency_is_read_back_within_the_histograms_precision() -> None:
    transport = FakeTransport(lambda at_s: 0.010 if at_s < 9 else 0.200)
    tally = run_plan(transport, mode="open", arrivals="constant", rate=100.0, seconds=10.0).tally
    assert tally.rows == 1000
    assert tally.latency.percentile_ms(50) == pytest.approx(10, rel=RELATIVE_ERROR)
    assert tally.latency.percentile_ms(90) == pytest.approx(10, rel=RELATIVE_ERROR)
    assert tally.latency.percentile_ms(91) == pytest.approx(200, rel=RELATIVE_ERROR)
    assert tally.latency.max_ms == pytest.approx(200, rel=RELATIVE_ERROR)


def test_a_stalled_second_shows_as_a_second_in_the_tail_of_an_open_loop() -> None:
    """A server of 1 ms a call stands still from 5 s to 6 s: a tenth of all calls wait, up to a second.

    Those that were due in the stalled second wait for its end evenly, so p95 is half a second.
    """

    def stalls(at_s: float) -> float:
        return 6.0 - at_s + 0.001 if 5.0 <= at_s < 6.0 else 0.001

    tally = run_plan(
        FakeTransport(stalls, queue=True), mode="open", arrivals="constant", rate=100.0, seconds=10.0
    ).tally
    assert tally.rows == 1000
    assert tally.latency.percentile_ms(50) == pytest.approx(1, rel=0.01)
    assert tally.latency.percentile_ms(95) == pytest.approx(500, rel=0.15)
    assert tally.latency.percentile_ms(99) == pytest.approx(900, rel=0.05)
    assert tally.latency.max_ms == pytest.approx(1001, rel=0.01)


def test_a_closed_loop_would_have_hidden_that_stall() -> None:
    """Why the open loop exists: one caller meets the stall once, and it is one call of thousands."""

    def stalls(at_s: float) -> float:
        return 6.0 - at_s + 0.001 if 5.0 <= at_s < 6.0 else 0.001

    tally = run_plan(FakeTransport(stalls), concurrency=1, seconds=10.0).tally
    assert tally.latency.percentile_ms(99.9) == pytest.approx(1, rel=0.01)


def test_latency_counts_from_the_intended_start_when_the_generator_itself_stalls() -> None:
    loop_stall_s = 1.0

    class Stalling(FakeTransport):
        async def classify(self, request: wire.ClassifyRequest, *, timeout_s: float) -> wire.ClassifyResponse:
            if len(self.sent) == 500:
                loop = asyncio.get_running_loop()
                assert isinstance(loop, VirtualLoop)
                loop._virtual.now_s += loop_stall_s  # the process got no CPU for a second
            return await super().classify(request, timeout_s=timeout_s)

    tally = run_plan(Stalling(lambda _: 0.001), mode="open", arrivals="constant", rate=100.0, seconds=10.0).tally
    assert tally.rows == 1000
    assert tally.latency.max_ms == pytest.approx(1001, rel=0.01)
    assert tally.latency.percentile_ms(99) == pytest.approx(900, rel=0.05)
    assert tally.send_lag.percentile_ms(99) == pytest.approx(900, rel=0.05)


class Laborious(FakeTransport):
    """Each call costs the generator itself a hundredth of a second: it can send a hundred a second, and no more."""

    async def classify(self, request: wire.ClassifyRequest, *, timeout_s: float) -> wire.ClassifyResponse:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop._virtual.now_s += 0.01
        return await super().classify(request, timeout_s=timeout_s)


@pytest.mark.parametrize("warmup_s", [0.0, 1.0, 20.0])
@pytest.mark.parametrize("seconds", [2.0, 60.0])
def test_a_generator_that_cannot_send_the_rate_ends_the_leg_and_counts_what_it_did_not_send(
    warmup_s: float, seconds: float
) -> None:
    """Far beyond what it can send it is five seconds behind after five seconds, wherever the window ends."""
    transport = Laborious(lambda _: 0.0)
    tally = run_plan(transport, mode="open", rate=100_000.0, seconds=seconds, warmup_s=warmup_s).tally
    assert transport.sent[-1][0] == pytest.approx(warmup_s + 5.0, abs=0.2)
    assert tally.rows == pytest.approx(500, abs=5), "what was measured is kept"
    assert tally.window_s == pytest.approx(min(seconds, 5.0), abs=0.1)
    assert tally.offered_rows == pytest.approx(100_000 * tally.window_s, rel=0.01)
    assert tally.offered_rows == tally.rows + tally.errors[BEHIND]
    assert tally.completed_rows / tally.window_s == pytest.approx(100, rel=0.05)
    assert tally.send_lag.max_ms == pytest.approx(5000, rel=0.01)


def test_a_generator_that_cannot_send_the_rate_counts_no_more_than_the_rows_that_were_asked_for() -> None:
    tally = run_plan(Laborious(lambda _: 0.0), mode="open", rate=5000.0, rows=3000, seconds=60.0).tally
    assert tally.offered_rows == 3000
    assert tally.errors == {BEHIND: 3000 - tally.rows}
    assert tally.window_s == pytest.approx(3000 / 5000, rel=0.05)


def test_generators_that_cannot_send_the_rate_count_together_what_one_alone_would() -> None:
    plan = LoadPlan(model="m", mode="open", rate=5000.0, seconds=2.0, rounds=1, warmup_s=1.0)
    (leg,) = legs(plan, ["x"])
    together = Tally()
    for index in range(3):
        together.join(run(run_leg(plan, leg, Laborious(lambda _: 0.0), TEXTS, share=Share(index, 3))).tally)
    assert together.rows == pytest.approx(3 * 500, rel=0.2)
    assert together.offered_rows == pytest.approx(10_000, rel=0.05)


def test_at_a_modest_rate_an_open_loop_achieves_what_it_offers() -> None:
    for arrivals in ("constant", "poisson"):
        tally = run_plan(
            FakeTransport(lambda _: 0.02), mode="open", arrivals=arrivals, rate=200.0, seconds=20.0, warmup_s=1.0
        ).tally
        assert tally.rows == tally.offered_rows
        assert tally.completed_rows == pytest.approx(tally.offered_rows, abs=12)
        assert tally.offered_rows == pytest.approx(4000, rel=0.05)


def test_beyond_capacity_an_open_loop_achieves_less_than_it_offers_and_loses_no_call() -> None:
    tally = run_plan(
        FakeTransport(lambda _: 0.01, queue=True), mode="open", arrivals="constant", rate=200.0, seconds=5.0
    ).tally
    assert tally.offered_rows == tally.rows == 1000
    assert tally.completed_rows / tally.window_s == pytest.approx(100, rel=0.01)
    assert tally.latency.max_ms == pytest.approx(5000, rel=0.01)


def test_a_closed_loop_keeps_its_callers_busy() -> None:
    transport = FakeTransport(lambda _: 0.1)
    tally = run_plan(transport, concurrency=8, seconds=10.0, warmup_s=1.0).tally
    assert tally.completed_rows / tally.window_s == pytest.approx(80, rel=0.01)
    assert tally.latency.percentile_ms(50) == pytest.approx(100, rel=RELATIVE_ERROR)


def test_the_warm_up_is_sent_and_not_counted() -> None:
    transport = FakeTransport(lambda at_s: 3.0 if at_s < 0.5 else 0.01)
    tally = run_plan(transport, mode="open", arrivals="constant", rate=10.0, seconds=2.0, warmup_s=1.0).tally
    assert len(transport.sent) == 30
    assert tally.rows == tally.offered_rows == 20
    assert tally.latency.max_ms == pytest.approx(10, rel=RELATIVE_ERROR)


@pytest.mark.parametrize("mode", [{"mode": "open", "rate": 100.0}, {"concurrency": 4}])
def test_rows_bound_what_is_measured_exactly(mode: dict[str, Any]) -> None:
    tally = run_plan(FakeTransport(lambda _: 0.02), rows=60, texts_per_call=3, warmup_s=0.5, **mode).tally
    assert tally.rows == tally.offered_rows == 60
    assert tally.calls == 20
    assert tally.window_s < 1.0


def test_failures_are_counted_by_status_and_the_loop_goes_on() -> None:
    transport = FakeTransport(lambda _: 0.01)
    transport.fail_at = {3, 4}
    tally = run_plan(transport, concurrency=1, seconds=1.0, texts_per_call=2).tally
    assert tally.errors == {"UNAVAILABLE": 4}
    assert tally.rows == tally.offered_rows - 4


def test_a_caller_whose_call_failed_does_not_spin() -> None:
    transport = FakeTransport(lambda _: 0.0)
    transport.fail_at = set(range(1000))
    run_plan(transport, concurrency=1, seconds=1.0)
    assert len(transport.sent) == 20


def test_calls_beyond_the_bound_in_flight_are_counted_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "MOST_IN_FLIGHT", 5)
    transport = FakeTransport(lambda _: 100.0)
    tally = run_plan(transport, mode="open", arrivals="constant", rate=10.0, seconds=2.0).tally
    assert len(transport.sent) == 5
    assert tally.errors == {NOT_SENT: 15}
    assert tally.offered_rows == 20


def test_an_interrupted_leg_keeps_what_it_measured() -> None:
    transport = FakeTransport(lambda at_s: 0.01 if at_s < 4 else 1000.0)
    plan = LoadPlan(model="m", rounds=1, warmup_s=1.0, mode="open", arrivals="constant", rate=10.0, seconds=60.0)

    async def interrupt() -> LegResult:
        task = asyncio.create_task(run_leg(plan, legs(plan, ["x"])[0], transport, TEXTS))
        await asyncio.sleep(5.0)
        task.cancel()
        return await task

    result = run(interrupt())
    assert result.interrupted
    assert result.tally.window_s == pytest.approx(4.0)
    assert result.tally.rows == 30


def test_every_backend_gets_the_same_texts_at_the_same_instants() -> None:
    plan = LoadPlan(model="m", rounds=1, mode="open", rate=50.0, seconds=2.0, warmup_s=0.0)
    seen = []
    for leg in legs(plan, ["a", "b"]):
        transport = FakeTransport(lambda _: 0.01)
        run(run_leg(plan, leg, transport, TEXTS))
        assert {request.model for _, request in transport.sent} == {f"m@{leg.backend}"}
        seen.append([(at_s, list(request.texts)) for at_s, request in transport.sent])
    assert seen[0] == seen[1]


def test_free_rows_are_pinned_to_no_backend() -> None:
    plan = LoadPlan(model="m", seconds=1.0, warmup_s=0.0, rows=3)
    transport = FakeTransport(lambda _: 0.01)
    leg = Leg(backend="free", round=0, warmup_s=0.0, window_s=1.0, calls=1, seed=0)
    run(run_leg(plan, leg, transport, TEXTS))
    assert {request.model for _, request in transport.sent} == {"m"}


def shares_of(plan: LoadPlan, latency_s: Callable[[float], float], of: int) -> tuple[list[Any], Tally]:
    """Run each share of a leg by itself; returns what was sent by all, in order, and what they saw together."""
    (leg,) = legs(plan, ["x"])
    sent: list[Any] = []
    together = Tally()
    for index in range(of):
        transport = FakeTransport(latency_s)
        result = run(run_leg(plan, leg, transport, TEXTS, share=Share(index, of), begin_s=2.0))
        sent += [(at_s, list(request.texts)) for at_s, request in transport.sent]
        together.join(Tally.decode(result.tally.encode()))
    return sorted(sent), together


def stalls_from_7_to_8(at_s: float) -> float:
    return 8.0 - at_s + 0.001 if 7.0 <= at_s < 8.0 else 0.001


@pytest.mark.parametrize("arrivals", ["constant", "poisson"])
def test_generators_together_send_and_see_what_one_alone_would(arrivals: str) -> None:
    plan = LoadPlan(
        model="m", mode="open", arrivals=arrivals, rate=100.0, seconds=10.0, rounds=1, warmup_s=0.5, texts_per_call=2
    )
    sent_alone, alone = shares_of(plan, stalls_from_7_to_8, 1)
    sent, together = shares_of(plan, stalls_from_7_to_8, 3)
    assert sent == sent_alone
    assert together.latency.encode() == alone.latency.encode()
    assert together.latency.max_ms == pytest.approx(1001, rel=0.06), "a stalled second is a second in the tail"
    assert (together.offered_rows, together.completed_rows) == (alone.offered_rows, alone.completed_rows)
    assert together.window_s == pytest.approx(alone.window_s)
    assert {number: found.calls for number, found in together.slices.items()} == {
        number: found.calls for number, found in alone.slices.items()
    }


def test_generators_share_the_callers_of_a_closed_loop() -> None:
    plan = LoadPlan(model="m", concurrency=8, seconds=10.0, rounds=1, warmup_s=0.0)
    _, together = shares_of(plan, lambda _: 0.1, 3)
    assert together.completed_rows / together.window_s == pytest.approx(80, rel=0.01)


@pytest.mark.parametrize("mode", [{"mode": "open", "rate": 100.0}, {"concurrency": 4}])
def test_rows_bound_what_generators_measure_together(mode: dict[str, Any]) -> None:
    plan = LoadPlan(model="m", rounds=1, rows=61, warmup_s=0.0, **mode)
    _, together = shares_of(plan, lambda _: 0.02, 3)
    assert together.rows == together.offered_rows == 61


def test_a_generator_is_added_for_every_four_cores_and_none_without_a_caller() -> None:
    plan = LoadPlan(model="m", concurrency=3)
    assert [generators(plan, cores) for cores in (1, 2, 4, 8, 64)] == [1, 1, 1, 2, 3]
    assert generators(LoadPlan(model="m", processes=2), 64) == 2


def test_the_timeline_shows_where_the_server_stood_still() -> None:
    plan = LoadPlan(model="m", mode="open", arrivals="constant", rate=100.0, seconds=10.0, rounds=1, warmup_s=0.0)
    _, tally = shares_of(plan, stalls_from_7_to_8, 1)
    slow = [number for number, found in sorted(tally.slices.items()) if found.max_s > 0.1]
    assert slow == [10, 11]  # half seconds from the beginning, at 2 s
    assert sum(found.calls for found in tally.slices.values()) == 1000
