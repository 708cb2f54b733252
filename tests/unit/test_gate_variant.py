"""What a variant is held to: labels and accuracy, in every run."""

from __future__ import annotations

import numpy as np

from lockstep.exporters.gate.parity import Accuracy, Refusal, VariantBound, judge_accuracy, judge_variant

SOURCE = np.tile(np.array([[1.0, -1.0], [-1.0, 1.0]], dtype=np.float32), (100, 1))


def flipped(rows: int) -> np.ndarray:
    answers = SOURCE.copy()
    answers[:rows] *= -1
    return answers


def test_numbers_may_move_as_long_as_labels_stay() -> None:
    assert judge_variant(SOURCE, [SOURCE * 3, flipped(2)], VariantBound()) == 0.99


def test_the_worst_run_counts() -> None:
    judged = judge_variant(SOURCE, [SOURCE, flipped(3)], VariantBound())
    assert isinstance(judged, Refusal)
    assert judged.reason == "gives the source's label to 98.50% of the held-out rows; 99% are due"


def test_nan_is_refused() -> None:
    judged = judge_variant(SOURCE, [np.where(SOURCE > 0, np.nan, SOURCE)], VariantBound())
    assert isinstance(judged, Refusal)


def test_accuracy_may_move_by_half_a_point() -> None:
    bound = VariantBound().accuracy_points
    assert judge_accuracy(Accuracy(0.8, None), Accuracy(0.795, None), bound) is None
    assert isinstance(judge_accuracy(Accuracy(0.8, None), Accuracy(0.794, None), bound), Refusal)
