import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockstep.server.histogram import RELATIVE_ERROR, Histogram, Summary

LONGEST_NS = 60 * 60 * 10**9


def counted(*groups: list[int]) -> Histogram:
    durations = Histogram(len(groups))
    for group, values in enumerate(groups):
        durations.add(np.full(len(values), group), np.array(values, np.int64))
    return durations


def summary(durations: Histogram, group: int = 0) -> Summary:
    found = durations.summaries()[group]
    assert found is not None
    return found


@given(st.lists(st.integers(64, LONGEST_NS), min_size=1, max_size=300))
def test_percentiles_are_within_the_stated_error_of_numpys_and_the_rest_is_exact(values: list[int]) -> None:
    found = summary(counted(values))
    assert (found.count, found.most) == (len(values), max(values))
    assert found.mean == pytest.approx(sum(values) / len(values), rel=1e-12)
    for percent, percentile in ((50, found.p50), (90, found.p90), (99, found.p99)):
        exact = np.percentile(values, percent, method="inverted_cdf")
        assert percentile == pytest.approx(exact, rel=RELATIVE_ERROR)


@given(st.lists(st.lists(st.integers(0, LONGEST_NS), max_size=20), min_size=3, max_size=3), st.booleans())
def test_groups_are_told_apart_and_fold_into_the_whole(groups: list[list[int]], compact: bool) -> None:
    apart = counted(*groups)
    if compact:
        apart.compact()
    for values, found in zip(groups, apart.summaries(), strict=True):
        assert found == (counted(values).summaries()[0] if values else None)
    assert (
        apart.folded([0, 0, 0], 1).summaries() == counted([value for values in groups for value in values]).summaries()
    )


@given(st.lists(st.lists(st.integers(0, 10**9), max_size=20), min_size=1, max_size=5), st.booleans())
def test_it_does_not_matter_in_which_parts_durations_were_counted(parts: list[list[int]], compact: bool) -> None:
    merged = Histogram(1)
    for values in parts:
        part = counted(values)
        if compact:
            part.compact()
        merged.merge(part)
    assert merged.summaries() == counted([value for values in parts for value in values]).summaries()


def test_a_clock_that_steps_back_and_a_duration_beyond_the_scale_are_counted() -> None:
    found = summary(counted([-5, 0, 10 * LONGEST_NS]))
    assert (found.count, found.most) == (3, 10 * LONGEST_NS)
    assert 0 <= found.p50 < 128
    assert found.p99 <= found.most


def test_a_million_durations_take_no_more_memory_than_the_bins_that_they_fall_into() -> None:
    durations = Histogram(1)
    generator = np.random.default_rng(7)
    for _ in range(20):
        durations.add(np.zeros(50_000, np.int64), generator.integers(10**6, 10**7, 50_000))
    durations.compact()
    ((codes, counts),) = durations._counted
    assert counts.sum() == 1_000_000
    assert len(codes) <= 64 * 5
    assert not durations._fresh
