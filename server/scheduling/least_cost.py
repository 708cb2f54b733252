"""`least_cost`: the partition of the waiting rows with the least predicted time, and which part of it goes first.

The rows of a bounded window are sorted by length; groups of a best partition are then contiguous (a batch costs
what its longest row makes it), and dynamic programming finds one:

    S[i] = min over k of S[i - k] + cost(k rows, length of row i)

after TurboTransformers (Fang et al., PPoPP 2021, section 5). A batch costs its overhead too: its plan, and its way
to the worker and back. One group is dispatched, by the order that the limits name; the rest of the plan stands until it
is used up or a promise breaks it, for a best partition without one of its groups is a best partition of the others. A
few rows are planned again at once, with what arrived meanwhile. Three promises bound the order:

- **Waiting**: while rows have waited past `max_wait_ns`, the oldest of them is in the next batch.
- **Deadlines**: where all rows can still make theirs by the predicted times (earliest deadline first, in the batches
  that `_by_deadline` forms, is how that is judged), no batch is dispatched after which they no longer could.
- **Priority**: a row of lower priority is taken before one of higher only to keep the promises above.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lockstep.server.scheduling.policy import (
    Costs,
    Dispatch,
    Limits,
    Plan,
    Planned,
    Wait,
    WorkerView,
    dispatch,
    eligible,
    may_take,
)
from lockstep.server.scheduling.waiting import NO_DEADLINE_NS, Indices, Waiting

_PLANNED_AGAIN = 8
"""So few rows are planned again with every batch, together with what arrived; the plan of more is used up. That keeps
long rows from standing in the window, starved by the order: in simulation, a BiLSTM with 32 rows in flight answers 29 %
more rows a second, with p99 16 ms instead of 249; a Transformer at 95 % load has p99 240 ms instead of 355, at p50 26
instead of 23 (docs/reports/simulation.md)."""

_PLANNED_BY_DEADLINE = 64
"""Rows that are planned in batches when deadlines press; later ones count as executed one by one."""

_JUDGED_BY_DEADLINE = 1_024
"""Rows that deadlines are judged for, the most urgent ones: it bounds the time of a plan at any depth of queue."""


@dataclass(frozen=True, slots=True)
class Groups:
    """A partition of sorted rows into contiguous groups; arrays are [groups]."""

    starts: NDArray[np.intp]
    ends: NDArray[np.intp]
    cost_ns: NDArray[np.float64]

    @property
    def total_ns(self) -> float:
        """The predicted time of all."""
        return float(self.cost_ns.sum())

    @property
    def sizes(self) -> NDArray[np.intp]:
        """Rows of each group."""
        return self.ends - self.starts


def least_cost(waiting: Waiting, now_ns: int, worker: WorkerView, limits: Limits) -> Plan:
    """Plan the window at the least predicted time and execute one group of it."""
    rows = eligible(waiting, worker)
    if not len(rows):
        return Wait()
    if len(rows) == 1:
        return dispatch(rows)
    # deadlines are judged by all rows that wait, those of other workers too
    costs = worker.cost_ns if worker.cost_ns is not None else padded_tokens(limits, int(waiting.length.max()))
    overdue = _oldest_overdue(waiting, rows, now_ns, limits)
    group = _planned_before(waiting, rows, worker, limits) if overdue is None else None
    planned = worker.planned[1:]
    if group is None:
        group, planned = _planned_now(waiting, rows, now_ns, costs, worker.overhead_ns, limits, overdue)
    kept = _keeping_deadlines(waiting, rows, group, now_ns, costs, worker.slowdown, limits, overdue)
    return Dispatch(kept, planned if kept is group else ())


def partition(lengths: NDArray[np.int64], costs: Costs, limits: Limits, overhead_ns: float = 0.0) -> Groups:
    """Return the partition of rows, sorted by length (ascending), into contiguous groups with the least total cost.

    `costs` is [rows, length] from 0; each group costs `overhead_ns` more. No group exceeds the limits, but for a row
    that does so alone.
    """
    count = len(lengths)
    largest = min(limits.max_rows, costs.shape[0] - 1, count)
    # by_end[i, k - 1]: the cost of a group of k rows whose longest is row i
    by_end = costs[1 : largest + 1, lengths].T + overhead_ns
    area = lengths[:, None] * np.arange(1, largest + 1)
    area[:, 0] = 0
    by_end[area > limits.max_padded_tokens] = np.inf
    # reversed_best[count - i] = S[i]: then S[i-1], S[i-2], ... lie one after the other
    reversed_best = np.zeros(count + 1)
    size = np.zeros(count + 1, dtype=np.intp)
    candidates = np.empty(largest)
    for i in range(1, count + 1):
        most = min(i, largest)
        here = candidates[:most]
        first = count - i + 1
        np.add(reversed_best[first : first + most], by_end[i - 1, :most], out=here)
        k = int(here.argmin())
        reversed_best[count - i] = here[k]
        size[i] = k + 1
    ends = []
    end = count
    while end:
        ends.append(end)
        end -= int(size[end])
    bounds = np.array(ends[::-1], dtype=np.intp)
    starts = bounds - size[bounds]
    return Groups(starts, bounds, by_end[bounds - 1, size[bounds] - 1])


def padded_tokens(limits: Limits, longest: int) -> Costs:
    """Return the costs of a worker that was never measured: rows x length, plus a batch's worth of overhead."""
    table: Costs = np.outer(np.arange(limits.max_rows + 1.0), np.arange(longest + 1.0)) + 64.0
    return table


def _oldest_overdue(waiting: Waiting, rows: Indices, now_ns: int, limits: Limits) -> int | None:
    """Return the row that has waited longest, where that is past the bound."""
    if now_ns - int(waiting.arrival_ns[0]) < limits.max_wait_ns:
        return None  # not even the oldest of all
    oldest = int(rows[waiting.arrival_ns[rows].argmin()])
    return oldest if now_ns - int(waiting.arrival_ns[oldest]) >= limits.max_wait_ns else None


def _planned_before(waiting: Waiting, rows: Indices, worker: WorkerView, limits: Limits) -> Indices | None:
    """Return the group that the last plan has next; None where there is none, or it does not stand any more."""
    if not worker.planned:
        return None
    numbers = worker.planned[0]
    group: Indices = np.searchsorted(waiting.number, numbers)
    if group[-1] >= len(waiting) or (waiting.number[group] != numbers).any():
        return None  # some have left
    if waiting.priority[group].min() < waiting.priority[rows[0]] or not may_take(waiting.pin[group], worker).all():
        return None
    if len(group) > 1 and len(group) * int(waiting.length[group].max()) > limits.max_padded_tokens:
        return None
    return group


def _planned_now(
    waiting: Waiting,
    rows: Indices,
    now_ns: int,
    costs: Costs,
    overhead_ns: float,
    limits: Limits,
    overdue: int | None,
) -> tuple[Indices, Planned]:
    """Return the group of the window's best partition that goes first, and the others where they may stand."""
    candidates = rows[: limits.window_rows + 1]  # those of the highest priority lie first
    highest = candidates[waiting.priority[candidates] == waiting.priority[rows[0]]]
    window = highest[: limits.window_rows]
    if overdue is not None and overdue not in window:
        window = np.append(window[: limits.window_rows - 1], overdue)
    order = window[np.argsort(waiting.length[window], kind="stable")]
    groups = partition(waiting.length[order], costs, limits, overhead_ns)
    ranks = _ranks(groups, waiting, order, now_ns, limits)
    if overdue is not None:
        chosen = int(np.searchsorted(groups.ends, np.flatnonzero(order == overdue)[0], side="right"))
        return order[groups.starts[chosen] : groups.ends[chosen]], ()
    ranked = ranks.argsort(kind="stable") if len(highest) > _PLANNED_AGAIN else [ranks.argmin()]
    first, *rest = (order[groups.starts[one] : groups.ends[one]] for one in ranked)
    return first, tuple(np.sort(waiting.number[group]) for group in rest)


def _ranks(groups: Groups, waiting: Waiting, order: Indices, now_ns: int, limits: Limits) -> NDArray[np.float64]:
    """Return a number for each group; they go in ascending order, as the limits want it."""
    if limits.order == "shortest":
        return groups.cost_ns / groups.sizes.astype(np.float64)
    oldest_ns = np.minimum.reduceat(waiting.arrival_ns[order], groups.starts)
    if limits.order == "oldest":
        return oldest_ns.astype(np.float64)
    if limits.order == "slack":
        deadline_ns = np.minimum.reduceat(waiting.deadline_ns[order], groups.starts)
        # without deadlines, the bound on waiting is one
        due_ns: NDArray[np.int64] = np.minimum(deadline_ns, oldest_ns + limits.max_wait_ns)
        return due_ns - groups.cost_ns
    waited_ns = (now_ns - oldest_ns).astype(np.float64)
    if limits.order == "response_ratio":
        return -(waited_ns + groups.cost_ns) / groups.cost_ns
    return -(waited_ns + groups.cost_ns)


def _keeping_deadlines(
    waiting: Waiting,
    rows: Indices,
    group: Indices,
    now_ns: int,
    costs: Costs,
    slowdown: float,
    limits: Limits,
    overdue: int | None,
) -> Indices:
    """Return `group`, or what must go first for every row to make its deadline, where that is possible."""
    earliest_ns = int(waiting.deadline_ns.min())
    if earliest_ns == NO_DEADLINE_NS:
        return group
    if float(costs[1, waiting.length].sum()) * slowdown <= earliest_ns - now_ns:
        return group  # in any order, even one by one
    urgent = rows[waiting.deadline_ns[rows] < NO_DEADLINE_NS]
    if not len(urgent):
        return group
    slack_ns = int(waiting.deadline_ns[urgent].min()) - now_ns
    if float(costs[1, waiting.length[rows]].sum()) * slowdown <= slack_ns:
        return group  # the rows that press are not this worker's
    costs = costs * slowdown
    if len(urgent) > _JUDGED_BY_DEADLINE:
        urgent = urgent[np.argpartition(waiting.deadline_ns[urgent], _JUDGED_BY_DEADLINE)[:_JUDGED_BY_DEADLINE]]
    urgent = urgent[np.argsort(waiting.deadline_ns[urgent], kind="stable")]
    after_ns = now_ns + float(costs[len(group), waiting.length[group].max()])
    left = urgent[~np.isin(urgent, group)]
    if after_ns <= float(waiting.deadline_ns[group].min()) and _by_deadline(waiting, left, after_ns, costs, limits)[1]:
        return group
    first, feasible = _by_deadline(waiting, urgent, now_ns, costs, limits)
    if not feasible:
        return group
    if overdue is None or overdue in first:
        return first
    joined = np.append(first, overdue)
    joined_after_ns = now_ns + float(costs[min(len(joined), costs.shape[0] - 1), waiting.length[joined].max()])
    fits = len(joined) <= limits.max_rows and (
        len(joined) * int(waiting.length[joined].max()) <= limits.max_padded_tokens
    )
    rest = urgent[~np.isin(urgent, joined)]
    if (
        fits
        and joined_after_ns <= float(waiting.deadline_ns[joined].min())
        and _by_deadline(waiting, rest, joined_after_ns, costs, limits)[1]
    ):
        return joined
    return group  # a bound on waiting binds every row; a deadline is one caller's


def _by_deadline(waiting: Waiting, rows: Indices, now_ns: float, costs: Costs, limits: Limits) -> tuple[Indices, bool]:
    """Return the first batch, earliest deadline first, and whether every row then makes its deadline.

    `rows` are sorted by deadline. Two schedules are tried: one by one; and in contiguous batches of the first rows,
    each as long as it makes the time for each row smaller. The second is often shorter, the first never delays a row
    for its neighbours.
    """
    if not len(rows):
        return rows, True
    deadlines_ns = waiting.deadline_ns[rows].astype(np.float64)
    singles_ns = costs[1, waiting.length[rows]]
    if bool((now_ns + np.cumsum(singles_ns) <= deadlines_ns).all()):
        return rows[:1], True
    planned = min(len(rows), _PLANNED_BY_DEADLINE)
    lengths = waiting.length[rows]
    first: Indices = rows[:1]
    at_ns, start = now_ns, 0
    while start < planned:
        longest = np.maximum.accumulate(lengths[start : min(planned, start + limits.max_rows)])
        sizes = np.arange(1, len(longest) + 1)
        sizes = sizes[(sizes == 1) | (sizes * longest <= limits.max_padded_tokens)]
        batch_ns = costs[sizes, longest[: len(sizes)]]
        size = int((batch_ns / sizes).argmin()) + 1
        at_ns += float(batch_ns[size - 1])
        if at_ns > deadlines_ns[start]:
            return first, False
        if start == 0:
            first = rows[:size]
        start += size
    rest = bool((at_ns + np.cumsum(singles_ns[planned:]) <= deadlines_ns[planned:]).all())
    return first, rest
