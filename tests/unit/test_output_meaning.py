"""What a source's output means is found in its ending and its answers, and a wrong declaration is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lockstep.exporters.conversion import Ending, EndingKind, SourceError, SourceFiles
from lockstep.exporters.gate.output_meaning import find, labelled
from lockstep.exporters.source import Framework

LOGITS = np.array([[1.5, -0.5], [0.2, 0.9], [-2.0, 0.1]], dtype=np.float32)
DISTRIBUTIONS = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
EACH = np.array([[0.9, 0.8], [0.1, 0.2], [0.5, 0.4]], dtype=np.float32)
"""Within 0 and 1, and no distribution."""

LOGIT, PROBABILITY = LOGITS[:, :1], EACH[:, :1]


def files(labels: int = 2, **declared: Any) -> SourceFiles:
    return SourceFiles(
        name="model",
        framework=declared.get("framework", Framework.KERAS),
        weights=Path("model"),
        build=None,
        python_path=(),
        labels=labels,
        output=declared.get("output"),
        activation=declared.get("activation"),
        pad_id=0,
        max_tokens=8,
    )


def ending(kind: EndingKind | None) -> Ending | None:
    return Ending(kind=kind, where=f"{kind} (head)") if kind else None


def found(columns: Any, kind: EndingKind | None = None, **declared: Any) -> tuple[str, str]:
    meaning = find(np.asarray(columns), files(**declared), ending(kind), lambda index: f"row {index}")
    assert meaning.evidence
    return meaning.output, meaning.activation


def refused(columns: Any, kind: EndingKind | None = None, **declared: Any) -> str:
    with pytest.raises(SourceError) as raised:
        found(columns, kind, **declared)
    return str(raised.value)


@pytest.mark.parametrize(
    ("columns", "kind", "meaning"),
    [
        (DISTRIBUTIONS, "softmax", ("probabilities", "softmax")),
        (DISTRIBUTIONS, None, ("probabilities", "softmax")),
        (DISTRIBUTIONS, "affine", ("probabilities", "softmax")),  # a weighted mean of distributions
        (DISTRIBUTIONS.astype(np.float16).astype(np.float32), "softmax", ("probabilities", "softmax")),
        (DISTRIBUTIONS, "sigmoid", ("probabilities", "softmax")),  # sigmoid([z, -z])
        (PROBABILITY, "sigmoid", ("probabilities", "sigmoid")),
        (EACH, "sigmoid", ("probabilities", "sigmoid")),
        (np.log(DISTRIBUTIONS), "log_softmax", ("logits", "softmax")),
        (np.log(DISTRIBUTIONS), None, ("logits", "softmax")),
        (LOGITS, None, ("logits", "softmax")),
        (LOGITS, "affine", ("logits", "softmax")),
        (LOGIT, None, ("logits", "sigmoid")),
        (PROBABILITY, "affine", ("logits", "sigmoid")),
        (EACH, "affine", ("logits", "softmax")),
    ],
)
def test_what_nobody_declared_is_found(columns: Any, kind: EndingKind | None, meaning: tuple[str, str]) -> None:
    assert found(columns, kind) == meaning


@pytest.mark.parametrize("columns", [PROBABILITY, EACH], ids=["one column", "several"])
def test_numbers_that_may_be_either_are_asked_about(columns: Any) -> None:
    message = refused(columns)
    assert "each of its 3 answers" in message
    assert "--output probabilities" in message
    assert "--output logits" in message
    assert found(columns, output="logits")[0] == "logits"
    assert found(columns, output="probabilities", activation="sigmoid") == ("probabilities", "sigmoid")


def test_a_hugging_face_classifier_answers_logits_even_between_0_and_1() -> None:
    assert found(EACH, framework=Framework.HUGGINGFACE) == ("logits", "softmax")


@pytest.mark.parametrize(
    ("columns", "kind", "declared", "told"),
    [
        (LOGIT, None, {"output": "probabilities"}, r"answers \[1\.5\] to row 0, which are not probabilities"),
        (
            LOGITS,
            "affine",
            {"output": "probabilities"},
            r"answers \[1\.5, -0\.5\] to row 0, which are not probabilities",
        ),
        (DISTRIBUTIONS, None, {"output": "logits"}, "each of its 3 answers is a distribution"),
        (DISTRIBUTIONS, "softmax", {"output": "logits"}, r"it ends in softmax \(head\)"),
        (PROBABILITY, "sigmoid", {"output": "logits"}, r"it ends in sigmoid \(head\).*a second time"),
        (np.log(DISTRIBUTIONS), "log_softmax", {"output": "probabilities"}, "which are not probabilities"),
        (np.log(DISTRIBUTIONS), None, {"activation": "sigmoid"}, "logarithms of a distribution"),
        (DISTRIBUTIONS, "softmax", {"activation": "sigmoid"}, "sums to 1.*--activation sigmoid"),
        (EACH, "sigmoid", {"activation": "softmax"}, "does not sum to 1.*--activation sigmoid"),
        (EACH, None, {"output": "probabilities"}, "does not sum to 1.*--activation sigmoid"),
        (LOGIT, None, {"activation": "softmax"}, "a single column.*--activation softmax"),
        (PROBABILITY, "sigmoid", {"activation": "softmax"}, "a single column.*--activation softmax"),
    ],
)
def test_a_declaration_that_contradicts_what_is_found_is_refused(
    columns: Any, kind: EndingKind | None, declared: dict[str, str], told: str
) -> None:
    message = refused(columns, kind, **declared)
    assert re.search(told, message), message
    assert "description.json" in message


def test_a_declaration_that_fits_is_used() -> None:
    assert found(LOGITS, None, output="logits", activation="sigmoid") == ("logits", "sigmoid")
    assert found(PROBABILITY, "sigmoid", activation="sigmoid") == ("probabilities", "sigmoid")
    assert found(DISTRIBUTIONS, None, output="probabilities", activation="softmax") == ("probabilities", "softmax")
    three = np.concatenate([LOGITS, LOGIT], axis=1)
    assert found(three, "affine", labels=3, activation="sigmoid") == ("logits", "sigmoid")


@pytest.mark.parametrize(("columns", "labels"), [(LOGITS, 3), (LOGIT, 3), (np.ones((3, 4), np.float32), 2)])
def test_as_many_labels_as_columns_are_needed(columns: Any, labels: int) -> None:
    assert f"for {labels} labels: name " in refused(columns, labels=labels)


@pytest.mark.parametrize(
    ("columns", "kind", "told"),
    [
        (np.ones((3, 1), np.float32), "softmax", "over a single column, which answers the same to every text"),
        (LOGIT - 9, "log_sigmoid", "logarithms of probabilities, which cannot be served"),
        (DISTRIBUTIONS / DISTRIBUTIONS.sum(axis=0), "softmax", "the softmax must run over the labels"),
    ],
)
def test_an_ending_that_cannot_be_served_is_refused(columns: Any, kind: EndingKind, told: str) -> None:
    assert told in refused(columns, kind)


def test_the_numbers_of_labels_are_no_scores() -> None:
    assert "whole number to every text (0, 1, 2)" in refused(np.array([[0], [2], [1]], np.float32), labels=3)
    assert found(np.zeros((3, 1), np.float32), "affine") == ("logits", "sigmoid")  # a head that was never trained


def test_percentages_are_refused() -> None:
    assert "that sum to 100: a distribution times a number" in refused(DISTRIBUTIONS * 100)


def test_a_single_column_becomes_two_labels() -> None:
    probabilities = find(PROBABILITY, files(), ending("sigmoid"), str)
    np.testing.assert_array_equal(labelled(PROBABILITY, probabilities, 2)[:, 1:], PROBABILITY)
    np.testing.assert_allclose(labelled(PROBABILITY, probabilities, 2).sum(axis=1), 1)
    logits = find(LOGIT, files(), None, str)
    np.testing.assert_array_equal(labelled(LOGIT, logits, 2), np.concatenate([0 * LOGIT, LOGIT], axis=1))
    np.testing.assert_array_equal(labelled(LOGITS, logits, 2), LOGITS)
