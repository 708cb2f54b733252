"""Which waiting rows go together, and when: pure functions of what waits. No clock, no asyncio, no worker.

A policy is asked when a worker is free. Contract of every policy:

- it returns rows that the worker may take (`eligible`), each once, never over the limits;
- higher priority first; among equals, the oldest row it may take is in the batch;
- it never waits while an eligible row waits, unless it says until when.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from server.scheduling.waiting import FREE, Indices, Waiting


@dataclass(frozen=True, slots=True)
class WorkerView:
    """What a policy knows of a worker."""

    backend: int  # index of its backend
    takes_free: bool  # may take rows that name no backend


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one batch."""

    max_rows: int = 32
    max_padded_tokens: int = 16_384  # rows x longest length; one row alone may exceed it
    budget_tokens: int = 512  # of `token_budget`


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Execute these rows together now: indices into the view."""

    rows: Indices


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to execute before `until_ns` (monotonic), or before the next arrival where it is None."""

    until_ns: int | None = None


Plan = Dispatch | Wait
Policy = Callable[[Waiting, int, WorkerView, Sequence[WorkerView], Limits], Plan]
"""(waiting, now_ns, worker, the model's other workers, limits) -> plan."""


def eligible(waiting: Waiting, worker: WorkerView) -> Indices:
    """Return the rows that the worker may take: highest priority first, oldest first among equals."""
    mine = waiting.pin == worker.backend
    if worker.takes_free:
        mine |= waiting.pin == FREE
    rows = np.flatnonzero(mine)
    return rows[np.argsort(-waiting.priority[rows], kind="stable")]


def none(waiting: Waiting, now_ns: int, worker: WorkerView, others: Sequence[WorkerView], limits: Limits) -> Plan:
    """Execute one row at a time."""
    return _dispatch(eligible(waiting, worker)[:1])


def first_come(waiting: Waiting, now_ns: int, worker: WorkerView, others: Sequence[WorkerView], limits: Limits) -> Plan:
    """Execute the oldest rows together, up to `max_rows`, whatever their lengths."""
    rows = eligible(waiting, worker)[: limits.max_rows]
    return _dispatch(_within(waiting, rows, limits.max_padded_tokens))


def token_budget(
    waiting: Waiting, now_ns: int, worker: WorkerView, others: Sequence[WorkerView], limits: Limits
) -> Plan:
    """Execute the oldest rows together while rows x longest stays within `budget_tokens`."""
    rows = eligible(waiting, worker)[: limits.max_rows]
    return _dispatch(_within(waiting, rows, min(limits.budget_tokens, limits.max_padded_tokens)))


POLICIES: Mapping[str, Policy] = {"none": none, "first_come": first_come, "token_budget": token_budget}
"""The policies by the name that the configuration uses."""


def _within(waiting: Waiting, rows: Indices, padded_tokens: int) -> Indices:
    """Return the longest prefix of `rows` whose padded area fits; at least one row where there is one."""
    if not len(rows):
        return rows
    area = np.maximum.accumulate(waiting.length[rows]) * np.arange(1, len(rows) + 1)
    return rows[: max(1, int(np.searchsorted(area, padded_tokens, side="right")))]


def _dispatch(rows: Indices) -> Plan:
    return Dispatch(rows) if len(rows) else Wait()
