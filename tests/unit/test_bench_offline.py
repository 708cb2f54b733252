"""The offline bound's batches and costs."""

import numpy as np
import pytest

from benchmarks.offline import ByLength, batches_of


def test_every_row_is_in_one_batch_of_the_area_and_the_longest_go_first() -> None:
    lengths = np.random.default_rng(0).integers(1, 257, 500).tolist()
    batches = batches_of(lengths, 1_024)
    assert sorted(row for batch in batches for row in batch) == list(range(500))
    assert all(len(batch) * max(lengths[row] for row in batch) <= 1_024 for batch in batches)
    assert max(lengths) in {lengths[row] for row in batches[0]}


def test_a_row_longer_than_the_area_is_alone() -> None:
    assert batches_of([300, 10, 10], 256) == [[0], [1, 2]]


def test_the_cost_of_a_row_is_the_mean_of_its_length_bucket() -> None:
    cost = ByLength.of([4, 16, 17, 200, 200], [1.0, 3.0, 5.0, 40.0, 60.0])
    assert cost.row_ms[:2] == (2.0, 5.0)
    assert cost.row_ms[4] == 50.0
    assert cost.ms([1, 2, 0, 0, 1, 0, 0]) == pytest.approx(62.0)


def test_a_bucket_without_rows_costs_what_rows_cost_on_average() -> None:
    assert ByLength.of([4, 200], [1.0, 3.0]).row_ms[2] == 2.0


def test_costs_add_up_bucket_by_bucket() -> None:
    one = ByLength.of([4], [1.0])
    assert (one + one).row_ms == (2.0,) * 7
