"""The gate's judgement, apart from any worker."""

from __future__ import annotations

import numpy as np
import pytest

from lockstep.exporters.conversion import Outputs
from lockstep.exporters.gate.held_out import grid_lengths
from lockstep.exporters.gate.parity import (
    BATCH_SIZES,
    Accuracy,
    Agreement,
    Batch,
    Bound,
    Failure,
    Measured,
    Refusal,
    accuracy,
    judge,
    judge_accuracy,
    plan,
)

LENGTHS = [1, 3, 5]
SOURCE = np.array([[1.0, -1.0], [0.5, 2.0], [-3.0, 0.25]], dtype=np.float32)
BATCHES = [Batch((0, 2)), Batch((1, 2, 0))]


def batched(
    outputs: Outputs,
) -> list[Outputs]:
    return [outputs[list(batch.rows)] for batch in BATCHES]


def verdict(measured: Measured, source: Outputs = SOURCE) -> Agreement | Refusal:
    return judge(BATCHES, LENGTHS, source, measured, lambda index: f"row {index}", Bound())


def reason(measured: Measured) -> str:
    judged = verdict(measured)
    assert isinstance(judged, Refusal)
    return judged.reason


def test_equal_answers_agree_and_every_comparison_counts() -> None:
    judged = verdict(Measured(SOURCE, batched(SOURCE), batched(SOURCE)))
    assert judged == Agreement(
        rows=3 + 2 * 5, batches=3 + 2 * 2, max_abs_diff=0.0, padding_invariance=0.0, label_agreement=1.0
    )


def test_the_bound_is_absolute_plus_relative() -> None:
    source = np.array([[1000.0, 0.0]], dtype=np.float64).astype(np.float32)

    def judged(moved_by: float) -> Agreement | Refusal:
        moved = source + np.array([[moved_by, 0.0]], dtype=np.float32)
        return judge((), [1], source, Measured(moved, (), None), lambda index: "row", Bound())

    assert isinstance(judged(0.01), Agreement)
    assert isinstance(judged(0.0102), Refusal)


def test_a_row_that_differs_alone_is_shown_with_both_answers() -> None:
    alone = SOURCE.copy()
    alone[1, 0] += 1e-3
    assert reason(Measured(alone, batched(alone), None)) == (
        "differs from the source: row 1 alone (batch 1, length 3): expected [0.5, 2], got [0.501, 2]"
    )


def test_a_row_that_changes_beside_others_ignores_where_rows_end() -> None:
    answers = batched(SOURCE)
    answers[1] = answers[1] + np.array([[0, 0], [0, 0], [0.1, 0]], dtype=np.float32)
    said = reason(Measured(SOURCE, answers, None))
    assert said.startswith("ignores where a row ends (the mask or the lengths): row 0, 1 tokens: alone [1, -1]")
    assert said.endswith("with padding beside longer rows (batch 3, length 5) [1.1, -1]")


def test_a_row_that_changes_with_what_stands_beyond_its_end_is_refused() -> None:
    scrambled = batched(SOURCE)
    scrambled[0] = scrambled[0] + np.float32(1)
    assert "with random ids beyond its end (batch 2, length 5)" in reason(Measured(SOURCE, batched(SOURCE), scrambled))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused_even_in_one_batch(value: float) -> None:
    answers = batched(SOURCE)
    answers[0] = np.where(np.array([[False, False], [False, True]]), value, answers[0]).astype(np.float32)
    assert "answers NaN or Inf: row 2" in reason(Measured(SOURCE, answers, None))


def test_a_refused_batch_is_a_frozen_axis() -> None:
    said = reason(Measured(SOURCE, [], None, Failure(2, 5, "expected 7")))
    assert said.endswith("it refused batch 2, length 5: expected 7")


def test_another_number_of_labels_is_refused() -> None:
    assert "answers 1 labels where the source answers 2" in reason(Measured(SOURCE[:, :1], [], None))


def test_a_flipped_label_within_the_bound_counts_only_where_the_margin_is_clear() -> None:
    tie = np.array([[0.0, 4e-5]], dtype=np.float32)
    flipped = np.array([[3e-5, 1e-5]], dtype=np.float32)
    clear = np.array([[0.0, 6e-5]], dtype=np.float32)

    def judged(source: Outputs) -> Agreement | Refusal:
        return judge((), [1], source, Measured(flipped, (), None), lambda index: "row", Bound())

    agreed = judged(tie)
    assert isinstance(agreed, Agreement)
    assert agreed.label_agreement == 0.0
    refused = judged(clear)
    assert isinstance(refused, Refusal)
    assert "another label" in refused.reason


def test_the_grid_spans_every_batch_size_and_the_shortest_and_longest_row() -> None:
    lengths = [length for length in grid_lengths(50) for _ in range(2)]
    batches = plan(lengths, 50)
    shapes = {(len(batch.rows), max(lengths[index] for index in batch.rows)) for batch in batches}
    assert {size for size, _ in shapes} == set(BATCH_SIZES)
    for size in BATCH_SIZES:
        assert (size, 1) in shapes
        assert (size, 50) in shapes


def test_the_far_corner_is_in_the_grid_however_large() -> None:
    lengths = list(grid_lengths(512))
    shapes = {(len(batch.rows), max(lengths[index] for index in batch.rows)) for batch in plan(lengths, 512)}
    assert (64, 512) in shapes
    assert (64, 384) not in shapes  # the rest stays within a budget


def test_accuracy_is_of_labelled_rows_alone() -> None:
    labels = np.array([0, 0, -1])
    measured = accuracy(SOURCE, labels, np.array([True, False, True]))
    assert measured == Accuracy(all=0.5, sentences=1.0)
    assert accuracy(SOURCE, np.array([-1, -1, -1]), np.ones(3, dtype=np.bool_)) == Accuracy(None, None)


def test_accuracy_may_move_by_a_tenth_of_a_point_and_no_more() -> None:
    source = Accuracy(0.75, None)
    assert judge_accuracy(source, Accuracy(0.749, None)) is None
    refused = judge_accuracy(source, Accuracy(0.7489, None))
    assert refused is not None
    assert "accuracy on the held-out rows is 74.89%, the source's 75.00%" in refused.reason
    assert judge_accuracy(Accuracy(None, None), Accuracy(None, None)) is None
