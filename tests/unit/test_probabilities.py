"""What an artifact answered becomes probabilities, or the row fails: nothing else leaves the server."""

from __future__ import annotations

import numpy as np
import pytest

from lockstep.server.core.probabilities import fault, reader


def array(*rows: list[float]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.array(rows, dtype=np.float32)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ([2.30, -1.30], "2.3 as a probability, which is outside 0 to 1"),
        ([0.2, -0.01], "-0.01 as a probability"),
        ([np.nan, 0.5], "NaN or infinity"),
        ([np.inf, 0.5], "NaN or infinity"),
        ([0.9, 0.8], "probabilities that sum to 1.7, not to 1"),
    ],
)
def test_a_row_of_no_probabilities_is_none_and_its_neighbours_are_answered(row: list[float], told: str) -> None:
    outputs = array([0.25, 0.75], row, [1.0, 0.0])
    read = reader("probabilities", "softmax")(outputs)
    assert np.isnan(read[1]).all()
    np.testing.assert_array_equal(read[[0, 2]], outputs[[0, 2]])
    assert told in fault(outputs[1])


def test_labels_with_a_probability_of_their_own_need_not_sum_to_one() -> None:
    outputs = array([0.9, 0.8, 0.1], [0.0, 0.0, 1.5])
    read = reader("probabilities", "sigmoid")(outputs)
    np.testing.assert_array_equal(read[0], outputs[0])
    assert np.isnan(read[1]).all()


def test_rounding_is_no_fault_and_does_not_leave_the_server() -> None:
    read = reader("probabilities", "softmax")(array([-3e-7, 1 + 3e-7], [0.3335, 0.666]))
    assert read[0].tolist() == [0.0, 1.0]
    assert np.isfinite(read[1]).all()


def test_logits_of_several_labels_become_a_sigmoid_each() -> None:
    read = reader("logits", "sigmoid")(array([0.0, 200.0, -200.0], [np.nan, 0.0, 0.0]))
    np.testing.assert_allclose(read[0], [0.5, 1.0, 0.0], atol=1e-6)
    assert np.isnan(read[1]).any()


def test_logits_become_a_softmax() -> None:
    read = reader("logits", "softmax")(array([0.0, 0.0], [1000.0, 0.0], [np.inf, 0.0]))
    np.testing.assert_allclose(read[:2], [[0.5, 0.5], [1.0, 0.0]])
    assert np.isnan(read[2]).any()
