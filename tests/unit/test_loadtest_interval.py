import math
import random

import pytest

from lockstep.clients.loadtest.interval import interval_of, paired_ratio_of, ratio_of, t_quantile


@pytest.mark.parametrize(
    ("freedom", "exact"),
    [
        (1, math.tan(math.pi * 0.475)),
        (2, 0.95 * math.sqrt(2 / (1 - 0.95**2))),  # closed forms of Student's t
        (4, 2.7764451),
        (1e9, 1.9599640),
    ],
)
def test_quantiles_are_those_of_students_t(freedom: float, exact: float) -> None:
    assert t_quantile(freedom) == pytest.approx(exact, rel=1e-4)


def test_between_whole_degrees_of_freedom_the_quantile_falls() -> None:
    found = [t_quantile(1 + n / 10) for n in range(400)]
    assert found == sorted(found, reverse=True)


def test_an_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = random.Random(3)
    covered = 0
    for _ in range(2000):
        interval = interval_of([math.exp(rng.gauss(1.0, 0.2)) for _ in range(4)])
        assert interval is not None
        covered += interval.low <= math.exp(1.0) <= interval.high
    assert covered / 2000 == pytest.approx(0.95, abs=0.015)


def test_a_ratio_of_two_runs_covers_the_truth_as_often_as_it_says() -> None:
    rng = random.Random(4)
    covered = 0
    for _ in range(2000):
        after = [math.exp(rng.gauss(1.1, 0.1)) for _ in range(5)]
        before = [math.exp(rng.gauss(1.0, 0.3)) for _ in range(4)]
        ratio = ratio_of(after, before)
        assert ratio is not None
        covered += ratio.low <= math.exp(0.1) <= ratio.high
    assert covered / 2000 == pytest.approx(0.95, abs=0.02)


def test_drift_drops_out_of_pairs() -> None:
    """Both get slower from round to round; one is always twice the other."""
    ratio = paired_ratio_of([2.0, 4.0, 8.0], to=[1.0, 2.0, 4.0])
    assert ratio is not None
    assert (ratio.low, ratio.value, ratio.high) == pytest.approx((2.0, 2.0, 2.0))
    apart = ratio_of([2.0, 4.0, 8.0], to=[1.0, 2.0, 4.0])
    assert apart is not None
    assert apart.low < 1 < apart.high


def test_few_rounds_have_no_interval_and_neither_has_a_round_without_an_answer() -> None:
    assert interval_of([1.0]) is None
    assert interval_of([1.0, 2.0]) is None, "of two rounds it would be thirteen times their spread"
    assert interval_of([1.0, 0.0]) is None
    assert ratio_of([1.0, 2.0], [1.0]) is None
    assert paired_ratio_of([1.0, 2.0], [1.0, 2.0, 3.0]) is None
