"""Labels in another order than the outputs are noticed where held-out texts are labelled."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lockstep.exporters.gate.label_order import warning

LABELS = ("bad", "so-so", "good")
TRUTHS = np.arange(300) % 3


def answers(columns: NDArray[np.int64], labels: int = 3) -> NDArray[np.float32]:
    """Outputs that choose these columns for nine rows of ten, and the next for the tenth."""
    wrong = np.arange(len(columns)) % 10 == 0
    return np.eye(labels, dtype=np.float32)[(columns + wrong) % labels]


def test_labels_in_another_order_are_told_with_the_order_that_fits() -> None:
    shifted = np.array([2, 0, 1])[TRUTHS]  # of the column of each label
    told = str(warning(answers(shifted), TRUTHS, LABELS))
    assert "if its outputs are so-so,good,bad" in told
    assert "90.0%" in told


def test_two_labels_the_wrong_way_round_are_told() -> None:
    truths = np.arange(100) % 2
    assert "if its outputs are yes,no" in str(warning(answers(1 - truths, 2), truths, ("no", "yes")))


@pytest.mark.parametrize(
    ("columns", "truths"),
    [
        (TRUTHS, TRUTHS),
        (np.zeros(300, np.int64), TRUTHS),  # always the same label
        (np.random.default_rng(0).integers(0, 3, 300), TRUTHS),
        ((TRUTHS + 1) % 3, np.full(300, -1)),  # nothing is labelled
        ((TRUTHS + 1) % 3, np.minimum(TRUTHS, 1)),  # one label never occurs
        ((TRUTHS + 1)[:6] % 3, TRUTHS[:6]),  # too few to tell
    ],
    ids=["right", "constant", "random", "unlabelled", "a label without rows", "few"],
)
def test_nothing_is_told_of_what_is_right_or_cannot_be_known(
    columns: NDArray[np.int64],
    truths: NDArray[np.int64],
) -> None:
    assert warning(answers(columns), truths, LABELS) is None
