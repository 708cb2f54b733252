import json
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockstep.clients.loadtest.latency_histogram import RELATIVE_ERROR, Latencies
from lockstep.clients.loadtest.tally import LENGTH_EDGES, Tally, length_bucket, length_label
from lockstep.protos import sentiment_pb2 as wire
from tests.wire_double import LABELS, prediction_of

latency_s = st.floats(min_value=1e-6, max_value=3599)


def nearest_rank(values: list[float], percentile: float) -> float:
    return sorted(values)[max(1, math.floor(percentile * len(values) / 100 + 0.5)) - 1]


@settings(deadline=None)
@given(st.lists(latency_s, min_size=1, max_size=200), st.sampled_from([1.0, 50.0, 90.0, 99.0, 99.9, 100.0]))
def test_percentiles_are_right_within_the_histograms_precision(values: list[float], percentile: float) -> None:
    latencies = Latencies()
    for value in values:
        latencies.record(value)
    exact_ms = nearest_rank(values, percentile) * 1000
    assert latencies.percentile_ms(percentile) == pytest.approx(exact_ms, rel=RELATIVE_ERROR, abs=0.001)


@settings(deadline=None, max_examples=15)  # reading a mean walks the whole histogram
@given(st.lists(latency_s, max_size=50), st.lists(latency_s, max_size=50))
def test_merging_is_as_if_all_had_been_recorded_in_one(left: list[float], right: list[float]) -> None:
    one, other, both = Latencies(), Latencies(), Latencies()
    for value in left:
        one.record(value)
        both.record(value)
    for value in right:
        other.record(value)
        both.record(value)
    one.merge(other)
    asked = [0.0, 25.0, 50.0, 99.0, 100.0]
    assert len(one) == len(both)
    assert one.percentiles_ms(asked) == both.percentiles_ms(asked)
    assert one.mean_ms == both.mean_ms


def test_a_histogram_survives_being_written() -> None:
    rng = random.Random(5)
    latencies = Latencies()
    for _ in range(1000):
        latencies.record(rng.expovariate(100))
    again = Latencies.decode(latencies.encode())
    asked = [50.0, 90.0, 99.0, 99.9]
    assert again.percentiles_ms(asked) == latencies.percentiles_ms(asked)
    assert len(again) == 1000


def test_nothing_recorded_reads_as_zero() -> None:
    assert Latencies().percentiles_ms([50, 99]) == [0, 0]
    assert Latencies().mean_ms == Latencies().max_ms == 0


def test_a_latency_beyond_the_range_is_refused() -> None:
    with pytest.raises(ValueError, match="outside the histogram's range"):
        Latencies().record(1e6)


def test_batches_and_padding_are_those_of_the_rows_answered() -> None:
    """Two batches: 3 rows of 1, 2 and 9 tokens, and a lone row of 4: 4 rows / 2 batches, 31 padded / 16."""
    tally = Tally()
    texts = ["a", "a b", "a b c d e f g h i"]
    together = [prediction_of(text, "x", batch_rows=3, batch_tokens=9) for text in texts]
    alone = prediction_of("a b c d", "x", batch_rows=1, batch_tokens=4)
    for prediction in (*together, alone):
        response = wire.ClassifyResponse(labels=LABELS, results=[wire.Result(prediction=prediction)])
        assert tally.answer(response, latency_s=0.1) == 1
    assert tally.rows / tally.batches == pytest.approx(2)
    assert tally.padded_tokens / tally.tokens == pytest.approx(31 / 16)
    assert tally.phases_us["execute"] == 4 * 6000


def test_rows_that_failed_count_as_errors_by_status_and_in_no_percentile() -> None:
    tally = Tally()
    error = wire.Error(kind="InputTooLong", code=3, message="")
    tally.answer(wire.ClassifyResponse(results=[wire.Result(error=error)] * 2), latency_s=9.0)
    tally.fail(3, "UNAVAILABLE")
    assert tally.errors == {"INVALID_ARGUMENT": 2, "UNAVAILABLE": 3}
    assert (tally.rows, tally.calls, len(tally.latency)) == (0, 0, 0)


def test_length_buckets_cover_every_length_once() -> None:
    for tokens in (1, 16, 17, 32, 512, 513, 10_000):
        label = length_label(length_bucket(tokens))
        if label.startswith(">"):
            assert tokens > LENGTH_EDGES[-1]
        else:
            low, high = map(int, label.split("-"))
            assert low <= tokens <= high


def random_tally(seed: int, answers: int) -> Tally:
    rng = random.Random(seed)
    tally = Tally(window_s=2.0, generator_cpu_s=0.25, generator_wall_s=2.0)
    for _ in range(answers):
        tally.offer(1, lag_s=rng.expovariate(1000))
        prediction = prediction_of("word " * rng.randint(1, 60), "x", batch_rows=4, batch_tokens=64)
        response = wire.ClassifyResponse(labels=LABELS, results=[wire.Result(prediction=prediction)])
        tally.answer(response, latency_s=rng.expovariate(50), slice_=rng.randrange(4))
    tally.fail(2, "UNAVAILABLE", slice_=3)
    return tally


def test_a_tally_survives_the_way_between_processes() -> None:
    tally = random_tally(1, 300)
    again = Tally.decode(json.loads(json.dumps(tally.encode())))
    assert again.encode() == tally.encode()
    assert again.latency.percentile_ms(99) == tally.latency.percentile_ms(99)
    assert again.errors == {"UNAVAILABLE": 2}


def test_what_several_generators_saw_adds_up_and_the_window_does_not() -> None:
    one, other = random_tally(1, 300), random_tally(2, 200)
    latencies = Latencies()
    latencies.merge(one.latency)
    latencies.merge(other.latency)
    both = Tally()
    both.join(one)
    both.join(other)
    assert both.window_s == 2.0
    assert (both.rows, both.offered_rows, both.errors["UNAVAILABLE"]) == (500, 500, 4)
    assert both.latency.encode() == latencies.encode()
    assert sum(found.calls for found in both.slices.values()) == 500
    assert both.slices[3].failed_rows == 4
    assert both.generator_cpu_s / both.generator_wall_s == pytest.approx(0.125)
