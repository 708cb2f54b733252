"""The policies are pure: hand-made queues in, plans out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.server.scheduling.policies import POLICIES
from lockstep.server.scheduling.policy import Dispatch, Limits, Wait, WorkerView, eligible
from lockstep.server.scheduling.waiting import FREE, NO_DEADLINE_NS, Waiting


def queue(rows: list[tuple[int, int, int]]) -> Waiting:
    """Build a queue of (length, priority, pin), arrived one nanosecond apart."""
    table = np.array(rows, dtype=np.int64).reshape(len(rows), 3)
    arrivals = np.arange(len(rows), dtype=np.int64)
    return Waiting(
        table[:, 0], arrivals, np.full(len(rows), NO_DEADLINE_NS), table[:, 1], table[:, 2], np.arange(len(rows))
    )


queues = st.lists(st.tuples(st.integers(1, 600), st.integers(-2, 2), st.sampled_from([FREE, 0, 1])), max_size=80).map(
    queue
)
workers = st.builds(WorkerView, backend=st.integers(0, 1), takes_free=st.booleans())
bounds = st.builds(
    Limits,
    max_rows=st.integers(1, 40),
    max_padded_tokens=st.integers(1, 20_000),
    budget_tokens=st.integers(1, 4_000),
)


def area(waiting: Waiting, rows: np.ndarray) -> int:
    return len(rows) * int(waiting.length[rows].max())


@pytest.mark.parametrize("name", POLICIES)
@given(waiting=queues, worker=workers, limits=bounds)
def test_every_policy_keeps_its_contract(name: str, waiting: Waiting, worker: WorkerView, limits: Limits) -> None:
    plan = POLICIES[name](waiting, 0, worker, limits)
    mine = {
        row
        for row in range(len(waiting))
        if waiting.pin[row] == worker.backend or (waiting.pin[row] == FREE and worker.takes_free)
    }
    if not mine:
        assert plan == Wait()
        return
    assert isinstance(plan, Dispatch)
    rows = plan.rows.tolist()
    assert len(set(rows)) == len(rows)
    assert set(rows) <= mine
    assert len(rows) <= limits.max_rows
    assert len(rows) == 1 or area(waiting, plan.rows) <= limits.max_padded_tokens
    if name != "least_cost":  # which has promises, and tests, of its own
        first = min(mine, key=lambda row: (-waiting.priority[row], row))
        assert first in rows


@given(waiting=queues, worker=workers, limits=bounds)
def test_token_budget_bounds_the_padded_area(waiting: Waiting, worker: WorkerView, limits: Limits) -> None:
    plan = POLICIES["token_budget"](waiting, 0, worker, limits)
    if isinstance(plan, Dispatch) and len(plan.rows) > 1:
        assert area(waiting, plan.rows) <= limits.budget_tokens


def test_none_takes_one_row() -> None:
    plan = POLICIES["none"](queue([(5, 0, FREE), (6, 0, FREE)]), 0, WorkerView(0, True), Limits())
    assert isinstance(plan, Dispatch)
    assert plan.rows.tolist() == [0]


def test_first_come_takes_rows_in_arrival_order_whatever_their_lengths() -> None:
    waiting = queue([(500, 0, FREE), (3, 0, FREE), (400, 0, FREE)])
    plan = POLICIES["first_come"](waiting, 0, WorkerView(0, True), Limits(max_rows=2))
    assert isinstance(plan, Dispatch)
    assert plan.rows.tolist() == [0, 1]


def test_token_budget_stops_before_the_row_that_would_exceed_it() -> None:
    waiting = queue([(10, 0, FREE), (10, 0, FREE), (200, 0, FREE), (10, 0, FREE)])
    plan = POLICIES["token_budget"](waiting, 0, WorkerView(0, True), Limits(budget_tokens=100))
    assert isinstance(plan, Dispatch)
    assert plan.rows.tolist() == [0, 1]


def test_a_row_larger_than_every_limit_goes_alone() -> None:
    waiting = queue([(900, 0, FREE), (1, 0, FREE)])
    limits = Limits(max_padded_tokens=100, budget_tokens=100)
    for policy in POLICIES.values():
        plan = policy(waiting, 0, WorkerView(0, True), limits)
        assert isinstance(plan, Dispatch)
        assert len(plan.rows) == 1


def test_higher_priority_goes_first_and_equals_keep_their_order() -> None:
    waiting = queue([(1, 0, FREE), (1, 5, FREE), (1, 0, FREE), (1, 5, FREE)])
    assert eligible(waiting, WorkerView(0, True)).tolist() == [1, 3, 0, 2]


def test_pinned_rows_wait_for_their_backend() -> None:
    waiting = queue([(1, 0, 1), (1, 0, FREE), (1, 0, 0)])
    assert eligible(waiting, WorkerView(0, False)).tolist() == [2]
    assert eligible(waiting, WorkerView(1, True)).tolist() == [0, 1]
