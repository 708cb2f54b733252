"""Runs a plan against a server: wakes its backends, runs the legs, asks the server's view, reports."""

from __future__ import annotations

import asyncio
import os
import selectors
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from clients.choice import choose_backends, choose_model
from clients.client import SentimentClient
from clients.errors import CallError
from clients.loadtest.engine import run_leg
from clients.loadtest.gauges import DEFAULT_HTTP, MetricsUnreachable, ThreadBudgets, read_thread_budgets
from clients.loadtest.plan import FREE, Leg, LoadPlan, legs
from clients.loadtest.report import FORMAT, BackendReport, LoadReport, ServerView, warnings_of
from clients.loadtest.tally import Tally
from clients.loadtest.texts import Texts, read_texts, sample_texts
from clients.results import ModelStatistics, RowError, ServedModel
from clients.transport import Connect, GrpcTransport

WAKE_S: Final = 60.0
"""How long a backend may take to answer its first row: some start on it."""


class LoadTestError(Exception):
    """The load test cannot begin, or its server is not what the plan needs; says why."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Told before each leg."""

    leg: Leg
    number: int  # from 1
    legs: int


OnProgress = Callable[[Progress], None]


def run_loadtest(
    plan: LoadPlan, *, on_progress: OnProgress | None = None, connect: Connect = GrpcTransport
) -> LoadReport:
    """Run a plan and return its report; blocks. Ctrl-C ends it early: the report says `interrupted`.

    Raises `LoadTestError`, `TextsUnreadable`, `ChoiceUnclear` or `CallError` (no server) before anything
    is measured; once legs run, failures are counted in the report. Ctrl-C before then raises
    `KeyboardInterrupt`.
    """
    with asyncio.Runner(loop_factory=_loop_with_fine_timers) as runner:
        return runner.run(measure(plan, on_progress=on_progress, connect=connect))


def _loop_with_fine_timers() -> asyncio.AbstractEventLoop:
    """`select` sleeps to the microsecond; epoll, the default, rounds every timer up to a millisecond."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


async def measure(
    plan: LoadPlan, *, on_progress: OnProgress | None = None, connect: Connect = GrpcTransport
) -> LoadReport:
    """`run_loadtest` on the running event loop; cancelling it ends it early."""
    texts = read_texts(Path(plan.texts)) if plan.texts is not None else sample_texts(plan.seed)
    started_at = datetime.now(UTC).isoformat(timespec="seconds")
    async with SentimentClient(plan.address, timeout_s=plan.timeout_s, connect=connect) as client:
        server = await client.server()
        model = choose_model(await client.models(), plan.model)
        backends = _backends(plan, model)
        budgets, unread = await _thread_budgets(plan)
        for backend in backends:
            await _wake(client, plan, backend, next(iter(texts.pool)))
        results, interrupted = await _run_legs(client, plan, backends, texts, on_progress)
    reports = [
        BackendReport.of(
            backend,
            [(result.leg.round, result.tally) for result in results if result.leg.backend == backend],
            threads=budgets.of(plan.model, backend),
            server=_server_view([result for result in results if result.leg.backend == backend]),
        )
        for backend in backends
        if any(result.leg.backend == backend for result in results)
    ]
    return LoadReport(
        format=FORMAT,
        plan=plan,
        server=f"{server.name} {server.version}".strip(),
        version=model.version,
        started_at=started_at,
        cores=os.cpu_count() or 1,
        texts=texts.source,
        text_count=len(texts.pool),
        backends=tuple(reports),
        warnings=(*unread, *_uncounted(results), *warnings_of(reports)),
        interrupted=interrupted,
    )


@dataclass(frozen=True, slots=True)
class _LegDone:
    leg: Leg
    tally: Tally
    added: ModelStatistics | str  # by the server's own count; or why there is none


async def _run_legs(
    client: SentimentClient,
    plan: LoadPlan,
    backends: Sequence[str],
    texts: Texts,
    on_progress: OnProgress | None,
) -> tuple[list[_LegDone], bool]:
    """Run every leg, or as many as there are before a cancellation; returns whether there was one."""
    planned = legs(plan, backends)
    done: list[_LegDone] = []
    for number, leg in enumerate(planned, 1):
        if on_progress is not None:
            on_progress(Progress(leg, number, len(planned)))
        try:
            before = await _statistics(client, plan, leg)
        except asyncio.CancelledError:
            _uncancel()
            return done, True
        result = await run_leg(plan, leg, client.transport, texts)
        interrupted = result.interrupted
        after: ModelStatistics | str = "the run was interrupted"
        if not interrupted:
            try:
                after = await _statistics(client, plan, leg)
            except asyncio.CancelledError:
                _uncancel()
                interrupted = True
        if result.tally.window_s > 0:
            done.append(_LegDone(leg, result.tally, _added(before, after)))
        if interrupted:
            return done, True
    return done, False


def _uncancel() -> None:
    if (task := asyncio.current_task()) is not None:
        task.uncancel()


async def _statistics(client: SentimentClient, plan: LoadPlan, leg: Leg) -> ModelStatistics | str:
    """Read the counters, or say why not: a server without them is measured from outside all the same."""
    try:
        return await client.statistics(plan.model, None if leg.backend == FREE else leg.backend)
    except CallError as error:
        return str(error)


def _added(before: ModelStatistics | str, after: ModelStatistics | str) -> ModelStatistics | str:
    if isinstance(before, str):
        return before
    return after if isinstance(after, str) else after.since(before)


def _server_view(done: Sequence[_LegDone]) -> ServerView | None:
    added = [leg.added for leg in done if isinstance(leg.added, ModelStatistics)]
    return ServerView.of(added) if len(added) == len(done) else None


def _uncounted(done: Sequence[_LegDone]) -> tuple[str, ...]:
    """Say, once a backend, why the server's own statistics are not in the report."""
    reasons = {leg.leg.backend: leg.added for leg in done if isinstance(leg.added, str)}
    return tuple(f"{backend}: no statistics of the server's: {why}" for backend, why in reasons.items())


def _backends(plan: LoadPlan, model: ServedModel) -> tuple[str, ...]:
    """Return the plan's backends, or all; free rows need none in particular."""
    if not plan.backends:
        return choose_backends(model, ())
    pinned = [name for name in plan.backends if name != FREE]
    if pinned:
        choose_backends(model, pinned)
    return tuple(dict.fromkeys(plan.backends))


async def _thread_budgets(plan: LoadPlan) -> tuple[ThreadBudgets, tuple[str, ...]]:
    """Read the budgets; at the default address nobody need answer, at a named one somebody must."""
    try:
        return await asyncio.to_thread(read_thread_budgets, plan.http or DEFAULT_HTTP), ()
    except MetricsUnreachable as error:
        if plan.http is not None:
            raise LoadTestError(f"no metrics: {error}") from error
        return ThreadBudgets({}), (f"the server's metrics were not read ({error})",)


async def _wake(client: SentimentClient, plan: LoadPlan, backend: str, text: str) -> None:
    """Have a backend answer one row, however long it takes to start."""
    pin = None if backend == FREE else backend
    try:
        (result,) = await client.classify([text], model=plan.model, backend=pin, truncate=True, timeout_s=WAKE_S)
    except CallError as error:
        raise LoadTestError(f"{backend} does not answer: {error}") from error
    if isinstance(result, RowError):
        raise LoadTestError(f"{backend} does not answer: {result.kind}: {result.message}")
