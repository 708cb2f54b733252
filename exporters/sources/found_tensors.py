"""Which tensor of a model file made elsewhere is which: said by its author, or found by name and shape.

Knows no framework: a file's reader says what the tensors are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lockstep.exporters.conversion import ATTENTION_MASK, INPUT_IDS, LENGTHS, LOGITS, SourceError
from lockstep.exporters.source import Role

_INTEGERS = ("int64", "int32")
_MASKS = ("mask",)
_LENGTHS = ("length", "seq_len", "sequence_len")
TOKEN_TYPES = ("token_type", "segment")
"""Parts of the names of inputs that are zero for a single text, and are folded into the graph."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An input or output of a file."""

    name: str
    dtype: str
    axes: int | None  # None: not said


@dataclass(frozen=True, slots=True)
class Found:
    """The file's own name of each of our tensors."""

    inputs: dict[str, Candidate]  # by our names, input_ids first
    logits: Candidate
    zeros: tuple[Candidate, ...]  # inputs of token types


def find(inputs: Sequence[Candidate], outputs: Sequence[Candidate], given: Mapping[Role, str]) -> Found:
    """Map a file's tensors to ours; raises `SourceError` that lists them where it cannot be told."""
    listed = f"its inputs are {_list(inputs)}, its outputs {_list(outputs)}"
    by_name = {candidate.name: candidate for candidate in inputs}
    named: dict[str, Candidate] = {}
    for role, name in given.items():
        among = {one.name: one for one in outputs} if role == LOGITS else by_name
        if name not in among:
            raise SourceError(f"no tensor {name!r} to be the {role}: {listed}")
        named[role] = among[name]
    left = [one for one in inputs if one not in named.values()]
    zeros = tuple(one for one in left if _like(one, TOKEN_TYPES))
    left = [one for one in left if one not in zeros]
    hints: tuple[tuple[Role, tuple[str, ...]], ...] = (("attention_mask", _MASKS), ("lengths", _LENGTHS))
    for role, parts in hints:
        if role not in named and (like := [one for one in left if one.name == role or _like(one, parts)]):
            if len(like) > 1:
                raise SourceError(f"more than one input may be the {role}, name it: {listed}")
            named[role] = like[0]
            left.remove(like[0])
    if LENGTHS not in named and (flat := [one for one in left if one.axes == 1]) and len(left) == 2 and len(flat) == 1:
        named[LENGTHS] = flat[0]
        left.remove(flat[0])
    if INPUT_IDS not in named and len(left) == 1:
        named[INPUT_IDS] = left.pop()
    if INPUT_IDS not in named or left:
        raise SourceError(f"it cannot be told which input is which, name them: {listed}")
    for candidate in named.values():
        if candidate.dtype == "string" and candidate is not named.get(LOGITS):
            raise SourceError(
                f"input {candidate.name!r} takes text, and this version exports models that take token ids: export the "
                f"part after its tokenization, with a tokenizer of the same words ({listed})"
            )
    for candidate in (*named.values(), *zeros):
        if candidate is not named.get(LOGITS) and candidate.dtype not in _INTEGERS:
            raise SourceError(f"input {candidate.name!r} is {candidate.dtype}, not int64 or int32: {listed}")
    if LOGITS not in named:
        like = [one for one in outputs if one.name == LOGITS] or list(outputs)
        if len(like) != 1:
            raise SourceError(f"it cannot be told which output holds the logits, name it: {listed}")
        named[LOGITS] = like[0]
    logits = named.pop(LOGITS)
    order = (INPUT_IDS, ATTENTION_MASK, LENGTHS)
    return Found({role: named[role] for role in order if role in named}, logits, zeros)


def _like(candidate: Candidate, parts: Sequence[str]) -> bool:
    return any(part in candidate.name.lower() for part in parts)


def _list(candidates: Sequence[Candidate]) -> str:
    return ", ".join(f"{one.name} ({one.dtype})" for one in candidates)
