"""Whether an artifact answers as its source does: pure judgement over arrays, no process and no clock.

Owns the bounds, the grid of batches and the verdict. `gate` executes what is planned here.

Vocabulary: *alone* is a row executed by itself, unpadded; *batched* the same row beside others; *scrambled*
the same batch with random valid ids beyond every row's end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lockstep.exporters.conversion import Outputs
from lockstep.exporters.gate.held_out import grid_lengths

IGNORES_END = "ignores where a row ends"
"""How the reason begins where padding changes an answer."""

BATCH_SIZES = (1, 2, 3, 5, 8, 16, 32, 64)
"""Rows of the grid's batches."""

_SPECIAL_ROWS = 31
"""Rows with special ids in one batch, beside a longer row."""

_BATCH_TOKENS = 4096
"""Padded tokens of a planned batch; only the grid's far corner (64 rows of the maximum) may exceed it."""


@dataclass(frozen=True, slots=True)
class Bound:
    """|got - expected| <= atol + rtol * |expected|."""

    atol: float = 5e-5
    rtol: float = 1e-5

    def margin(self, expected: Outputs) -> NDArray[np.float64]:
        """Return the difference allowed to each output, float64[...]."""
        allowed: NDArray[np.float64] = self.atol + self.rtol * np.abs(expected.astype(np.float64))
        return allowed


ACCURACY_POINTS = 0.1
"""How far an artifact's accuracy may be from its source's, in percentage points."""


@dataclass(frozen=True, slots=True)
class VariantBound:
    """What a variant is held to on held-out text instead: labels and accuracy."""

    label_agreement: float = 0.99
    accuracy_points: float = 0.5


@dataclass(frozen=True, slots=True)
class Failure:
    """The runtime refused a batch of this shape."""

    rows: int
    length: int
    message: str


@dataclass(frozen=True, slots=True)
class Batch:
    """A planned batch: rows of the pool by index; its length is its longest row's."""

    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Measured:
    """What the gate executed: one array a batch, in the order of the plan, up to the first failure if any."""

    alone: Outputs  # float32[pool, labels]: each row of the pool by itself
    batched: Sequence[Outputs]  # float32[rows of the batch, labels] each
    scrambled: Sequence[Outputs] | None  # None: the artifact derives its mask from the ids
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Agreement:
    """An artifact that answers as its source does, and by how much."""

    rows: int  # comparisons of a row
    batches: int
    max_abs_diff: float
    padding_invariance: float
    label_agreement: float


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the artifact must not be published: a sentence, and the first offending row."""

    reason: str


Describe = Callable[[int], str]
"""Pool index -> the row in words, for a refusal."""


def plan(lengths: Sequence[int], max_tokens: int, special: int = 0, seed: int = 0) -> tuple[Batch, ...]:
    """Return the batches of the grid over a pool of rows of these lengths (tokens).

    Every batch size meets lengths from the shortest to the maximum: one row has the batch's length, the
    others are of any length up to it. The pool must hold a row of every length of the grid. Its last `special` rows
    are each in one more batch, beside a longer row.
    """
    generator = np.random.default_rng(seed)
    sizes = np.array(lengths)
    batches = []
    plain = len(lengths) - special
    for start in range(plain, len(lengths), _SPECIAL_ROWS):
        part = range(start, min(start + _SPECIAL_ROWS, len(lengths)))
        wanted = min(max_tokens, 2 * max(lengths[index] for index in part))
        beside = next(index for index in range(plain) if lengths[index] >= wanted)
        batches.append(Batch(tuple(int(i) for i in generator.permutation([beside, *part]))))
    for size in BATCH_SIZES:
        for length in grid_lengths(max_tokens):
            corner = size == BATCH_SIZES[-1] and length == max_tokens
            if size * length > _BATCH_TOKENS and not corner:
                continue
            longest = generator.choice(np.flatnonzero(sizes == length))
            others = generator.choice(np.flatnonzero(sizes <= length), size - 1)
            batches.append(Batch(tuple(int(i) for i in generator.permutation([longest, *others]))))
    return tuple(batches)


def judge(
    batches: Sequence[Batch],
    lengths: Sequence[int],
    source: Outputs,
    measured: Measured,
    describe: Describe,
    bound: Bound,
) -> Agreement | Refusal:
    """Hold what the artifact answered against the source's outputs float32[pool, labels].

    Checks in this order, so that the reason given is the cause: a refused batch, the shape, finite numbers,
    each row alone against the source, batched against alone, scrambled against alone, batched against the
    source.
    """
    if measured.failure is not None:
        return Refusal(_failed(measured.failure))
    alone = measured.alone
    if alone.shape != source.shape:
        return Refusal(f"answers {alone.shape[1]} labels where the source answers {source.shape[1]}")
    for index in range(len(alone)):
        if not np.isfinite(alone[index]).all():
            return Refusal(f"answers NaN or Inf: {describe(index)} alone: {_shown(alone[index])}")
    wrong = _first_beyond(source, alone, bound)
    if wrong is not None:
        return Refusal(
            f"differs from the source: {describe(wrong)} alone (batch 1, length {lengths[wrong]}): "
            f"expected {_shown(source[wrong])}, got {_shown(alone[wrong])}"
        )
    flipped = _first_flipped(source, alone, bound)
    if flipped is not None:
        return Refusal(f"gives another label than the source: {describe(flipped)} alone")
    kinds: Mapping[str, Sequence[Outputs]] = {
        "with padding beside longer rows": measured.batched,
        "with random ids beyond its end": measured.scrambled or (),
    }
    invariance = difference = 0.0
    difference = max(difference, _largest(source, alone))
    compared, agreed = len(alone), int(np.sum(source.argmax(1) == alone.argmax(1)))
    for kind, answers in kinds.items():
        for batch, got in zip(batches, answers, strict=False):
            rows = list(batch.rows)
            where = f"(batch {len(rows)}, length {max(lengths[index] for index in rows)})"
            if got.shape != (len(rows), source.shape[1]):
                return Refusal(f"answers {list(got.shape)} for {len(rows)} rows {where}")
            if not np.isfinite(got).all():
                bad = int(np.flatnonzero(~np.isfinite(got).all(axis=1))[0])
                return Refusal(f"answers NaN or Inf: {describe(rows[bad])} {kind} {where}: {_shown(got[bad])}")
            bad_row = _first_beyond(alone[rows], got, bound)
            if bad_row is not None:
                index = rows[bad_row]
                return Refusal(
                    f"{IGNORES_END} (the mask or the lengths): {describe(index)}, {lengths[index]} "
                    f"tokens: alone {_shown(alone[index])}, {kind} {where} {_shown(got[bad_row])}"
                )
            bad_row = _first_beyond(source[rows], got, bound)
            if bad_row is None:
                bad_row = _first_flipped(source[rows], got, bound)
            if bad_row is not None:
                index = rows[bad_row]
                return Refusal(
                    f"differs from the source in a batch: {describe(index)} {where}: "
                    f"expected {_shown(source[index])}, got {_shown(got[bad_row])}"
                )
            invariance = max(invariance, _largest(alone[rows], got))
            difference = max(difference, _largest(source[rows], got))
            compared += len(rows)
            agreed += int(np.sum(source[rows].argmax(1) == got.argmax(1)))
    executed = len(measured.batched) + len(measured.scrambled or ())
    return Agreement(compared, len(alone) + executed, difference, invariance, agreed / compared)


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Share of labelled rows with the true label, 0..1; None where no row is labelled."""

    all: float | None
    sentences: float | None


def accuracy(outputs: Outputs, labels: NDArray[np.int64], sentences: NDArray[np.bool_]) -> Accuracy:
    """Return the accuracy of outputs float32[rows, labels] against labels int64[rows] (-1: unlabelled)."""
    known = labels >= 0
    right = outputs.argmax(axis=1) == labels

    def share(chosen: NDArray[np.bool_]) -> float | None:
        return float(np.mean(right[chosen])) if chosen.any() else None

    return Accuracy(share(known), share(known & sentences))


def judge_variant(source: Outputs, answers: Sequence[Outputs], bound: VariantBound) -> float | Refusal:
    """Return the share of rows, float32[rows, labels], whose label is the source's: the least over several runs."""
    least = 1.0
    for got in answers:
        if got.shape != source.shape:
            return Refusal(f"answers {got.shape[1]} labels where the source answers {source.shape[1]}")
        if not np.isfinite(got).all():
            return Refusal("answers NaN or Inf on held-out text")
        least = min(least, float(np.mean(got.argmax(axis=1) == source.argmax(axis=1))))
    if least < bound.label_agreement:
        return Refusal(
            f"gives the source's label to {least:.2%} of the held-out rows; {bound.label_agreement:.0%} are due"
        )
    return least


def judge_accuracy(source: Accuracy, artifact: Accuracy, points: float = ACCURACY_POINTS) -> Refusal | None:
    """Refuse an artifact whose accuracy is further from its source's than this many percentage points."""
    for name, expected, got in (
        ("the held-out rows", source.all, artifact.all),
        ("the held-out sentences", source.sentences, artifact.sentences),
    ):
        if expected is None or got is None:
            continue
        if abs(got - expected) * 100 > points + 1e-9:
            return Refusal(f"accuracy on {name} is {got:.2%}, the source's {expected:.2%}")
    return None


def _failed(failure: Failure) -> str:
    shape = f"batch {failure.rows}, length {failure.length}"
    return f"the runtime cannot execute every shape, so an axis is frozen: it refused {shape}: {failure.message}"


def _first_beyond(expected: Outputs, got: Outputs, bound: Bound) -> int | None:
    difference = np.abs(got.astype(np.float64) - expected)
    beyond = (difference > bound.margin(expected)).any(axis=1)
    return int(np.argmax(beyond)) if beyond.any() else None


def _first_flipped(expected: Outputs, got: Outputs, bound: Bound) -> int | None:
    """Return the first row whose label differs though the source's margin exceeds the bound."""
    if expected.shape[1] < 2:
        return None
    ordered = np.sort(expected.astype(np.float64), axis=1)
    clear = ordered[:, -1] - ordered[:, -2] > bound.margin(expected).max(axis=1)
    flipped = clear & (expected.argmax(axis=1) != got.argmax(axis=1))
    return int(np.argmax(flipped)) if flipped.any() else None


def _largest(expected: Outputs, got: Outputs) -> float:
    return float(np.max(np.abs(got.astype(np.float64) - expected), initial=0.0))


def _shown(row: NDArray[np.float32]) -> str:
    return "[" + ", ".join(f"{value:.6g}" for value in row) + "]"
