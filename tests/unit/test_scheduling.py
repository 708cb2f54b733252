"""Scheduling over puppets: who executes which rows, and what becomes of them when a worker misbehaves. No process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from lockstep.server.core.errors import DeadlineExceeded, LockstepError
from lockstep.server.core.messages import Answer
from lockstep.server.core.observer import Observers
from lockstep.server.core.timing import now_ns
from lockstep.server.scheduling import backend as backends
from lockstep.server.scheduling.backend import BackendSpec
from lockstep.server.scheduling.batcher import Batcher, BatcherSpec
from lockstep.server.scheduling.calls import Call
from lockstep.server.scheduling.cost_store import CostStore
from lockstep.server.scheduling.policies import POLICIES
from lockstep.server.scheduling.policy import Limits, Plan, Policy, Wait, WorkerView, none
from lockstep.server.scheduling.slots import WorkerSlots
from lockstep.server.scheduling.waiting import Waiting
from tests.puppet import PuppetWorker, Stage, backend, encoding
from tests.serving import eventually


@asynccontextmanager
async def batching(
    stage: Stage,
    folder: Path,
    *specs: BackendSpec,
    policy: Policy = POLICIES["least_cost"],
    slots: WorkerSlots | None = None,
    name: str = "model",
    **more: object,
) -> AsyncIterator[Batcher]:
    """Have a model's queue over puppets, started."""
    spec = BatcherSpec(name, 1, specs, policy, pad_id=0, max_queue_rows=1_000, **more)  # type: ignore[arg-type]
    batcher = Batcher(spec, CostStore(folder), slots or WorkerSlots(8), Observers(), start_worker=stage.start)
    batcher.start()
    try:
        yield batcher
    finally:
        await batcher.stop()


def submit(batcher: Batcher, *tokens: int, backend: str | None = None, within_ns: int | None = None) -> Call:
    now = now_ns()
    deadline = None if within_ns is None else now + within_ns
    return batcher.submit([encoding(one) for one in tokens], arrival_ns=now, backend=backend, deadline_ns=deadline)


def outcomes(call: Call) -> list[Answer | LockstepError | None]:
    return list(call.outcomes)


async def answered(call: Call) -> None:
    await eventually(lambda: all(isinstance(one, Answer) for one in call.outcomes))


async def ready(batcher: Batcher, *names: str) -> None:
    await eventually(lambda: all(batcher.backend(name).ready for name in names))


def by_hand(stage: Stage) -> None:
    """From now on, puppets answer when the test says so."""
    for worker in stage.started:
        worker.cost_ns = None
    stage.cost_ns = None


async def test_rows_are_answered_by_a_worker_without_a_process(tmp_path: Path) -> None:
    stage = Stage()
    async with batching(stage, tmp_path, backend("fast")) as batcher:
        call = submit(batcher, 3, 5, 7)
        await answered(call)
        assert len(stage.started) == 1


async def test_rows_are_given_up_by_the_cost_of_who_may_take_them_not_of_who_asks(tmp_path: Path) -> None:
    """A slow backend that looks for rows must not fail those that wait for the fast one."""
    stage = Stage(cost_ns=None)
    slow_ns, fast_ns = 10**12, 1_000
    started = stage.start

    async def start(launch: object) -> PuppetWorker:
        worker = await started(launch)  # type: ignore[arg-type]
        each = slow_ns if worker.launch.adapter == "slow" else fast_ns
        worker.cost_ns = lambda rows, length: each * rows * length
        return worker

    stage.start = start  # type: ignore[method-assign]
    specs = (backend("fast", cpu_ms=1.0), backend("slow", cpu_ms=2.0))
    async with batching(stage, tmp_path, *specs, start_all=True) as batcher:
        await ready(batcher, "fast", "slow")
        by_hand(stage)
        first = submit(batcher, 3, backend="fast")
        (fast,) = stage.of("fast")
        await eventually(lambda: fast.batches[-1].outcome is not None and not fast.batches[-1].outcome.done())
        waiting = [submit(batcher, 3, backend="fast", within_ns=3_600 * 10**9) for _ in range(5)]
        asks = submit(batcher, 3, backend="slow")  # the slow one's loop looks at the queue
        (slow,) = stage.of("slow")
        await eventually(lambda: not slow.batches[-1].outcome.done())
        assert [outcomes(call) for call in waiting] == [[None]] * 5
        fast.cost_ns = slow.cost_ns = lambda rows, length: 1_000
        fast.batches[-1].answer()
        slow.batches[-1].answer()
        for call in (first, asks, *waiting):
            await answered(call)


async def test_rows_that_no_backend_could_answer_in_time_are_given_up(tmp_path: Path) -> None:
    stage = Stage(cost_ns=lambda rows, length: 10**12)
    async with batching(stage, tmp_path, backend("slow")) as batcher:
        await ready(batcher, "slow")
        late = submit(batcher, 3, within_ns=10**10)
        await eventually(lambda: isinstance(late.outcomes[0], DeadlineExceeded))


async def test_costs_that_were_measured_for_shorter_rows_are_measured_again(tmp_path: Path) -> None:
    """The same artifact, published again with a larger maximum."""
    short, longer = backend("one", max_tokens=16), backend("one", max_tokens=64)
    longer = replace(longer, circumstances=short.circumstances)
    async with batching(Stage(), tmp_path, short) as batcher:
        await answered(submit(batcher, 16))
    stage = Stage()
    async with batching(stage, tmp_path, longer) as batcher:
        calls = [submit(batcher, tokens) for tokens in (64, 40, 17)]
        for call in calls:
            await answered(call)
        assert batcher.backend("one").cost.max_length == 64


async def test_a_plan_that_fails_touches_no_other_row(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def broken(waiting: Waiting, now_ns: int, worker: WorkerView, limits: Limits) -> Plan:
        raise IndexError("a bug of ours")

    async with batching(Stage(), tmp_path, backend("one"), policy=broken) as batcher:
        calls = [submit(batcher, tokens) for tokens in (3, 5, 7)]
        for call in calls:
            await answered(call)
    assert "a plan failed: the oldest row goes alone" in caplog.text


async def test_a_model_that_cannot_start_holds_no_slot_while_it_backs_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends.Backend, "backoff_s", lambda self: 3_600.0)
    stage, slots = Stage(refuses_to_start={"ill": "no such file"}), WorkerSlots(1)
    async with (
        batching(stage, tmp_path, backend("ill"), slots=slots, name="ill") as ill,
        batching(stage, tmp_path, backend("sound"), slots=slots, name="sound") as sound,
    ):
        await eventually(lambda: ill.backend("ill").start_failed)
        await answered(submit(sound, 3))


async def test_out_of_memory_while_costs_are_measured_narrows_the_limit(tmp_path: Path) -> None:
    stage = Stage()
    started = stage.start

    async def start(launch: object) -> PuppetWorker:
        worker = await started(launch)  # type: ignore[arg-type]
        execute = worker.execute

        async def small_memory(ids: object, lengths: object) -> object:
            executing = asyncio.ensure_future(execute(ids, lengths))  # type: ignore[arg-type]
            if worker_area(ids) > 100:
                await asyncio.sleep(0)
                executing.cancel()
                worker.batches[-1].outcome = asyncio.get_running_loop().create_future()
                worker.batches[-1].refuse("RESOURCE EXHAUSTED: failed to allocate memory")
                return await worker.batches[-1].outcome
            return await executing

        worker.execute = small_memory  # type: ignore[assignment,method-assign]
        return worker

    stage.start = start  # type: ignore[method-assign]
    async with batching(stage, tmp_path, backend("small")) as batcher:
        await ready(batcher, "small")
        assert batcher.backend("small").limits.max_padded_tokens <= 100
        for call in [submit(batcher, 20) for _ in range(12)]:
            await answered(call)


def worker_area(ids: object) -> int:
    return int(ids.size)  # type: ignore[attr-defined]


async def test_a_worker_that_hangs_is_killed_and_its_rows_are_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(backends, "_LEAST_HUNG_S", 0.01)
    monkeypatch.setattr(backends.Backend, "backoff_s", lambda self: 0.0)
    stage = Stage()
    async with batching(stage, tmp_path, backend("one")) as batcher:
        await ready(batcher, "one")
        (hung,) = stage.started
        hung.cost_ns = None  # it takes batches, and answers none
        call = submit(batcher, 3, 5)
        await answered(call)
        assert hung.killed
        assert len(stage.started) > 1
    assert "it is abandoned and its worker killed" in caplog.text


async def test_a_worker_that_died_while_rows_were_gathered_gets_no_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends.Backend, "backoff_s", lambda self: 0.0)
    stage = Stage()
    gathered = Batcher._all_arrived

    async def dies_meanwhile(self: Batcher) -> bool:
        found = await gathered(self)
        if len(stage.started) == 1:
            stage.started[0].die()
        return found

    monkeypatch.setattr(Batcher, "_all_arrived", dies_meanwhile)
    async with batching(stage, tmp_path, backend("one")) as batcher:
        await ready(batcher, "one")
        measured = len(stage.started[0].batches)
        await answered(submit(batcher, 3))
        assert len(stage.started[0].batches) == measured


async def test_a_policy_that_waits_until_an_instant_is_asked_again_then(tmp_path: Path) -> None:
    asked: list[int] = []

    def waits_once(waiting: Waiting, now: int, worker: WorkerView, limits: Limits) -> Plan:
        asked.append(now)
        return Wait(until_ns=now + 1_000_000) if len(asked) == 1 else none(waiting, now, worker, limits)

    async with batching(Stage(), tmp_path, backend("one"), policy=waits_once) as batcher:
        await ready(batcher, "one")
        await answered(submit(batcher, 3))
    assert len(asked) == 2
    assert asked[1] - asked[0] >= 1_000_000


async def test_pinned_rows_wait_for_their_backend_and_free_rows_go_to_the_cheapest(tmp_path: Path) -> None:
    stage = Stage()
    specs = (backend("cheap", cpu_ms=1.0, measure_s=0.0), backend("dear", cpu_ms=9.0, measure_s=0.0))
    async with batching(stage, tmp_path, *specs) as batcher:
        await ready(batcher, "cheap")
        await answered(submit(batcher, 3, 5))
        assert stage.of("dear") == []
        await answered(submit(batcher, 3, backend="dear"))
        assert len(stage.of("dear")) == 1
