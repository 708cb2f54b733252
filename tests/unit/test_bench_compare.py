"""What is concluded from interleaved pairs."""

import pytest

from benchmarks.compare import Bound, Estimate, interleaved, median_absolute_error, percentile


def test_the_figure_is_the_median_and_the_interval_the_extremes() -> None:
    assert Estimate.of([3.0, 1.0, 2.0, 9.0, 2.5]) == Estimate(2.5, 1.0, 9.0, 5)


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ([1.2, 1.3, 1.4], "met"),
        ([0.7, 0.8, 0.9], "missed"),
        ([0.9, 1.1, 1.2], "unsure: met"),
        ([0.8, 0.9, 1.1], "unsure: missed"),
    ],
)
def test_a_bound_inside_the_interval_leaves_a_doubt(values: list[float], verdict: str) -> None:
    assert Estimate.of(values).verdict(Bound(">=", 1.0)) == verdict


def test_an_upper_bound_is_held_from_below() -> None:
    assert Estimate.of([0.5, 0.6]).verdict(Bound("<=", 0.7)) == "met"


def test_rounds_alternate_their_direction_and_keep_their_names() -> None:
    order: list[str] = []
    conditions = {name: lambda name=name: order.append(name) or name for name in ("a", "b")}
    rounds = list(interleaved(conditions, 3))
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert rounds == [{"a": "a", "b": "b"}] * 3


def test_a_percentile_is_one_of_the_values() -> None:
    values = [float(value) for value in range(1, 101)]
    assert (percentile(values, 50), percentile(values, 99), percentile(values, 100)) == (50, 99, 100)
    assert percentile([7.0], 99) == 7.0


def test_the_median_error_is_read_off_the_histogram() -> None:
    bounds = (0.5, 0.9, 1.1, 2.0)
    counts = (0.0, 0.0, 100.0, 100.0)  # all between 0.9 and 1.1: half of them within 0.05
    counters = {f"predicted_cost_ratio_bucket{{{bound}}}": count for bound, count in zip(bounds, counts, strict=True)}
    counters["predicted_cost_ratio_bucket{+Inf}"] = 100.0
    assert median_absolute_error(counters) == pytest.approx(0.05, abs=1e-6)


def test_a_server_without_the_histogram_is_told_so() -> None:
    with pytest.raises(ValueError, match="predicted_cost_ratio"):
        median_absolute_error({})
