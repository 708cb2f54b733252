"""The queue's arrays stay in step with its entries."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lockstep.server.scheduling.waiting import WaitingRows


def add(waiting: WaitingRows[int], value: int) -> None:
    waiting.add(value, length=value, arrival_ns=value, deadline_ns=value, priority=value, pin=value)


@given(st.lists(st.one_of(st.just("add"), st.sets(st.integers(0, 30), max_size=10)), max_size=40))
def test_arrays_follow_entries_through_any_sequence_of_adds_and_removals(steps: list[object]) -> None:
    waiting: WaitingRows[int] = WaitingRows(capacity=2)
    expected: list[int] = []
    numbers: dict[int, int] = {}
    for number, step in enumerate(steps):
        if step == "add":
            add(waiting, number)
            expected.append(number)
            numbers[number] = int(waiting.view().number[-1])
        else:
            assert isinstance(step, set)
            rows = [row for row in sorted(step, reverse=True) if row < len(expected)]
            taken = waiting.remove(np.array(rows, dtype=np.intp))
            assert taken == [expected[row] for row in rows]
            expected = [value for row, value in enumerate(expected) if row not in rows]
        view = waiting.view()
        assert waiting.entries() == expected
        assert len(waiting) == len(view) == len(expected)
        for column in (view.length, view.arrival_ns, view.deadline_ns, view.priority, view.pin):
            assert column.tolist() == expected
        assert view.number.tolist() == [numbers[value] for value in expected]
        assert (np.diff(view.number) > 0).all()
