"""Find the highest rate at which each backend of a model meets a latency target: searches run side by side."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from lockstep.clients.loadtest.ceiling import NEAR
from lockstep.clients.loadtest.clock import run_with_fine_timers
from lockstep.clients.loadtest.fleet import GeneratorLost
from lockstep.clients.loadtest.plan import Leg, LoadPlan, legs
from lockstep.clients.loadtest.report import LoadReport
from lockstep.clients.loadtest.run import Progress, Setting
from lockstep.clients.loadtest.search import LOWEST_RATE, BackendSearch, Search, SearchReport, Slo, Try
from lockstep.clients.loadtest.session import CutShort, LegDone, Session, open_session
from lockstep.clients.loadtest.tally import Tally

FIRST_SHARE: Final = 0.5
"""Of what a closed loop reaches: where the search begins."""
BEHIND: Final = 0.1
"""A backend that answers so much less than it is offered has a queue that grows, whatever its latency was so far."""


@dataclass(frozen=True, slots=True)
class Found:
    """The search's report, and a load report of each rate that was tried (and of the closed loop before)."""

    search: SearchReport
    reports: tuple[LoadReport, ...]


def run_search(plan: LoadPlan, slo: Slo, setting: Setting = Setting()) -> Found:  # noqa: B008  frozen
    """Search on every backend of the plan (its rate and mode are not used); blocks. Raises as `run_loadtest` does."""
    return run_with_fine_timers(measure_search(plan, slo, setting))


async def measure_search(plan: LoadPlan, slo: Slo, setting: Setting) -> Found:
    """`run_search` on the running event loop; cancelling it ends it early.

    Each step tries every backend that is not done, in turns, so that a drift of the machine hits all alike.
    """
    closed = replace(plan, mode="closed", rate=None)
    now = asyncio.get_running_loop().time
    async with open_session(
        closed, connect=setting.connect, credentials=setting.credentials, ceiling=setting.ceiling
    ) as session:
        until_s = now() + setting.limit_s
        run = _Run(session, slo, setting)
        for leg in legs(replace(closed, rounds=1, seconds=plan.seconds / plan.rounds), session.backends):
            await run.first(closed, leg)
        step = 0
        while not session.interrupted and now() < until_s and (rates := run.next_rates()):
            step += 1
            turned = list(rates)[step % len(rates) :] + list(rates)[: step % len(rates)]
            for backend in turned:
                await run.attempt(plan, backend, rates[backend], step)
        found = run.found(closed, plan, limited=bool(run.next_rates()))
        if run.lost is not None:
            raise CutShort(str(run.lost), found.reports, found.search) from run.lost
        return found


@dataclass(slots=True)
class _Run:
    session: Session
    slo: Slo
    setting: Setting
    searches: dict[str, Search] = field(default_factory=dict)
    tries: dict[str, list[Try]] = field(default_factory=dict)
    done: list[LegDone] = field(default_factory=list)
    turns: int = 0
    lost: GeneratorLost | None = None  # what ended it early

    async def first(self, closed: LoadPlan, leg: Leg) -> None:
        """See what a backend can do at all, to begin at a part of it."""
        found = await self._leg(closed, leg)
        if found is None:
            return
        tally = found.seen.tally
        ceiling = self.session.ceiling
        self.searches[leg.backend] = Search(
            start=max(LOWEST_RATE, FIRST_SHARE * tally.completed_rows / tally.window_s),
            ceiling=math.inf if ceiling is None else float(f"{NEAR * ceiling.most_rows_per_s:.3g}"),
        )
        self.tries[leg.backend] = []

    async def attempt(self, plan: LoadPlan, backend: str, rate: float, step: int) -> None:
        """Offer one backend one rate, and tell its search."""
        tried = replace(plan, mode="open", rate=rate, rounds=1, seconds=plan.seconds / plan.rounds)
        (leg,) = legs(replace(tried, seed=plan.seed + step), [backend])
        found = await self._leg(tried, leg)
        if found is None or self.session.interrupted:
            return
        outcome = judge(self.slo, rate, found.seen.tally, plan.texts_per_call)
        self.searches[backend].tell(rate, outcome.held)
        self.tries[backend].append(outcome)

    def next_rates(self) -> dict[str, float]:
        """Return the rates to try now, by backend."""
        wanted = {backend: search.next_rate() for backend, search in self.searches.items()}
        return {backend: rate for backend, rate in wanted.items() if rate is not None}

    def found(self, closed: LoadPlan, plan: LoadPlan, *, limited: bool) -> Found:
        backends = tuple(
            BackendSearch(
                backend=backend,
                low=search.low,
                high=search.high,
                settled=search.settled,
                why=f"the limit of {self.setting.limit_s:g} s was reached"
                if limited and search.next_rate() is not None and not self.session.interrupted
                else search.why(),
                tries=tuple(self.tries[backend]),
            )
            for backend, search in self.searches.items()
        )
        search = SearchReport(
            self.session.plan.model, self.slo, plan.seconds / plan.rounds, backends, self.session.interrupted
        )
        loads = sorted({leg.plan for leg in self.done}, key=lambda plan: plan.rate or 0.0)
        reports = [
            self.session.report(load, _as_rounds([leg for leg in self.done if leg.plan == load]), purpose="search")
            for load in loads
        ]
        return Found(search, tuple(report for report in reports if report.backends))

    async def _leg(self, plan: LoadPlan, leg: Leg) -> LegDone | None:
        if self.session.interrupted:
            return None
        self.turns += 1
        if self.setting.on_progress is not None:
            self.setting.on_progress(Progress(plan, leg, self.turns, None))
        try:
            found = await self.session.run(plan, leg)
        except GeneratorLost as error:
            self.session.interrupted = True
            self.lost = error
            return None
        if found is not None:
            self.done.append(found)
        return found


def judge(slo: Slo, rate: float, tally: Tally, texts_per_call: int) -> Try:
    """Say whether a turn met the target. A call that failed is slower than any limit."""
    failed_calls = math.ceil(sum(tally.errors.values()) / texts_per_call)
    reached_ms = slo.reached_ms(tally.latency, failed=failed_calls)
    offered, missing = tally.offered_rows, tally.offered_rows - tally.completed_rows
    # Arrivals at the window's two ends come as they come: that much is chance.
    behind = missing > BEHIND * offered + 3 * math.sqrt(offered * texts_per_call)
    held = reached_ms <= slo.limit_ms and not behind
    return Try(rate, None if math.isinf(reached_ms) else reached_ms, held)


def _as_rounds(done: Sequence[LegDone]) -> list[LegDone]:
    """Give a backend's turns at one rate numbers: each is a round of that load."""
    counted: dict[str, int] = {}
    found = []
    for leg in done:
        number = counted.get(leg.leg.backend, 0)
        counted[leg.leg.backend] = number + 1
        found.append(replace(leg, seen=replace(leg.seen, round=number)))
    return found
