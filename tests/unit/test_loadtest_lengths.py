import random
import statistics

import pytest

from lockstep.clients.loadtest.lengths import Lengths, synthetic_pool
from lockstep.clients.loadtest.plan import LoadPlan
from lockstep.clients.loadtest.texts import texts_of


def drawn(text: str) -> list[int]:
    rng, lengths = random.Random(1), Lengths.parse(text)
    return [lengths.draw(rng) for _ in range(20_000)]


def test_every_text_of_a_fixed_length_has_it() -> None:
    assert {len(text.split()) for text in synthetic_pool(Lengths.parse("fixed:7"), 0)} == {7}


def test_uniform_lengths_reach_from_end_to_end() -> None:
    found = drawn("uniform:1:128")
    assert (min(found), max(found)) == (1, 128)
    assert statistics.fmean(found) == pytest.approx(64.5, rel=0.02)


def test_lognormal_lengths_have_the_mean_that_was_asked_for_and_no_more_than_the_most() -> None:
    found = drawn("lognormal:mean=24,sigma=0.6,max=256")
    assert statistics.fmean(found) == pytest.approx(24, rel=0.02)
    assert statistics.median(found) < 22
    assert max(drawn("lognormal:mean=24,sigma=0.6,max=30")) == 30


def test_synthetic_texts_are_the_same_in_every_process() -> None:
    plan = LoadPlan(model="m", lengths="uniform:1:9", seed=3)
    assert texts_of(plan) == texts_of(plan)
    assert texts_of(plan).pool != texts_of(LoadPlan(model="m", lengths="uniform:1:9", seed=4)).pool


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("32", "expected fixed:32"),
        ("fixed:0", "0 words: 1 to"),
        ("uniform:9:1", "9 is more than 1"),
        ("lognormal:mean=24", "sigma is missing"),
        ("lognormal:mean=24,sigma=0.6,mode=3", "unknown: mode"),
        ("lognormal:mean=0.5,sigma=0.6", "the mean is 1 or more"),
    ],
)
def test_a_distribution_that_is_none_is_refused_by_what_is_wrong(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        LoadPlan(model="m", lengths=text)


def test_texts_do_not_come_from_two_places() -> None:
    with pytest.raises(ValueError, match="not from both"):
        LoadPlan(model="m", lengths="fixed:3", texts="a.txt")
