"""What a load test found, in plain words. Pure; every figure is in the report too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from lockstep.clients.loadtest.interval import paired_ratio_of
from lockstep.clients.loadtest.report import BackendReport, LoadReport
from lockstep.clients.loadtest.search import SearchReport
from lockstep.clients.loadtest.tally import BEHIND

KEPT_UP: Final = 0.95
"""Of what was offered: a backend that answers as much in the window keeps up with the load."""


def sentences(reports: Sequence[LoadReport], searches: Sequence[SearchReport]) -> tuple[str, ...]:
    """Say what was found of one model: what meets a target, what keeps pace, how fast and at what cost."""
    found = [_search(search) for search in searches if search.backends]
    opened = [report for report in reports if report.plan.mode == "open" and report.purpose != "search"]
    closed = [report for report in reports if report.plan.mode == "closed" and report.purpose != "search"]
    if closed:
        found += _throughput(max(closed, key=lambda report: report.plan.concurrency))
    if len(opened) > 1:
        found += _sweep(opened)
    elif opened:
        found += _latency(opened[0])
    plain = closed + opened[::-1]
    return (*found, *(_cost(plain[0]) if plain else ()))


def kept_up(backend: BackendReport) -> bool:
    """Whether a backend answered what it was offered.

    What is offered and answered differs by what was in flight at the two ends of each round's window, and how much
    that is, is chance.
    """
    rows_a_call = backend.rows / backend.calls if backend.calls else 1.0
    in_flight = max(1.0, backend.achieved_rows_per_s * backend.latency.mean_ms / 1000)
    chance_rows = 2 * math.sqrt(2 * len(backend.rounds) * in_flight * rows_a_call)
    chance_per_s = chance_rows / backend.window_s if backend.window_s else 0.0
    least = KEPT_UP * backend.offered_rows_per_s - chance_per_s
    return not backend.failed_rows and backend.achieved_rows_per_s >= least


def warnings_by_load(reports: Sequence[LoadReport]) -> tuple[str, ...]:
    """Say each warning once: what every load was warned of without its load, the rest with it."""
    every = [warning for warning in reports[0].warnings if all(warning in report.warnings for report in reports)]
    return (
        *every,
        *(f"{report.plan.load}: {one}" for report in reports for one in report.warnings if one not in every),
    )


def most_kept_up(reports: Sequence[LoadReport], backend: str) -> float | None:
    """Return the highest rate at which a backend kept up with it and with every lower one; `None`: with none."""
    most = None
    for report in sorted(reports, key=lambda report: report.plan.rate or 0.0):
        for found in report.backends:
            if found.backend == backend:
                if not kept_up(found):
                    return most
                most = report.plan.rate
    return most


def common_load(reports: Sequence[LoadReport]) -> LoadReport | None:
    """Return the heaviest of the loads with which every backend kept up: there they compare."""
    most = max((len(report.backends) for report in reports), default=0)
    fair = [
        report for report in reports if len(report.backends) == most and all(kept_up(one) for one in report.backends)
    ]
    return max(fair, key=lambda report: report.plan.rate or 0.0, default=None)


def _search(search: SearchReport) -> str:
    holding = sorted((one for one in search.backends if one.low is not None), key=lambda one: -(one.low or 0.0))
    parts = [f"{one.backend} up to {one.low:,g} texts/s" for one in holding]
    failing = [one.backend for one in search.backends if one.low is None]
    told = f"{search.slo} is met by {_and(parts)}." if parts else f"{search.slo} is met by no backend at any rate."
    if parts and failing:
        told += f" {_and(failing)} {'does' if len(failing) == 1 else 'do'} not meet it at any rate."
    return told


def _throughput(report: LoadReport) -> list[str]:
    backends = sorted((one for one in report.backends if one.rows), key=lambda one: -one.achieved_rows_per_s)
    if not backends:
        return []
    parts = [f"{one.backend} {one.achieved_rows_per_s:,.0f} texts/s" for one in backends]
    told = f"With {report.plan.load}: {_and(parts)}."
    if len(backends) > 1:
        told += _faster(backends[0], backends[1])
    return [told]


def _faster(first: BackendReport, second: BackendReport) -> str:
    ratio = paired_ratio_of(*([turn.achieved_rows_per_s for turn in one.rounds] for one in (first, second)))
    if ratio is None:
        return ""
    if ratio.low <= 1:
        return f" Between {first.backend} and {second.backend} the rounds do not tell a difference."
    return (
        f" {first.backend} answers {ratio.value:.2f} times as many as {second.backend} "
        f"(95 %: {ratio.low:.2f} to {ratio.high:.2f})."
    )


def _latency(report: LoadReport) -> list[str]:
    backends = sorted((one for one in report.backends if one.rows), key=lambda one: one.latency.p99_ms)
    if not backends:
        return []
    parts = [f"{one.latency.p99_ms:,.1f} ms on {one.backend}" for one in backends]
    told = f"At {report.plan.load} 99 % of calls are answered within {_and(parts)}."
    unsent = [one.backend for one in backends if BEHIND in one.errors]
    failed = [
        f"{one.failed_rows / one.offered_rows:.2%} of {one.backend}'s"
        for one in backends
        if one.failed_rows and one.backend not in unsent
    ]
    behind = [one.backend for one in backends if not kept_up(one) and one.backend not in unsent]
    if unsent:
        told += f" The generator could not send so many to {_and(unsent)}: that tells of it and not of the server."
    if failed:
        told += f" That is of those answered: {_and(failed)} texts were not."
    return [told + (f" {_and(behind)} did not keep up." if behind else "")]


def _sweep(opened: Sequence[LoadReport]) -> list[str]:
    names = list(dict.fromkeys(one.backend for report in opened for one in report.backends))
    kept = {name: most_kept_up(opened, name) for name in names}
    highest = max(report.plan.rate or 0.0 for report in opened)
    parts = [
        f"{name} up to {rate:,g} texts/s{', the most that was asked' if rate == highest else ''}"
        for name, rate in sorted(kept.items(), key=lambda item: -(item[1] or 0.0))
        if rate is not None
    ]
    none = [name for name, rate in kept.items() if rate is None]
    told = [f"Keeps up: {'; '.join(parts)}."] if parts else []
    if none:
        told.append(f"{_and(none)}: not even the lowest rate that was asked.")
    common = common_load(opened)
    return told + (_latency(common) if common is not None else [])


def _cost(report: LoadReport) -> list[str]:
    costs = [(one.backend, one.cost.cpu_ms) for one in report.backends if one.cost is not None]
    parts = [f"{cpu_ms:.2f} ms on {name}" for name, cpu_ms in sorted(costs, key=lambda item: item[1])]
    return [f"A text costs the server {_and(parts)} of CPU time ({report.plan.load})."] if parts else []


def _and(parts: Sequence[str]) -> str:
    return " and ".join((", ".join(parts[:-1]), parts[-1])) if len(parts) > 1 else "".join(parts)
