"""What a source's output means: logits or probabilities, of a softmax or of a sigmoid.

Found, not believed: from the operator that the source ends in, where it can be seen (`Ending`), and from what the
source answered. What was declared is checked against both, since a source and an artifact that share a wrong
declaration agree with each other. Pure: arrays in, a meaning or a `SourceError` out.

What the answers establish:

- a number outside [0, 1], or a row that does not sum to 1: these are not (softmax) probabilities;
- several columns, every row a distribution: these are not logits, whose rows sum to 1 by no accident;
- numbers within [0, 1] that are no distribution, from an operator that cannot be seen: nothing, so the author is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from lockstep.exporters.conversion import Ending, Outputs, SourceError, SourceFiles
from lockstep.exporters.source import Activation, Framework, Output
from lockstep.server.core.probabilities import ROUNDING, SUM_TOLERANCE

_DISTRIBUTION = 1e-5
"""How far from 1 the rows of what is taken for a distribution may sum: float32's rounding."""

_SHOWN_NUMBERS = 6

_OUTPUT, _ACTIVATION = "`output` in description.json", "`activation` in description.json"

DescribeRow = Callable[[int], str]
"""From the index of an answer to the row that it is of, in words."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a source's output means, and how that is known."""

    output: Output
    activation: Activation  # as in a description: a single column is of a sigmoid
    evidence: str  # a clause: "it ends in Softmax (dense/Softmax)"

    @property
    def sentence(self) -> str:
        """Return it for people."""
        what = f"logits, turned into probabilities by a {self.activation}"
        if self.output == "probabilities":
            what = f"probabilities of a {self.activation}"
        return f"its output is {what}: {self.evidence}"


def find(columns: Outputs, files: SourceFiles, ending: Ending | None, describe: DescribeRow) -> Meaning:
    """Return what a source's answers float32[rows, columns] mean, of which `files` says what was declared.

    Raises `SourceError` where the columns do not fit the labels, where a declaration is wrong, and where neither
    the answers nor the graph tell what nobody declared.
    """
    _check_label_numbers(columns)
    _check_columns(columns.shape[1], files.labels)
    if ending is not None:
        _check_ending(columns, ending, describe)
    seen = _Answers(columns, describe)
    if seen.scale is not None and len(columns) > 1:
        raise SourceError(
            f"each of the source's {seen.count} answers is of numbers from 0 that sum to {seen.scale:.6g}: a "
            "distribution times a number. Let it answer the distribution itself, which sums to 1, or logits"
        )
    output, why = _output(seen, files, ending)
    if output == "logits":
        return Meaning(output, _activation_of_logits(seen, files.activation, ending), why)
    return Meaning(output, _activation_of_probabilities(seen, files.activation, ending), why)


def labelled(columns: Outputs, meaning: Meaning, labels: int) -> Outputs:
    """Return float32[rows, labels]: a single column p or z becomes [1 - p, p] or [0, z].

    The reference's own computation of it: each artifact does the same in its framework, and is compared with this.
    """
    if columns.shape[1] == labels:
        return columns
    other = np.float32(1) - columns if meaning.output == "probabilities" else np.zeros_like(columns)
    return np.concatenate([other, columns], axis=1)


class _Answers:
    """What a source answered, and what that establishes."""

    def __init__(self, columns: Outputs, describe: DescribeRow) -> None:
        wide = columns.astype(np.float64)
        self._columns, self._describe = columns, describe
        self._outside = ((wide < -ROUNDING) | (wide > 1 + ROUNDING)).any(axis=1)
        self._off = np.abs(wide.sum(axis=1) - 1)
        self.single = columns.shape[1] == 1
        self.within = not self._outside.any()
        self.distribution = not self.single and self.within and bool((self._off <= _DISTRIBUTION).all())
        self.sums_to_one = not self.single and self.within and bool((self._off <= SUM_TOLERANCE).all())
        logarithms = not self.single and bool((wide <= ROUNDING).all())
        sums = wide.sum(axis=1)
        self.scale = None if self.single or not self._scaled(wide, sums) else float(sums[0])
        self.log_distribution = logarithms and bool((np.abs(np.exp(wide).sum(axis=1) - 1) <= _DISTRIBUTION).all())

    @staticmethod
    def _scaled(wide: NDArray[np.float64], sums: NDArray[np.float64]) -> bool:
        """Return whether rows are a distribution times a number, such as percentages."""
        close = np.abs(sums - sums[0]) <= _DISTRIBUTION * np.abs(sums[0])
        return bool((wide >= 0).all() and close.all() and sums[0] > 0 and abs(sums[0] - 1) > SUM_TOLERANCE)

    @property
    def count(self) -> int:
        return len(self._columns)

    def outside(self) -> str:
        """Return the first answer that leaves [0, 1], and the row that it is of."""
        return self._answer(int(np.argmax(self._outside)))

    def furthest(self) -> str:
        """Return the answer whose sum is furthest from 1, and the row that it is of."""
        return self._answer(int(np.argmax(self._off)))

    def _answer(self, index: int) -> str:
        return f"{_shown(self._columns[index])} to {self._describe(index)}"


def _check_label_numbers(columns: Outputs) -> None:
    """Refuse a column of the number of each row's label: nothing that could be scored, and no label of its own."""
    if columns.shape[1] == 1 and (columns == np.round(columns)).all() and len(np.unique(columns)) > 1:
        numbers = ", ".join(f"{number:g}" for number in np.unique(columns)[:_SHOWN_NUMBERS])
        raise SourceError(
            f"the source answers a whole number to every text ({numbers}): the number of a label, not its score. Give "
            "the output that holds the scores (--logits of a model file), or a model that answers them"
        )


def _check_columns(columns: int, labels: int) -> None:
    if columns == labels or (columns == 1 and labels == 2):
        return
    needed = "two labels, as a single sigmoid column needs" if columns == 1 else f"{columns} labels"
    raise SourceError(
        f"the source answers {columns} {'column' if columns == 1 else 'columns'} for {labels} labels: name {needed} "
        "(--labels, `labels` in description.json), in the order of the columns, or give a model that answers a column "
        "for each label"
    )


def _check_ending(columns: Outputs, ending: Ending, describe: DescribeRow) -> None:
    """Refuse an ending whose answers cannot be served, whatever was declared."""
    if columns.shape[1] == 1 and ending.kind in ("softmax", "log_softmax"):
        raise SourceError(
            f"the source ends in {ending.where} over a single column, which answers the same to every text: end it in "
            "a sigmoid, or in a column for each label"
        )
    if ending.kind == "log_sigmoid":
        raise SourceError(
            f"the source ends in {ending.where}: its answers are logarithms of probabilities, which cannot be served; "
            "end it in the sigmoid itself, or in the logits before it"
        )
    seen = _Answers(columns, describe)
    if ending.kind == "softmax" and not seen.sums_to_one:
        raise SourceError(
            f"the source ends in {ending.where}, but its answer {seen.furthest()} does not sum to 1: the softmax must "
            "run over the labels, which are the last axis"
        )


def _output(seen: _Answers, files: SourceFiles, ending: Ending | None) -> tuple[Output, str]:
    found, declared = _found_output(seen, ending), files.output
    if found is None and files.framework is Framework.HUGGINGFACE:
        found = "logits", "the library's classifiers answer them"
    if declared is None:
        if found is None:
            _ask_for_output(seen)
        return found
    if declared == "probabilities" and not seen.within:
        raise SourceError(
            f"the source answers {seen.outside()}, which are not probabilities: --output probabilities ({_OUTPUT}) is "
            "wrong. Leave it out, or say --output logits"
        )
    kind = ending.kind if ending else None
    if found is None or (found[0] != declared and kind == "affine" and not seen.distribution):
        return declared, "as declared"  # nothing that is established contradicts it
    if found[0] != declared:
        twice = " (they would be turned into probabilities a second time)" if declared == "logits" else ""
        raise SourceError(
            f"the source's answers are {found[0]}: {found[1]}. So --output {declared} ({_OUTPUT}) is wrong{twice}. "
            f"Leave it out, or say --output {found[0]}"
        )
    return found


def _found_output(seen: _Answers, ending: Ending | None) -> tuple[Output, str] | None:
    """Return what the answers are and why; None where nothing tells."""
    kind = ending.kind if ending else None
    if ending and kind in ("softmax", "sigmoid"):
        return "probabilities", f"it ends in {ending.where}"
    if ending and kind == "log_softmax":
        return "logits", f"it ends in {ending.where}, whose softmax are the probabilities"
    if seen.distribution:
        return "probabilities", f"each of its {seen.count} answers is a distribution, of numbers from 0 that sum to 1"
    if not seen.within:
        return "logits", f"it answers {seen.outside()}, which are not probabilities"
    if ending and kind == "affine":
        return "logits", f"it ends in {ending.where}, whose numbers have no bounds"
    return None


def _ask_for_output(seen: _Answers) -> NoReturn:
    what = "a single number, the probability of a sigmoid or a logit" if seen.single else "numbers"
    flags = (
        "--output probabilities or --output logits"
        if seen.single
        else (
            "--output probabilities --activation sigmoid if each label has a probability of its own, or --output logits"
        )
    )
    raise SourceError(
        f"it cannot be told what the source's output means: each of its {seen.count} answers is {what} between 0 and "
        f"1, and the operator that computes it is none of those that tell. Say {flags} ({_OUTPUT})"
    )


def _activation_of_logits(seen: _Answers, declared: Activation | None, ending: Ending | None) -> Activation:
    if seen.single:
        _refuse_softmax_of_one(declared)
        return "sigmoid"
    logarithms = seen.log_distribution or (ending is not None and ending.kind == "log_softmax")
    if logarithms and declared == "sigmoid":
        raise SourceError(
            "the source's answers are logarithms of a distribution, which a softmax turns back into it: --activation "
            f"sigmoid ({_ACTIVATION}) is wrong. Leave it out, or say --activation softmax"
        )
    return declared or "softmax"


def _activation_of_probabilities(seen: _Answers, declared: Activation | None, ending: Ending | None) -> Activation:
    if seen.single:
        _refuse_softmax_of_one(declared)
        return "sigmoid"
    kind = ending.kind if ending else None
    if seen.sums_to_one and kind != "sigmoid":
        if declared == "sigmoid":
            raise SourceError(
                f"each of the source's {seen.count} answers sums to 1, so its labels exclude each other: --activation "
                f"sigmoid ({_ACTIVATION}) is wrong. Leave it out, or say --activation softmax"
            )
        return "softmax"
    if declared == "softmax" or (declared is None and kind != "sigmoid"):
        if seen.sums_to_one:
            return "softmax"
        raise SourceError(
            f"the source answers {seen.furthest()}, which does not sum to 1, as probabilities of a softmax do. If each "
            f"label has a probability of its own, say --activation sigmoid ({_ACTIVATION})"
        )
    return declared or ("softmax" if seen.distribution else "sigmoid")


def _refuse_softmax_of_one(declared: Activation | None) -> None:
    if declared == "softmax":
        raise SourceError(
            f"the source answers a single column, which has no softmax: --activation softmax ({_ACTIVATION}) is wrong. "
            "Leave it out, or say --activation sigmoid: the column is of the second label"
        )


def _shown(answer: Outputs) -> str:
    numbers = ", ".join(f"{value:.4g}" for value in answer[:_SHOWN_NUMBERS])
    return f"[{numbers}{', …' if len(answer) > _SHOWN_NUMBERS else ''}]"
