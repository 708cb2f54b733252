"""Why a source fails: each cause is established by trying, and what no probe establishes is not guessed."""

from collections.abc import Callable

import numpy as np
import pytest

from lockstep.exporters.conversion import Ids, Lengths, Outputs, SourceError
from lockstep.exporters.sources.source_probe import Probe, check_repeatable

MAX_TOKENS, VOCABULARY = 40, 23


def source(fails: Callable[[Ids], bool]) -> Callable[[Ids, Lengths], Outputs]:
    def run(ids: Ids, lengths: Lengths) -> Outputs:
        if fails(ids):
            raise RuntimeError("no")
        return np.zeros((len(ids), 2), dtype=np.float32)

    return run


def cause(fails: Callable[[Ids], bool], rows: int = 2, length: int = 3, highest: int = 5) -> str | None:
    ids = np.resize(np.arange(1, highest + 1), (rows, length)).astype(np.int64)
    assert fails(ids)
    return Probe(source(fails), ids, MAX_TOKENS, VOCABULARY).cause()


@pytest.mark.parametrize(
    ("fails", "batch", "told"),
    [
        (lambda ids: ids.shape[1] < 7, {"length": 1}, "it answers rows of 7 tokens and more, not of 6"),
        (lambda ids: ids.shape[1] < 2, {"length": 1}, "it answers rows of 2 tokens and more, not of 1"),
        (
            lambda ids: ids.shape[1] > 30,
            {"length": 40},
            "it answers rows of up to 30 tokens, not of 31: give --max-tokens 30",
        ),
        (lambda ids: ids.shape[1] != 32, {}, "it answers rows of exactly 32 tokens, and no others"),
        (lambda ids: ids.shape[1] != 37, {}, "it answers rows of exactly 37 tokens, and no others"),
        (lambda ids: ids.shape[0] != 1, {}, "it answers each row alone, not 2 at once: its batch axis is fixed"),
        (lambda ids: ids.shape[0] == 1, {"rows": 1}, "it answers two rows, not one: a row alone loses its batch axis"),
        (
            lambda ids: ids.max() >= 9,
            {"highest": 12, "length": 12},
            "of id 8, not of id 9, and the tokenizer makes ids up to 22",
        ),
        (lambda ids: ids.max() >= 22, {"highest": 22, "length": 22}, "its embedding has 22 rows and needs 23"),
    ],
)
def test_a_cause_is_established_by_trying(fails: Callable[[Ids], bool], batch: dict[str, int], told: str) -> None:
    found = cause(fails, **batch)
    assert found is not None
    assert told in found


@pytest.mark.parametrize("fails", [lambda ids: True, lambda ids: bool((ids == 3).any() and (ids == 2).any())])
def test_what_no_probe_establishes_is_not_guessed(fails: Callable[[Ids], bool]) -> None:
    assert cause(fails) is None


def test_rows_that_are_answered_by_infinity_count_as_not_answered() -> None:
    """A pooling over nothing answers -inf where a convolution is wider than the row."""

    def run(ids: Ids, lengths: Lengths) -> Outputs:
        if ids.shape[1] < 2:
            raise RuntimeError("no")
        return np.full((len(ids), 2), 0.0 if ids.shape[1] >= 7 else -np.inf, dtype=np.float32)

    found = Probe(run, np.ones((1, 1), dtype=np.int64), MAX_TOKENS, VOCABULARY).cause()
    assert found is not None
    assert "it answers rows of 7 tokens and more, not of 6" in found


def test_a_source_that_answers_otherwise_when_asked_again_is_refused() -> None:
    random = np.random.default_rng(0)
    ids = np.ones((4, 3), dtype=np.int64)

    def run(ids: Ids, lengths: Lengths) -> Outputs:
        return random.normal(size=(len(ids), 2)).astype(np.float32)

    with pytest.raises(SourceError, match="answers the same rows differently when it is asked again"):
        check_repeatable(run, ids, run(ids, ids))
    steady = source(lambda ids: False)
    check_repeatable(steady, ids, steady(ids, ids))
