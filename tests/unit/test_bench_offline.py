"""The offline bound's batches and costs."""

import numpy as np
import pytest

from benchmarks.offline import Linear, batches_of


def test_every_row_is_in_one_batch_of_the_area_and_the_longest_go_first() -> None:
    lengths = np.random.default_rng(0).integers(1, 257, 500).tolist()
    batches = batches_of(lengths, 1_024)
    assert sorted(row for batch in batches for row in batch) == list(range(500))
    assert all(len(batch) * max(lengths[row] for row in batch) <= 1_024 for batch in batches)
    assert max(lengths) in {lengths[row] for row in batches[0]}


def test_a_row_longer_than_the_area_is_alone() -> None:
    assert batches_of([300, 10, 10], 256) == [[0], [1, 2]]


def test_the_cost_of_rows_and_tokens_is_found_and_meets_the_total() -> None:
    rows, tokens = [10, 10, 10, 10], [100, 200, 400, 800]
    cpu_ms = [0.5 * r + 0.01 * t for r, t in zip(rows, tokens, strict=True)]
    cost = Linear.fit(rows, tokens, cpu_ms)
    assert (cost.row_ms, cost.token_ms) == (pytest.approx(0.5), pytest.approx(0.01))
    assert cost.ms(sum(rows), sum(tokens)) == pytest.approx(sum(cpu_ms))


def test_no_row_and_no_token_costs_less_than_nothing() -> None:
    cost = Linear.fit([10, 10], [100, 1_000], [0.5, 10.0])
    assert cost.row_ms == 0
    assert cost.ms(20, 1_100) == pytest.approx(10.5)
