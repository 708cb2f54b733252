"""Which tensor of a file made elsewhere is which."""

from __future__ import annotations

import pytest

from lockstep.exporters.conversion import SourceError
from lockstep.exporters.sources.found_tensors import Candidate, find

LOGITS = [Candidate("scores", "float32", 2)]


def ids(name: str = "tokens", dtype: str = "int64") -> Candidate:
    return Candidate(name, dtype, 2)


def test_names_tell_masks_and_lengths_and_what_is_left_is_the_ids() -> None:
    mask, lengths = ids("padding_mask", "int32"), Candidate("seq_len", "int64", 1)
    found = find([lengths, mask, ids("x")], LOGITS, {})
    assert {ours: one.name for ours, one in found.inputs.items()} == {
        "input_ids": "x",
        "attention_mask": "padding_mask",
        "lengths": "seq_len",
    }
    assert found.logits.name == "scores"


def test_of_two_inputs_the_flat_one_is_the_lengths() -> None:
    found = find([Candidate("n", "int32", 1), ids("x")], LOGITS, {})
    assert found.inputs["lengths"].name == "n"


def test_token_types_are_folded() -> None:
    found = find([ids(), ids("token_type_ids"), ids("attention_mask")], LOGITS, {})
    assert [one.name for one in found.zeros] == ["token_type_ids"]


def test_what_its_author_says_comes_first() -> None:
    found = find(
        [ids("a"), ids("b")], [*LOGITS, Candidate("extra", "float32", 2)], {"attention_mask": "a", "logits": "extra"}
    )
    assert (found.inputs["input_ids"].name, found.inputs["attention_mask"].name) == ("b", "a")
    assert found.logits.name == "extra"


@pytest.mark.parametrize(
    ("inputs", "outputs", "given", "message"),
    [
        ([ids("a"), ids("b")], LOGITS, {}, "which input is which"),
        ([ids("mask1"), ids("mask2"), ids()], LOGITS, {}, "more than one input may be the attention_mask"),
        ([ids()], [*LOGITS, *LOGITS], {}, "which output holds the logits"),
        ([ids()], LOGITS, {"logits": "none"}, "no tensor 'none' to be the logits: its inputs are tokens"),
        ([ids(dtype="float32")], LOGITS, {}, "is float32, not int64 or int32"),
    ],
    ids=["two alike", "two masks", "two outputs", "a name that is not there", "ids that are no integers"],
)
def test_what_cannot_be_told_is_an_error_that_lists_the_tensors(
    inputs: list[Candidate], outputs: list[Candidate], given: dict[str, str], message: str
) -> None:
    with pytest.raises(SourceError, match=message):
        find(inputs, outputs, given)  # type: ignore[arg-type]
