"""Runs plans against a server: in which order legs go, and when to stop. A sweep is a plan under several loads."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from lockstep.clients.credentials import Credentials
from lockstep.clients.loadtest.ceiling import Ceiling
from lockstep.clients.loadtest.clock import run_with_fine_timers
from lockstep.clients.loadtest.fleet import GeneratorLost
from lockstep.clients.loadtest.plan import Leg, LoadPlan, legs
from lockstep.clients.loadtest.report import LoadReport
from lockstep.clients.loadtest.session import CutShort, LegDone, Session, open_session
from lockstep.clients.loadtest.tally import BEHIND, Tally
from lockstep.clients.transport import Connect

SATURATED: Final = 0.7
"""A backend that answers less than this share of what it is offered is asked for no more: its queue only grows."""
SHORTEST_WINDOW_S: Final = 1.0
"""Shorter, and what is in flight at the window's end is too much of it to tell a growing queue by."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Told before each leg."""

    plan: LoadPlan
    leg: Leg
    number: int  # from 1
    legs: int | None  # None: nobody knows how many there will be


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Setting:
    """What a run needs beside its plan: who calls, what the generator can do, who is told."""

    credentials: Credentials = Credentials()  # noqa: RUF009  frozen
    connect: Connect | None = None  # a transport of one's own; it lives in this process, so there is one generator
    ceiling: Ceiling | None = None  # found by `measure_ceiling`
    on_progress: OnProgress | None = None
    limit_s: float = math.inf  # no leg begins later

    def __post_init__(self) -> None:
        if math.isnan(self.limit_s):
            raise ValueError("the limit is no number of seconds")


def run_loadtest(
    plan: LoadPlan,
    *,
    on_progress: OnProgress | None = None,
    connect: Connect | None = None,
    credentials: Credentials = Credentials(),  # noqa: B008  frozen
    ceiling: Ceiling | None = None,
) -> LoadReport:
    """Run a plan and return its report; blocks. Ctrl-C ends it early: the report says `interrupted`.

    Raises `LoadTestError`, `TextsUnreadable`, `ChoiceUnclear` or `CallError` (no server) before anything
    is measured; once legs run, failures are counted in the report, and a generator's own death raises `CutShort`, which
    holds what was measured. Ctrl-C before then raises `KeyboardInterrupt`.
    """
    setting = Setting(credentials, connect, ceiling, on_progress)
    (report,) = run_sweep([plan], setting)
    return report


async def measure(
    plan: LoadPlan, *, on_progress: OnProgress | None = None, connect: Connect | None = None
) -> LoadReport:
    """`run_loadtest` on the running event loop; cancelling it ends it early."""
    (report,) = await measure_sweep([plan], Setting(connect=connect, on_progress=on_progress))
    return report


def run_sweep(plans: Sequence[LoadPlan], setting: Setting = Setting()) -> tuple[LoadReport, ...]:
    """Run one plan under several loads, and return a report for each; blocks. See `run_loadtest` and `loads_of`."""
    return run_with_fine_timers(measure_sweep(plans, setting))


def loads_of(plan: LoadPlan, *, rates: Sequence[float] = (), callers: Sequence[int] = ()) -> tuple[LoadPlan, ...]:
    """Return the plan under each of these loads, the lightest first; raises `ValueError`."""
    opened = [replace(plan, mode="open", rate=rate) for rate in sorted(set(rates))]
    closed = [replace(plan, mode="closed", rate=None, concurrency=count) for count in sorted(set(callers))]
    return tuple(opened + closed) or (plan,)


async def measure_sweep(plans: Sequence[LoadPlan], setting: Setting) -> tuple[LoadReport, ...]:
    """`run_sweep` on the running event loop."""
    async with open_session(
        plans[-1], connect=setting.connect, credentials=setting.credentials, ceiling=setting.ceiling
    ) as session:
        done, notes, lost = await _run_legs(session, plans, setting)
        reports = tuple(
            session.report(
                plan,
                [leg for leg in done if leg.plan is plan],
                notes=notes.get(plan.load, ()),
                purpose="sweep" if len(plans) > 1 else "run",
            )
            for plan in plans
        )
        if lost is not None:
            raise CutShort(str(lost), reports) from lost
        return reports


async def _run_legs(
    session: Session, plans: Sequence[LoadPlan], setting: Setting
) -> tuple[list[LegDone], dict[str, list[str]], GeneratorLost | None]:
    """Run every leg of every load, round by round, or as many as there are before an interruption or the limit.

    Every second round goes from the heaviest load to the lightest, so that a drift of the machine is not taken for
    the effect of the load. Returns notes by load: which legs were left out, and why; and what ended it early.
    """
    now = asyncio.get_running_loop().time
    until_s = now() + setting.limit_s
    planned = [(plan, legs(plan, session.backends)) for plan in plans]
    order: list[tuple[LoadPlan, Leg]] = []
    for number in range(session.plan.rounds):
        for plan, its_legs in planned if number % 2 == 0 else reversed(planned):
            order += [(plan, leg) for leg in its_legs if leg.round == number]
    done: list[LegDone] = []
    notes: dict[str, list[str]] = {}
    saturated: dict[str, tuple[float, str]] = {}  # by backend: the least rate that was too much, and why
    for number, (plan, leg) in enumerate(order, 1):
        most, why = saturated.get(leg.backend, (math.inf, ""))
        if plan.rate is not None and plan.rate > most:
            note = f"{leg.backend}: not asked for more than {most:g} texts/s in every round: {why}"
            if note not in notes.setdefault(plan.load, []):
                notes[plan.load].append(note)
            continue
        if now() > until_s:
            for each in plans:
                notes.setdefault(each.load, []).append(
                    f"the limit of {setting.limit_s:g} s was reached after {number - 1} of {len(order)} turns"
                )
            break
        if setting.on_progress is not None:
            setting.on_progress(Progress(plan, leg, number, len(order)))
        try:
            found = await session.run(plan, leg)
        except GeneratorLost as error:
            session.interrupted = True
            for each in plans:
                notes.setdefault(each.load, []).append(f"ended in turn {number} of {len(order)}: {error}")
            return done, notes, error
        if found is not None:
            done.append(found)
            if plan.rate is not None and plan.rate < most and _fell_behind(found.seen.tally):
                generator = BEHIND in found.seen.tally.errors
                saturated[leg.backend] = (
                    plan.rate,
                    "the generator could not send it" if generator else "it was saturated there",
                )
        if session.interrupted:
            break
    return done, notes, None


def _fell_behind(tally: Tally) -> bool:
    if tally.rows < SATURATED * tally.offered_rows:
        return True
    return tally.window_s >= SHORTEST_WINDOW_S and tally.completed_rows < SATURATED * tally.offered_rows
