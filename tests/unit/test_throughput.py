"""The pace of a backend is what a token took of late, once enough was seen."""

import pytest

from lockstep.server.scheduling.throughput import ThroughputEstimate


def test_nothing_is_known_until_a_few_batches_were_seen() -> None:
    pace = ThroughputEstimate()
    for _ in range(3):
        pace.observe(1_000, 10)
        assert pace.ns_per_token is None
    pace.observe(1_000, 10)
    assert pace.ns_per_token == pytest.approx(100)


def test_large_batches_count_by_their_tokens_and_old_ones_are_forgotten() -> None:
    pace = ThroughputEstimate()
    for _ in range(10):
        pace.observe(1_000, 1)
        pace.observe(1_000, 99)
    assert pace.ns_per_token == pytest.approx(20, rel=0.1)
    for _ in range(200):
        pace.observe(5_000, 100)
    assert pace.ns_per_token == pytest.approx(50, rel=1e-3)
