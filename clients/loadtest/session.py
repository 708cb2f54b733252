"""One model of one server under test: connects, wakes its backends, runs legs, and makes reports of them.

Knows what to ask the server before and after a leg; in which order legs run is `lockstep.clients.loadtest.run`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from lockstep.clients.address import is_loopback
from lockstep.clients.choice import choose_backends, choose_model
from lockstep.clients.client import SentimentClient
from lockstep.clients.credentials import Credentials
from lockstep.clients.errors import CallError, RowError
from lockstep.clients.loadtest import metrics_scrape
from lockstep.clients.loadtest.ceiling import Ceiling
from lockstep.clients.loadtest.environment import Environment
from lockstep.clients.loadtest.fleet import Fleet, HereSender, Sender
from lockstep.clients.loadtest.metrics_scrape import NOTHING, MetricsUnreachable, ScrapedMetrics, Spent, scrape_metrics
from lockstep.clients.loadtest.plan import FREE, Leg, LoadPlan, generators
from lockstep.clients.loadtest.report import (
    FORMAT,
    BackendReport,
    LegSeen,
    LoadReport,
    Purpose,
    ServerView,
    warnings_of,
)
from lockstep.clients.loadtest.search import SearchReport
from lockstep.clients.loadtest.texts import PROBE, Texts, texts_of
from lockstep.clients.results import ModelStatistics, ServedModel
from lockstep.clients.transport import Connect
from lockstep.cores import usable_cores

WAKE_S: Final = 60.0
"""How long a backend may take to answer its first row: some start on it."""


class LoadTestError(Exception):
    """The load test cannot begin, or its server is not what the plan needs; says why."""


class CutShort(LoadTestError):
    """The load test could not go on; says why, and holds what was measured until then."""

    def __init__(self, why: str, reports: Sequence[LoadReport], search: SearchReport | None = None) -> None:
        super().__init__(why)
        self.reports = tuple(reports)
        self.search = search


@dataclass(frozen=True, slots=True)
class LegDone:
    """A leg that ran, to its end or until it was interrupted."""

    plan: LoadPlan
    leg: Leg
    seen: LegSeen
    added: ModelStatistics | str  # by the server's own count; or why there is none


@dataclass(slots=True)
class Session:
    """A server that was found able to be tested. Runs one leg at a time."""

    plan: LoadPlan
    client: SentimentClient
    sender: Sender
    texts: Texts
    server: str
    version: str
    backends: tuple[str, ...]
    processes: int
    environment: Environment
    ceiling: Ceiling | None
    credentials: Credentials
    threads: dict[str, int | None]
    unread: tuple[str, ...]  # why the metrics were not read
    started_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    began_s: float = field(default_factory=lambda: asyncio.get_running_loop().time())
    interrupted: bool = False

    async def run(self, plan: LoadPlan, leg: Leg) -> LegDone | None:
        """Run a leg; `None` where it was interrupted before anything was measured.

        A cancellation is not raised: `interrupted` is set, and the caller is to run no more.
        """
        try:
            before, scraped_before = await self._statistics(leg), await self._scrape()
        except asyncio.CancelledError:
            self._interrupt()
            return None
        begin_s = asyncio.get_running_loop().time() + leg.warmup_s - self.began_s
        result = await self.sender.run(plan, leg)
        after: ModelStatistics | str = "the run was interrupted"
        scraped_after = NOTHING
        if result.interrupted:
            self.interrupted = True
        else:
            try:
                after, scraped_after = await self._statistics(leg), await self._scrape()
            except asyncio.CancelledError:
                self._interrupt()
        if result.tally.window_s <= 0:
            return None
        backend = None if leg.backend == FREE else leg.backend
        spent = Spent.between(scraped_before, scraped_after, self.plan.model, backend)
        seen = LegSeen(leg.round, result.tally, begin_s, leg.window_s, spent)
        return LegDone(plan, leg, seen, after if isinstance(after, str) else _added(before, after))

    def backend_report(self, backend: str, done: Sequence[LegDone]) -> BackendReport:
        """Add up legs of one backend under one load."""
        return BackendReport.of(
            backend,
            [leg.seen for leg in done],
            threads=self.threads[backend],
            server=_server_view(done),
        )

    def report(
        self, plan: LoadPlan, done: Sequence[LegDone], *, notes: Sequence[str] = (), purpose: Purpose = "run"
    ) -> LoadReport:
        """Make the report of all legs under one load."""
        reports = [
            self.backend_report(backend, legs)
            for backend in self.backends
            if (legs := [leg for leg in done if leg.leg.backend == backend])
        ]
        warnings = warnings_of(reports, ceiling=self.ceiling, environment=self.environment)
        return LoadReport(
            format=FORMAT,
            purpose=purpose,
            plan=plan,
            server=self.server,
            version=self.version,
            started_at=self.started_at,
            cores=self.environment.cores,
            environment=self.environment,
            processes=self.processes,
            ceiling=self.ceiling,
            texts=self.texts.source,
            text_count=len(self.texts.pool),
            backends=tuple(reports),
            warnings=(*self.unread, *_uncounted(done), *warnings, *notes),
            interrupted=self.interrupted,
        )

    def _interrupt(self) -> None:
        self.interrupted = True
        if (task := asyncio.current_task()) is not None:
            task.uncancel()

    async def _statistics(self, leg: Leg) -> ModelStatistics | str:
        """Read the counters, or say why not: a server without them is measured from outside all the same."""
        try:
            return await self.client.statistics(self.plan.model, None if leg.backend == FREE else leg.backend)
        except CallError as error:
            return str(error)

    async def _scrape(self) -> ScrapedMetrics:
        """Read the metrics; where they could be read at first and now cannot, a leg has no costs."""
        if self.unread:
            return NOTHING
        try:
            return await asyncio.to_thread(
                scrape_metrics, self.plan.http or metrics_scrape.DEFAULT_HTTP, self.credentials
            )
        except MetricsUnreachable:
            return NOTHING


@contextlib.asynccontextmanager
async def open_session(
    plan: LoadPlan, *, connect: Connect | None, credentials: Credentials, ceiling: Ceiling | None
) -> AsyncIterator[Session]:
    """Connect, and have every backend of the plan answer one row.

    Raises `LoadTestError`, `TextsUnreadable`, `ChoiceUnclear` or `CallError` (no server).
    """
    environment = Environment.here()
    texts = texts_of(plan)
    processes = generators(plan, usable_cores())
    if connect is not None:
        processes = 1  # a transport of the caller's own lives in this process
    async with (
        SentimentClient(
            plan.address, timeout_s=plan.timeout_s, credentials=credentials, mode=plan.wire, connect=connect
        ) as client,
        contextlib.AsyncExitStack() as stack,
    ):
        server = await client.server()
        model = choose_model(await client.models(), plan.model)
        backends = _backends(plan, model)
        told, unread = await _first_scrape(plan, credentials)
        for backend in backends:
            await _wake(client, plan, backend)
        sender: Sender = HereSender(client.transport, texts)
        if processes > 1:
            sender = await stack.enter_async_context(Fleet(plan, [plan.address] * processes, credentials))
        yield Session(
            plan=plan,
            client=client,
            sender=sender,
            texts=texts,
            server=f"{server.name} {server.version}".strip(),
            version=model.version,
            backends=backends,
            processes=processes,
            environment=environment,
            ceiling=ceiling,
            credentials=credentials,
            threads={backend: told.threads(plan.model, backend) for backend in backends},
            unread=unread,
        )


def _added(before: ModelStatistics | str, after: ModelStatistics) -> ModelStatistics | str:
    return before if isinstance(before, str) else after.since(before)


def _server_view(done: Sequence[LegDone]) -> ServerView | None:
    added = [leg.added for leg in done if isinstance(leg.added, ModelStatistics)]
    return ServerView.of(added) if len(added) == len(done) else None


def _uncounted(done: Sequence[LegDone]) -> tuple[str, ...]:
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


async def _first_scrape(plan: LoadPlan, credentials: Credentials) -> tuple[ScrapedMetrics, tuple[str, ...]]:
    """Read the metrics; at the default address nobody need answer, at a named one somebody must.

    The default is for a server on this machine: what listens there is not another machine's, and gets no token of it.
    """
    if plan.http is None and not is_loopback(plan.address):
        return NOTHING, ("the server's metrics were not read: say where they are (--http)",)
    try:
        return await asyncio.to_thread(scrape_metrics, plan.http or metrics_scrape.DEFAULT_HTTP, credentials), ()
    except MetricsUnreachable as error:
        if plan.http is not None:
            raise LoadTestError(f"no metrics: {error}") from error
        return NOTHING, (f"the server's metrics were not read ({error})",)


async def _wake(client: SentimentClient, plan: LoadPlan, backend: str) -> None:
    """Have a backend answer one row, however long it takes to start: not one of the plan's, which it may refuse."""
    pin = None if backend == FREE else backend
    try:
        (result,) = await client.classify([PROBE], model=plan.model, backend=pin, truncate=True, timeout_s=WAKE_S)
    except CallError as error:
        raise LoadTestError(f"{backend} does not answer: {error}") from error
    if isinstance(result, RowError):
        raise LoadTestError(f"{backend} does not answer: {result.kind}: {result.message}")
