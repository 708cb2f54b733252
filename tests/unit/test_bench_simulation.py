"""The simulated server loses nothing, serves nothing twice, and obeys the policies."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.cost_tables import TableUnreadable, read
from benchmarks.simulation import Arrivals, Setting, saturate, simulate
from lockstep.server.scheduling.policies import POLICIES
from lockstep.server.scheduling.policy import Limits, Order

LENGTHS = np.array([4, 5, 6, 7, 9, 12, 20, 40, 60])
COSTS = 1e5 + 2e4 * np.outer(np.arange(17.0), np.arange(65.0))
ORDERS: tuple[Order, ...] = ("oldest", "slack", "shortest", "response_ratio", "wait_and_duration")


def setting(policy: str = "least_cost", order: Order = "shortest", **changes: object) -> Setting:
    limits = Limits(max_rows=16, max_padded_tokens=512, max_wait_ns=20_000_000, order=order)
    return Setting(POLICIES[policy], limits, COSTS, **changes)  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None)
@given(
    policy=st.sampled_from(sorted(POLICIES)),
    order=st.sampled_from(ORDERS),
    rate=st.floats(50, 20_000),
    workers=st.integers(1, 4),
    seed=st.integers(0, 1_000),
)
def test_every_row_is_served_exactly_once(policy: str, order: Order, rate: float, workers: int, seed: int) -> None:
    arrivals = Arrivals.poisson(LENGTHS, rate, 300, seed)
    outcome = simulate(arrivals, setting(policy, order, workers=workers, noise=0.1, seed=seed))
    assert (outcome.times_served == 1).all()
    assert (outcome.start_ns >= arrivals.at_ns).all()
    assert (outcome.end_ns > outcome.start_ns).all()


def test_a_full_queue_refuses_and_serves_all_others() -> None:
    arrivals = Arrivals.poisson(LENGTHS, 1e6, 500, seed=1)
    outcome = simulate(arrivals, setting("none", workers=1, max_queue_rows=50))
    assert 0 < outcome.refused < 500
    assert int(outcome.times_served.sum()) + outcome.refused == 500
    assert outcome.times_served.max() == 1


@pytest.mark.parametrize("policy", ["none", "first_come", "token_budget"])
def test_policies_in_order_of_arrival_start_rows_in_that_order(policy: str) -> None:
    outcome = simulate(Arrivals.poisson(LENGTHS, 5_000, 500, seed=2), setting(policy))
    assert (np.diff(outcome.start_ns) >= 0).all()


def test_no_row_overtakes_another_on_one_worker_that_takes_one_at_a_time() -> None:
    outcome = simulate(Arrivals.poisson(LENGTHS, 5_000, 300, seed=3), setting("none", workers=1))
    assert (np.diff(outcome.end_ns) > 0).all()


def test_a_closed_loop_keeps_its_rows_in_flight_and_serves_all() -> None:
    outcome = saturate(LENGTHS, 1_000, 32, setting())
    assert (outcome.times_served == 1).all()
    at = np.sort(np.concatenate([outcome.arrivals.at_ns, outcome.end_ns]))
    for instant in at[::50]:
        in_flight = int(((outcome.arrivals.at_ns <= instant) & (outcome.end_ns > instant)).sum())
        assert in_flight <= 32


def test_the_same_seed_gives_the_same_outcome() -> None:
    outcomes = [simulate(Arrivals.poisson(LENGTHS, 3_000, 200, seed=5), setting(noise=0.2)) for _ in range(2)]
    assert (outcomes[0].end_ns == outcomes[1].end_ns).all()


def test_recorded_arrivals_are_put_in_order_and_can_go_faster() -> None:
    arrivals = Arrivals.recorded([2.0, 1.0], [5, 9], speed=2.0)
    assert arrivals.at_ns.tolist() == [500_000_000, 1_000_000_000]
    assert arrivals.length.tolist() == [9, 5]


def test_a_table_is_interpolated_between_its_lines_and_never_falls(tmp_path: Path) -> None:
    document = {"label": "t", "note": "n", "measured": False, "workers": 2, "rows": [1, 4], "lengths": [1, 8, 64]}
    (tmp_path / "t.json").write_text(json.dumps({**document, "cost_ms": [[1, 2, 8], [2, 6, 30]]}))
    table = read(tmp_path / "t.json")
    assert table.cost_ns[4, 8] == pytest.approx(6e6)
    assert table.cost_ns[1, 8] < table.cost_ns[2, 20] < table.cost_ns[4, 64]
    assert (np.diff(table.cost_ns, axis=0) >= 0).all()
    assert (table.max_rows, table.max_length) == (4, 64)


def test_a_table_of_another_shape_is_refused(tmp_path: Path) -> None:
    document = {"label": "", "note": "", "measured": False, "workers": 1, "rows": [1, 2], "lengths": [8]}
    (tmp_path / "bad.json").write_text(json.dumps({**document, "cost_ms": [[1.0]]}))
    with pytest.raises(TableUnreadable, match="2 lists of 1"):
        read(tmp_path / "bad.json")
