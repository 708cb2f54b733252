"""Did it get slower? Holds two load tests against each other, figure by figure. Pure.

A figure is worse where the ratio's 95 % interval leaves out "no change" on the bad side, and the ratio itself is beyond
the tolerance: the first keeps noise from being taken for a change, the second a change too small to matter. Where the
interval leaves everything open, nothing was judged: that is not the same as nothing having changed, and is said.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Final, Literal

from lockstep.clients.loadtest.interval import FEWEST, Ratio, ratio_of
from lockstep.clients.loadtest.plan import LoadPlan
from lockstep.clients.loadtest.record import LoadRun
from lockstep.clients.loadtest.report import BackendReport, LoadReport, RoundReport
from lockstep.clients.loadtest.search import BackendSearch, SearchReport

Verdict = Literal["worse", "better", "same", "unsure"]
TOLERANCE: Final = 0.05
FAILED_SHARE: Final = 0.001
"""So much more of the texts failing is worse, whatever the rest says."""


class NotComparable(Exception):
    """The two have nothing in common; says what differs."""


@dataclass(frozen=True, slots=True)
class Change:
    """One figure of one backend, before and after."""

    model: str
    load: str
    backend: str
    figure: str
    unit: str
    before: float
    after: float
    ratio: Ratio | None  # after / before; None: too few rounds for an interval
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Comparison:
    """Every figure that both hold, and what else differs between the two."""

    changes: tuple[Change, ...]
    differences: tuple[str, ...]  # that make the figures incomparable
    notes: tuple[str, ...]  # that a reader should know
    unjudged: tuple[str, ...]  # backends of whose pace nothing could be judged, and why
    tolerance: float

    @property
    def worse(self) -> tuple[Change, ...]:
        """What got worse."""
        return tuple(change for change in self.changes if change.verdict == "worse")

    @property
    def unsure(self) -> tuple[Change, ...]:
        """What could not be judged."""
        return tuple(change for change in self.changes if change.verdict == "unsure")


@dataclass(frozen=True, slots=True)
class _Figure:
    name: str
    unit: str
    of_round: Callable[[RoundReport], float | None]
    more_is_better: bool = False


# A round in which nothing was answered has no latency; that it was not is told by what was answered, and what failed.
_P50: Final = _Figure("p50", "ms", lambda turn: turn.p50_ms or None)
_P99: Final = _Figure("p99", "ms", lambda turn: turn.p99_ms or None)
_RATE: Final = _Figure("answered", "texts/s", lambda turn: turn.achieved_rows_per_s, more_is_better=True)
_CPU: Final = _Figure("CPU a text", "ms", lambda turn: turn.cpu_ms)
_FIGURES: Final = {"closed": (_RATE, _CPU), "open": (_RATE, _P50, _P99, _CPU)}
"""In a closed loop latency is callers / rate: it says nothing more."""
_PACE: Final = {"closed": (_RATE,), "open": (_P50, _P99)}
"""Which of them tell how fast a backend is: in an open loop one that is ten times as slow may answer as many."""


def compare(before: LoadRun, after: LoadRun, *, tolerance: float = TOLERANCE) -> Comparison:
    """Compare two runs; raises `NotComparable` where no backend of a model was under the same kind of load in both.

    The tolerance is a part, of 0 or more; raises `ValueError` where it is not.
    """
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise ValueError(f"the tolerance is {tolerance}, and must be a part such as 0.05")
    unjudged: list[str] = []
    changes: list[Change] = []
    differences: dict[str, None] = {}
    notes: dict[str, None] = {}
    pairs = _pairs(before, after)
    searches = _search_pairs(before, after)
    if not pairs and not searches:
        raise NotComparable(f"no backend was under the same load in both: {_held(before)}; {_held(after)}")
    for old, new in pairs:
        differences |= dict.fromkeys(_differences(old, new))
        notes |= dict.fromkeys(_notes(old, new))
        for one, other in _backend_pairs(old, new):
            found = _changes(old, one, other, tolerance)
            changes += found
            if _pace_unjudged(found, _PACE[old.plan.mode]):
                unjudged.append(f"{old.plan.model}@{one.backend}, {old.plan.load}: {_why_unjudged(one, other)}")
    for search, again in searches:
        if search.seconds_a_try != again.seconds_a_try:
            differences[f"{search.model}: a try lasted {search.seconds_a_try:g} s and {again.seconds_a_try:g} s"] = None
        brackets = _search_changes(search, again, tolerance)
        changes += brackets
        unjudged += [
            f"{change.model}@{change.backend}, {change.load}: a search did not settle, or its brackets are too wide"
            for change in brackets
            if change.verdict == "unsure"
        ]
    notes |= dict.fromkeys(_cut_short(before, after) + _missing(before, after))
    if not pairs:  # searches alone: hold their machines and servers against each other
        differences |= dict.fromkeys(_differences(before.reports[0], _as_planned(after.reports[0], before.reports[0])))
    return Comparison(tuple(changes), tuple(differences), tuple(notes), tuple(unjudged), tolerance)


def _pace_unjudged(changes: Sequence[Change], pace: tuple[_Figure, ...]) -> bool:
    """Whether the figures that tell a backend's pace are all open, and nothing else is known to be worse."""
    names = {figure.name for figure in pace}
    return all(
        change.verdict == "unsure" if change.figure in names else change.verdict != "worse" for change in changes
    )


def _why_unjudged(one: BackendReport, other: BackendReport) -> str:
    before, after = len(one.rounds), len(other.rounds)
    counted = f"rounds: {before} before, {after} after"
    if min(before, after) < 2:
        return f"{counted}; of fewer than two there is no interval: run both with --rounds {FEWEST} or more"
    return f"{counted}; they differ too much among themselves: more --rounds, a quieter machine"


def _as_planned(report: LoadReport, like: LoadReport) -> LoadReport:
    """Return a report under another's load: a search chooses its own rates."""
    plan = replace(report.plan, mode=like.plan.mode, rate=like.plan.rate, concurrency=like.plan.concurrency)
    return replace(report, plan=plan)


def _plain(run: LoadRun) -> dict[tuple[str, str], LoadReport]:
    return {
        (report.plan.model, f"{report.plan.mode} {report.plan.load}"): report
        for report in run.reports
        if report.purpose != "search"
    }


def _pairs(before: LoadRun, after: LoadRun) -> list[tuple[LoadReport, LoadReport]]:
    old, new = _plain(before), _plain(after)
    return [(old[key], new[key]) for key in old if key in new and _backend_pairs(old[key], new[key])]


def _backend_pairs(old: LoadReport, new: LoadReport) -> list[tuple[BackendReport, BackendReport]]:
    found = {backend.backend: backend for backend in new.backends}
    return [(one, found[one.backend]) for one in old.backends if one.backend in found]


def _search_pairs(before: LoadRun, after: LoadRun) -> list[tuple[SearchReport, SearchReport]]:
    found = {(search.model, str(search.slo)): search for search in after.searches}
    return [(search, found[key]) for search in before.searches if (key := (search.model, str(search.slo))) in found]


def _held(run: LoadRun) -> str:
    plain = [
        f"{report.plan.model} ({', '.join(backend.backend for backend in report.backends)}; {report.plan.load})"
        for report in run.reports
        if report.purpose != "search"
    ]
    searched = [f"{search.model} ({search.slo})" for search in run.searches]
    return "one holds " + (", ".join(plain + searched) or "nothing")


def _differences(old: LoadReport, new: LoadReport) -> list[str]:
    """Say what about the plan or the machine makes figures of the two mean different things."""
    found = [
        f"{name.replace('_', ' ')}: {getattr(old.plan, name)!r} and {getattr(new.plan, name)!r}"
        for name in _SAME
        if getattr(old.plan, name) != getattr(new.plan, name)
    ]
    if (old.texts, old.text_count) != (new.texts, new.text_count) and old.plan.texts == new.plan.texts:
        found.append(f"texts: {old.text_count} and {new.text_count} of {old.texts}, {new.texts}")
    if old.processes != new.processes:
        found.append(f"generator processes: {old.processes} and {new.processes}")
    one, other = asdict(old.environment), asdict(new.environment)
    found += [f"{name}: {one[name]} and {other[name]}" for name in ("cpu", "cores") if one[name] != other[name]]
    for backend, again in _backend_pairs(old, new):
        if backend.threads != again.threads:
            found.append(f"threads of {backend.backend}: {backend.threads} and {again.threads}")
    return found


_SAME: Final = (
    "arrivals", "texts_per_call", "truncate", "wire", "texts", "lengths", "seconds", "rounds", "warmup_s", "rows",
    "timeout_s", "seed",
)  # fmt: skip
assert set(_SAME) <= set(LoadPlan.__dataclass_fields__)


def _notes(old: LoadReport, new: LoadReport) -> list[str]:
    found = []
    if old.version != new.version:
        found.append(f"{old.plan.model}: version {old.version}, then {new.version}")
    if old.server != new.server:
        found.append(f"server: {old.server}, then {new.server}")
    for when, report in (("before", old), ("after", new)):
        if report.environment.busy:
            found.append(f"{when}: others used the machine (load average {report.environment.load_average:.1f})")
        if report.interrupted:
            found.append(f"{when}: the test was interrupted")
    for name in ("system", "python", "grpc"):
        one, other = getattr(old.environment, name), getattr(new.environment, name)
        if one != other:
            found.append(f"{name}: {one}, then {other}")
    return found


def _cut_short(before: LoadRun, after: LoadRun) -> list[str]:
    return [f"{when}: {run.cut_short}" for when, run in (("before", before), ("after", after)) if run.cut_short]


def _missing(before: LoadRun, after: LoadRun) -> list[str]:
    """Say which loads and backends only one of the two holds."""

    def keys(run: LoadRun) -> list[str]:
        return [
            f"{report.plan.model}@{backend.backend}, {report.plan.load}"
            for report in run.reports
            if report.purpose != "search"
            for backend in report.backends
        ]

    old, new = keys(before), keys(after)
    return [f"only before: {key}" for key in old if key not in new] + [
        f"only after: {key}" for key in new if key not in old
    ]


def _changes(old: LoadReport, one: BackendReport, other: BackendReport, tolerance: float) -> list[Change]:
    found = []
    for figure in _FIGURES[old.plan.mode]:
        before = [value for turn in one.rounds if (value := figure.of_round(turn)) is not None]
        after = [value for turn in other.rounds if (value := figure.of_round(turn)) is not None]
        if not before or not after:
            continue
        ratio = ratio_of(after, to=before)
        means = sum(before) / len(before), sum(after) / len(after)
        verdict = _verdict(ratio, tolerance, more_is_better=figure.more_is_better)
        if ratio is None and min(means) <= 0 < max(means):  # nothing was answered in some round
            verdict = "worse" if (means[1] < means[0]) == figure.more_is_better else "better"
        found.append(
            Change(old.plan.model, old.plan.load, one.backend, figure.name, figure.unit, *means, ratio, verdict)
        )
    return [*found, *_failures(old, one, other)]


def _failures(old: LoadReport, one: BackendReport, other: BackendReport) -> list[Change]:
    before, after = (
        backend.failed_rows / backend.offered_rows if backend.offered_rows else 0.0 for backend in (one, other)
    )
    if max(before, after) <= FAILED_SHARE:
        return []
    verdict: Verdict = "same"
    if abs(after - before) > FAILED_SHARE:
        verdict = "worse" if after > before else "better"
    return [Change(old.plan.model, old.plan.load, one.backend, "failed", "%", before * 100, after * 100, None, verdict)]


def _search_changes(found: SearchReport, again: SearchReport, tolerance: float) -> list[Change]:
    new = {backend.backend: backend for backend in again.backends}
    return [_search_change(found, one, new[one.backend], tolerance) for one in found.backends if one.backend in new]


def _search_change(found: SearchReport, one: BackendSearch, other: BackendSearch, tolerance: float) -> Change:
    """Compare brackets: the ratio lies between what holds now to what did not then, and the reverse."""
    ratio = None
    verdict: Verdict = "unsure"
    if one.low is None or other.low is None:
        if one.low is not None or other.low is not None:
            verdict = "worse" if other.low is None else "better"
    else:
        value = other.low / one.low
        low = value if one.high is None else other.low / one.high
        high = value if other.high is None else other.high / one.low
        ratio = Ratio(value, low, high)
        if one.settled and other.settled:
            verdict = _verdict(ratio, tolerance, more_is_better=True)
    return Change(
        found.model,
        str(found.slo),
        one.backend,
        "holds at",
        "texts/s",
        one.low or 0.0,
        other.low or 0.0,
        ratio,
        verdict,
    )


def _verdict(ratio: Ratio | None, tolerance: float, *, more_is_better: bool) -> Verdict:
    """Judge a ratio of after to before."""
    if ratio is None:
        return "unsure"
    if more_is_better:
        ratio = Ratio(1 / ratio.value, 1 / ratio.high, 1 / ratio.low)
    if ratio.low > 1 and ratio.value > 1 + tolerance:
        return "worse"
    if ratio.high < 1 and ratio.value < 1 / (1 + tolerance):
        return "better"
    if ratio.high > 1 + tolerance or ratio.low < 1 / (1 + tolerance):
        return "unsure"  # a change that would matter is not ruled out
    return "same"
