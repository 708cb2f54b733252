import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lockstep.server.backend_comparison import Agreement, agreement

NOTHING = [np.nan, np.nan]


def test_the_largest_difference_is_between_the_two_that_are_farthest_apart() -> None:
    low, middle, high = (np.array([[p, 1 - p]]) for p in (0.6, 0.7, 0.9))
    found = agreement([middle, low, high])
    assert (found.texts, found.labels_differ) == (1, 0)
    assert np.isclose(found.largest_difference, 0.3)


def test_texts_that_fewer_than_two_answered_are_not_compared() -> None:
    one = np.array([[0.9, 0.1], NOTHING, NOTHING, [0.2, 0.8]])
    two = np.array([[0.8, 0.2], [0.1, 0.9], NOTHING, NOTHING])
    found = agreement([one, two])
    assert found.texts == 1
    assert np.isclose(found.largest_difference, 0.1)
    assert agreement([one]) == agreement([]) == Agreement()
    assert agreement([one[1:3], two[1:3]]) == Agreement()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_labels_differ_where_the_most_probable_one_does(first: list[float], second: list[float]) -> None:
    pairs = list(zip(first, second, strict=False))
    one, two = (np.array([[p, 1 - p] for p in column]) for column in zip(*pairs, strict=True))
    found = agreement([one, two])
    assert found.texts == len(pairs)
    assert found.labels_differ == sum(a.argmax() != b.argmax() for a, b in zip(one, two, strict=True))
    assert np.isclose(found.largest_difference, np.abs(one - two).max())
