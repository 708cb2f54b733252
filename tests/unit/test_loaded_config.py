"""A Hugging Face model's loaded configuration decides what the description leaves open; a contradiction is refused."""

from __future__ import annotations

from typing import Any

import pytest

from lockstep.exporters.conversion import SourceError
from lockstep.exporters.source import Description, Framework
from lockstep.exporters.sources.loaded_config import LoadedConfig, resolved


def loaded(outputs: int = 2, **facts: Any) -> LoadedConfig:
    labels = tuple(f"LABEL_{output}" for output in range(outputs))
    known = {"problem_type": None, "positions": None, "max_positions": None, "pad_id": None}
    return LoadedConfig.model_validate({"labels": labels, **known, **facts})


def described(**stated: Any) -> Description:
    return Description(
        name="m",
        framework=Framework.HUGGINGFACE,
        layer="BERT",
        tokenizer="tokenizer.json",
        weights=".",
        **stated,
    )


def test_names_that_nobody_gave_are_the_library_s() -> None:
    assert resolved(described(), loaded(3), None).labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert resolved(described(labels=("a", "b")), loaded(), None).labels == ("a", "b")


@pytest.mark.parametrize(
    ("problem", "activation"),
    [(None, "softmax"), ("single_label_classification", "softmax"), ("multi_label_classification", "sigmoid")],
)
def test_the_problem_type_decides_the_activation(problem: str | None, activation: str) -> None:
    assert resolved(described(), loaded(problem_type=problem), None).activation == activation


@pytest.mark.parametrize(
    ("problem", "stated"), [("single_label_classification", "sigmoid"), ("multi_label_classification", "softmax")]
)
def test_an_activation_that_contradicts_the_problem_type_is_refused(problem: str, stated: str) -> None:
    with pytest.raises(SourceError, match=f"activation {stated} contradicts .* problem_type is {problem}"):
        resolved(described(activation=stated), loaded(problem_type=problem), None)


def test_an_activation_may_be_said_where_the_configuration_says_no_problem_type() -> None:
    assert resolved(described(activation="sigmoid"), loaded(3), None).activation == "sigmoid"


@pytest.mark.parametrize("facts", [{"outputs": 1}, {"outputs": 1, "problem_type": "regression"}])
@pytest.mark.parametrize("labels", [(), ("score",), ("low", "high")])
def test_a_regression_is_refused_whatever_labels_are_named(facts: dict[str, Any], labels: tuple[str, ...]) -> None:
    with pytest.raises(SourceError, match=r"regression.*only labels can be served"):
        resolved(described(labels=labels), loaded(**facts), None)


def test_several_numbers_of_a_regression_are_no_labels() -> None:
    with pytest.raises(SourceError, match="only labels can be served"):
        resolved(described(activation="sigmoid"), loaded(2, problem_type="regression"), None)


def test_one_output_is_the_logit_of_the_second_of_two_labels() -> None:
    yes_or_no = described(activation="sigmoid", labels=("no", "yes"))
    assert resolved(yes_or_no, loaded(1), None).labels == ("no", "yes")
    multi = loaded(1, problem_type="multi_label_classification")
    assert resolved(described(labels=("no", "yes")), multi, None).activation == "sigmoid"
    with pytest.raises(SourceError, match="its sigmoid needs two labels"):
        resolved(described(), multi, None)


def test_labels_that_are_not_as_many_as_the_outputs_are_refused_with_both_numbers() -> None:
    with pytest.raises(SourceError, match=r"2 labels \(a, b\) for a model of 3 outputs"):
        resolved(described(labels=("a", "b")), loaded(3), None)


@pytest.mark.parametrize(
    ("tokenizer", "facts", "expected"),
    [
        (None, {}, 512),
        (32, {"positions": 64, "max_positions": 64}, 32),
        (512, {"positions": 512, "max_positions": 514}, 512),
        (None, {"positions": 512, "max_positions": 514}, 512),
        (None, {"max_positions": 2048}, 2048),
        (384, {}, 384),
    ],
)
def test_the_smallest_limit_is_the_longest_text(tokenizer: int | None, facts: dict[str, Any], expected: int) -> None:
    assert resolved(described(), loaded(**facts), tokenizer).max_tokens == expected


def test_more_tokens_than_the_model_has_positions_for_are_refused_with_the_number() -> None:
    roberta = loaded(positions=512, max_positions=514)
    assert resolved(described(max_tokens=512), roberta, 128).max_tokens == 512
    with pytest.raises(SourceError, match="max tokens 514: the model has positions for 512 tokens"):
        resolved(described(max_tokens=514), roberta, None)
