"""Which waiting rows go together, and when: pure functions of what waits. No clock, no asyncio, no worker.

A policy is asked when a worker is free. Contract of every policy:

- it returns rows that the worker may take (`eligible`), each once, never over the limits;
- a row of higher priority goes before one of lower, unless that one has waited past its bound;
- it never waits while an eligible row waits, unless it says until when.

The policies in arrival order (`none`, `first_come`, `token_budget`) always take the oldest row of the highest
priority. `least_cost` has a module of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lockstep.server.scheduling.waiting import FREE, Indices, Numbers, Waiting

Costs = NDArray[np.float64]
Planned = tuple[Numbers, ...]
"""Batches to come, each as the numbers of its rows."""
Order = Literal["oldest", "slack", "shortest", "response_ratio", "wait_and_duration"]


@dataclass(frozen=True, slots=True)
class WorkerView:
    """What a policy knows of a worker."""

    backend: int  # index of its backend
    takes_free: bool  # may take rows that name no backend
    cost_ns: Costs | None = None  # predicted, [rows, length] from 0; None: padded tokens
    slowdown: float = 1.0  # wall time / the time that `cost_ns` predicts
    overhead_ns: float = 0.0  # what a batch costs beside its execution: its plan, its way to the worker and back
    planned: Planned = ()  # what the last `Dispatch` to this backend left


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one batch."""

    max_rows: int = 32
    max_padded_tokens: int = 16_384  # rows x longest length; one row alone may exceed it
    budget_tokens: int = 512  # of `token_budget`
    window_rows: int = 192  # of `least_cost`: the oldest rows, which it plans
    max_wait_ns: int = 400_000_000  # of `least_cost`: the oldest row past it is in the next batch
    order: Order = "shortest"  # of `least_cost`: which group of its plan goes first


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Execute these rows together now: indices into the view."""

    rows: Indices
    planned: Planned = ()  # what would go next; to be handed back with the next view, where it may be heeded


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to execute before `until_ns` (monotonic), or before the next arrival where it is None."""

    until_ns: int | None = None


Plan = Dispatch | Wait
Policy = Callable[[Waiting, int, WorkerView, Limits], Plan]
"""(waiting, now_ns, worker, limits) -> plan."""


def may_take(pin: NDArray[np.int64], worker: WorkerView) -> NDArray[np.bool_]:
    """Return of each pin whether the worker may take such a row."""
    mine: NDArray[np.bool_] = pin == worker.backend
    if worker.takes_free:
        mine |= pin == FREE
    return mine


def eligible(waiting: Waiting, worker: WorkerView) -> Indices:
    """Return the rows that the worker may take: highest priority first, oldest first among equals."""
    rows = np.flatnonzero(may_take(waiting.pin, worker))
    if not len(rows) or waiting.priority.min() == waiting.priority.max():
        return rows
    return rows[np.argsort(-waiting.priority[rows], kind="stable")]


def none(waiting: Waiting, now_ns: int, worker: WorkerView, limits: Limits) -> Plan:
    """Execute one row at a time."""
    return dispatch(eligible(waiting, worker)[:1])


def first_come(waiting: Waiting, now_ns: int, worker: WorkerView, limits: Limits) -> Plan:
    """Execute the oldest rows together, up to `max_rows`, whatever their lengths."""
    rows = eligible(waiting, worker)[: limits.max_rows]
    return dispatch(within(waiting, rows, limits.max_padded_tokens))


def token_budget(waiting: Waiting, now_ns: int, worker: WorkerView, limits: Limits) -> Plan:
    """Execute the oldest rows together while rows x longest stays within `budget_tokens`."""
    rows = eligible(waiting, worker)[: limits.max_rows]
    return dispatch(within(waiting, rows, min(limits.budget_tokens, limits.max_padded_tokens)))


def within(waiting: Waiting, rows: Indices, padded_tokens: int) -> Indices:
    """Return the longest prefix of `rows` whose padded area fits; at least one row where there is one."""
    if not len(rows):
        return rows
    area = np.maximum.accumulate(waiting.length[rows]) * np.arange(1, len(rows) + 1)
    return rows[: max(1, int(np.searchsorted(area, padded_tokens, side="right")))]


def dispatch(rows: Indices) -> Plan:
    """Return the plan that executes `rows`, or waits where there is none."""
    return Dispatch(rows) if len(rows) else Wait()
