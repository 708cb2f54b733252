"""`least_cost` keeps its contract over random queues, costs and limits; a fake clock, no worker."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockstep.server.scheduling.least_cost import least_cost, partition
from lockstep.server.scheduling.policy import Costs, Dispatch, Limits, Order, Wait, WorkerView, token_budget
from lockstep.server.scheduling.waiting import FREE, NO_DEADLINE_NS, Waiting

MAX_LENGTH = 64
MS = 1_000_000
ORDERS: tuple[Order, ...] = ("oldest", "slack", "shortest", "response_ratio", "wait_and_duration")


def costs_of(fixed: float, row: float, token: float, square: float, max_rows: int = 16) -> Costs:
    """Costs, ns, that grow with rows and length as measured ones do."""
    rows, lengths = np.meshgrid(np.arange(max_rows + 1.0), np.arange(MAX_LENGTH + 1.0), indexing="ij")
    return (fixed + row * rows + token * rows * lengths + square * rows * lengths**2) * MS


costs = st.builds(costs_of, st.floats(0.01, 5), st.floats(0, 1), st.floats(0.001, 0.5), st.floats(0, 0.01))
rows_strategy = st.lists(
    st.tuples(
        st.integers(1, MAX_LENGTH),  # length
        st.integers(0, 900),  # waited, ms
        st.integers(0, 2),  # priority
        st.sampled_from([FREE, 0, 1]),
    ),
    max_size=40,
)
limits_strategy = st.builds(
    Limits,
    max_rows=st.integers(1, 16),
    max_padded_tokens=st.integers(1, 1_000),
    budget_tokens=st.integers(1, 600),
    window_rows=st.integers(1, 40),
    max_wait_ns=st.sampled_from([50 * MS, 400 * MS, 10_000 * MS]),
    order=st.sampled_from(ORDERS),
)
NOW = 10_000 * MS


def queue(rows: list[tuple[int, int, int, int]], deadlines: list[int] | None = None) -> Waiting:
    ordered = sorted(rows, key=lambda row: -row[1])
    table = np.array(ordered, dtype=np.int64).reshape(len(rows), 4)
    deadline = np.array(deadlines if deadlines else [NO_DEADLINE_NS] * len(rows), dtype=np.int64)
    return Waiting(table[:, 0], NOW - table[:, 1] * MS, deadline, table[:, 2], table[:, 3], np.arange(len(rows)))


def area(waiting: Waiting, rows: np.ndarray) -> int:
    return len(rows) * int(waiting.length[rows].max())


def cost(table: Costs, waiting: Waiting, rows: np.ndarray) -> float:
    return float(table[len(rows), waiting.length[rows].max()])


@given(rows=rows_strategy, limits=limits_strategy, table=costs)
def test_a_batch_is_eligible_within_limits_and_of_the_right_priority(
    rows: list[tuple[int, int, int, int]], limits: Limits, table: Costs
) -> None:
    waiting = queue(rows)
    plan = least_cost(waiting, NOW, WorkerView(0, True, table), limits)
    mine = np.flatnonzero((waiting.pin == FREE) | (waiting.pin == 0))
    if not len(mine):
        assert plan == Wait()
        return
    assert isinstance(plan, Dispatch)
    taken = plan.rows
    assert len(taken) == len(set(taken.tolist())) > 0
    assert set(taken.tolist()) <= set(mine.tolist())
    assert len(taken) <= limits.max_rows
    assert len(taken) == 1 or area(waiting, taken) <= limits.max_padded_tokens
    oldest = int(mine[waiting.arrival_ns[mine].argmin()])
    if NOW - waiting.arrival_ns[oldest] >= limits.max_wait_ns:
        assert oldest in taken or waiting.arrival_ns[taken].min() == waiting.arrival_ns[oldest]
    else:
        assert (waiting.priority[taken] == waiting.priority[mine].max()).all()


@given(rows=rows_strategy, limits=limits_strategy, table=costs)
def test_its_partition_costs_no_more_than_token_budgets(
    rows: list[tuple[int, int, int, int]], limits: Limits, table: Costs
) -> None:
    waiting = queue([(length, waited, 0, FREE) for length, waited, _, _ in rows])
    if not rows:
        return
    best = partition(np.sort(waiting.length), table, limits)
    left, total = np.arange(len(rows)), 0.0
    worker = WorkerView(0, True, table)
    while len(left):
        view = Waiting(*(getattr(waiting, name)[left] for name in Waiting.__slots__))
        plan = token_budget(view, NOW, worker, limits)
        assert isinstance(plan, Dispatch)
        total += cost(table, view, plan.rows)
        left = np.delete(left, plan.rows)
    assert best.total_ns <= total * (1 + 1e-9)


@given(lengths=st.lists(st.integers(1, MAX_LENGTH), min_size=1, max_size=9), table=costs, limits=limits_strategy)
def test_its_partition_is_the_best_of_all_contiguous_ones(lengths: list[int], table: Costs, limits: Limits) -> None:
    rows = np.array(sorted(lengths), dtype=np.int64)
    found = partition(rows, table, limits)
    assert found.starts.tolist() == [0, *found.ends.tolist()[:-1]]
    assert found.ends[-1] == len(rows)
    best = np.inf
    for count in range(len(rows)):
        for cuts in itertools.combinations(range(1, len(rows)), count):
            bounds = [0, *cuts, len(rows)]
            groups = list(itertools.pairwise(bounds))
            if all(
                end - start <= limits.max_rows
                and (end - start == 1 or (end - start) * rows[end - 1] <= limits.max_padded_tokens)
                for start, end in groups
            ):
                best = min(best, sum(table[end - start, rows[end - 1]] for start, end in groups))
    assert found.total_ns == pytest.approx(best)


def run_out(waiting: Waiting, table: Costs, limits: Limits) -> list[int]:
    """Execute the whole queue on one worker whose batches take what was predicted; return the rows that are late."""
    left, now, late = np.arange(len(waiting)), float(NOW), []
    worker = WorkerView(0, True, table)
    while len(left):
        view = Waiting(*(getattr(waiting, name)[left] for name in Waiting.__slots__))
        plan = least_cost(view, int(now), worker, limits)
        assert isinstance(plan, Dispatch)
        worker = WorkerView(0, True, table, planned=plan.planned)
        now += cost(table, view, plan.rows)
        late += [int(left[row]) for row in plan.rows if now > view.deadline_ns[row] + 1]
        left = np.delete(left, plan.rows)
    return late


@settings(max_examples=200)
@given(
    lengths=st.lists(st.integers(1, MAX_LENGTH), min_size=1, max_size=20),
    slacks=st.lists(st.floats(1.0, 3.0), min_size=20, max_size=20),
    shuffle=st.randoms(use_true_random=False),
    table=costs,
    order=st.sampled_from(ORDERS),
)
def test_no_deadline_is_missed_that_all_rows_could_have_made(
    lengths: list[int], slacks: list[float], shuffle: object, table: Costs, order: Order
) -> None:
    sequence = list(range(len(lengths)))
    shuffle.shuffle(sequence)  # type: ignore[attr-defined]
    at, deadlines = 0.0, [0] * len(lengths)
    for row, slack in zip(sequence, slacks, strict=False):  # feasible by construction: one by one in this order
        at += float(table[1, lengths[row]])
        deadlines[row] = NOW + int(at * slack) + 1
    waiting = queue([(length, 0, 0, FREE) for length in lengths], deadlines)
    limits = Limits(max_rows=16, max_wait_ns=10_000_000 * MS, order=order)
    assert run_out(waiting, table, limits) == []


def test_short_rows_are_not_padded_to_a_long_one() -> None:
    waiting = queue([(60, 5, 0, FREE), *[(4, 1, 0, FREE)] * 8])
    table = costs_of(fixed=0.1, row=0.01, token=0.05, square=0)
    plan = least_cost(waiting, NOW, WorkerView(0, True, table), Limits(order="shortest"))
    assert isinstance(plan, Dispatch)
    assert waiting.length[plan.rows].tolist() == [4] * 8
    oldest = least_cost(waiting, NOW, WorkerView(0, True, table), Limits(order="oldest"))
    assert isinstance(oldest, Dispatch)
    assert waiting.length[oldest.rows].tolist() == [60]


def test_where_large_batches_are_slower_for_each_token_they_are_not_formed() -> None:
    waiting = queue([(32, 1, 0, FREE)] * 16)
    table = costs_of(fixed=0.1, row=0, token=0.01, square=0)
    rows = np.arange(17.0)[:, None]
    table[5:] *= 1 + (rows[5:] - 4)  # as if the cache ended at four rows
    plan = least_cost(waiting, NOW, WorkerView(0, True, table), Limits(max_rows=16))
    assert isinstance(plan, Dispatch)
    assert len(plan.rows) == 4


def test_without_measured_costs_longer_rows_of_other_workers_are_no_harm_to_deadlines() -> None:
    waiting = queue([(3, 0, 0, 0), (4, 0, 0, 0), (60, 0, 0, 1)], [NOW + 1] * 3)
    plan = least_cost(waiting, NOW, WorkerView(0, True, None), Limits(max_rows=4, max_padded_tokens=100))
    assert isinstance(plan, Dispatch)
    assert set(plan.rows.tolist()) <= {0, 1}


def test_without_measured_costs_it_plans_by_padded_tokens() -> None:
    waiting = queue([(60, 5, 0, FREE), *[(4, 1, 0, FREE)] * 8])
    plan = least_cost(waiting, NOW, WorkerView(0, True), Limits())
    assert isinstance(plan, Dispatch)
    assert waiting.length[plan.rows].tolist() == [4] * 8


def window_of(rows: int) -> tuple[Waiting, Costs, Limits]:
    """Return more rows than a window holds, lengths mixed; nothing presses."""
    lengths = np.random.default_rng(3).integers(1, MAX_LENGTH, rows).tolist()
    waiting = queue([(length, 10, 0, FREE) for length in lengths])
    return waiting, costs_of(fixed=1, row=0.1, token=0.02, square=0), Limits(max_rows=8, window_rows=24)


def without(waiting: Waiting, rows: np.ndarray) -> Waiting:
    return Waiting(*(np.delete(getattr(waiting, name), rows) for name in Waiting.__slots__))


def dispatched(waiting: Waiting, worker: WorkerView, limits: Limits) -> Dispatch:
    plan = least_cost(waiting, NOW, worker, limits)
    assert isinstance(plan, Dispatch)
    return plan


@given(rows=st.integers(9, 60), overhead=st.floats(0, 5))
def test_a_plan_is_used_up_and_was_the_best_of_its_window(rows: int, overhead: float) -> None:
    waiting, table, limits = window_of(rows)
    worker = WorkerView(0, True, table, overhead_ns=overhead * MS)
    window = np.sort(waiting.length[: limits.window_rows])
    taken: list[int] = []
    total, plan = 0.0, None
    while plan is None or plan.planned:
        plan = dispatched(waiting, worker, limits)
        total += cost(table, waiting, plan.rows) + overhead * MS
        taken += waiting.number[plan.rows].tolist()
        waiting = without(waiting, plan.rows)
        worker = WorkerView(0, True, table, overhead_ns=overhead * MS, planned=plan.planned)
    assert sorted(taken) == list(range(len(window)))
    assert total == pytest.approx(partition(window, table, limits, overhead * MS).total_ns)


def test_a_few_rows_are_planned_again_with_what_arrived() -> None:
    waiting, table, limits = window_of(8)
    assert dispatched(waiting, WorkerView(0, True, table), limits).planned == ()


@pytest.mark.parametrize("presses", ["overdue", "priority", "gone", "not mine", "memory"])
def test_a_plan_stands_no_longer_where_something_presses(presses: str) -> None:
    waiting, table, limits = window_of(60)
    first = dispatched(waiting, WorkerView(0, True, table), limits)
    waiting = without(waiting, first.rows)
    worker = WorkerView(0, True, table, planned=first.planned)
    next_group = np.searchsorted(waiting.number, first.planned[0])
    assert dispatched(waiting, worker, limits).rows.tolist() == next_group.tolist()
    if presses == "overdue":
        waiting.arrival_ns[0] = 0
        assert 0 in dispatched(waiting, worker, limits).rows
    elif presses == "priority":
        waiting.priority[-1] = 1
        assert dispatched(waiting, worker, limits).rows.tolist() == [len(waiting) - 1]
    elif presses == "gone":
        waiting = without(waiting, next_group[:1])
        again = dispatched(waiting, WorkerView(0, True, table), limits)
        assert dispatched(waiting, worker, limits).rows.tolist() == again.rows.tolist()
    elif presses == "not mine":
        waiting.pin[next_group] = 1
        assert not set(dispatched(waiting, worker, limits).rows.tolist()) & set(next_group.tolist())
    else:
        narrow = Limits(max_rows=8, window_rows=24, max_padded_tokens=MAX_LENGTH)
        assert area(waiting, dispatched(waiting, worker, narrow).rows) <= MAX_LENGTH


def test_what_a_batch_costs_beside_its_execution_makes_batches_larger() -> None:
    waiting = queue([(length, 1, 0, FREE) for length in range(10, 26)])
    table = costs_of(fixed=0.01, row=0, token=0.05, square=0)
    lean = dispatched(waiting, WorkerView(0, True, table), Limits(max_rows=16))
    burdened = dispatched(waiting, WorkerView(0, True, table, overhead_ns=10.0 * MS), Limits(max_rows=16))
    assert len(lean.rows) < len(burdened.rows)
