"""The use case of comparing: the same texts to several backends at once, and compares their answers.

Every backend is asked by a pinned request of the ordinary kind, so it queues, batches and fails as any other does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lockstep.server.core.errors import (
    BackendUnavailable,
    DeadlineExceeded,
    InvalidInput,
    LockstepError,
    ModelNotFound,
    ModelNotReady,
)
from lockstep.server.core.messages import Answer, ModelRef, Prediction, PredictRequest
from lockstep.server.gateway import Gateway, ServedModel
from lockstep.server.scheduling.backend import Backend

_OF_BACKEND = (BackendUnavailable, ModelNotReady, DeadlineExceeded)
_MOST_TO_ANSWER_NS = 1_000_000_000
_Probabilities = NDArray[np.float64]  # [text, label]; NaN where the text has no answer


@dataclass(frozen=True, slots=True)
class CompareRequest:
    """Texts for several backends of a model."""

    model: str
    texts: Sequence[str]
    backends: Sequence[str]  # empty: all of the model's
    received_ns: int
    decoded_ns: int
    truncate: bool = False
    priority: int = 0  # higher goes first
    deadline_ns: int | None = None  # monotonic


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far answers are apart, over the texts that were answered on both sides."""

    texts: int = 0  # compared
    largest_difference: float = 0.0  # between two probabilities of one label of one text
    labels_differ: int = 0  # texts that were not given one and the same label


@dataclass(frozen=True, slots=True)
class BackendAnswers:
    """What became of one backend's texts."""

    backend: str
    held_to_float32: bool  # published by the gate's bound on every logit; else a variant, such as int8
    outcome: Prediction | LockstepError
    agreement: Agreement  # with the reference


@dataclass(frozen=True, slots=True)
class Comparison:
    """All backends' answers."""

    model: str
    version: int
    labels: tuple[str, ...]
    backends: Sequence[BackendAnswers]
    reference: str | None  # the backend that others are measured from; None: none answered
    agreement: Agreement  # among the backends that are held to float32


async def compare(gateway: Gateway, request: CompareRequest) -> Comparison:
    """Ask the backends; one that fails, or is late, has its error, and the others answer.

    Raises `InvalidInput`, `ModelNotFound`, `BackendNotFound` where nobody can be asked.
    """
    ref = _model_only(request.model)
    served = gateway.model(ref)
    names = _backends(served, request.backends)
    texts = len(request.texts)
    gateway.check_rows(texts * len(names), f" ({texts} texts x {len(names)} backends)")
    version = served.manifest.version
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(
                _ask(gateway, request, ModelRef(served.manifest.name, version, name), served.batcher.backend(name))
            )
            for name in names
        ]
    outcomes = {name: task.result() for name, task in zip(names, tasks, strict=True)}
    if any(isinstance(one, ModelNotFound) for one in outcomes.values()) and gateway.model(ref) is not served:
        return await compare(gateway, request)  # another version took over before the backends were asked
    labels = len(served.labels)
    answered = {name: _probabilities(outcome, texts, labels) for name, outcome in outcomes.items()}
    exact = {name for name in names if _held_to_float32(served, name)}
    reference = _reference(served, answered, exact)
    return Comparison(
        model=served.manifest.name,
        version=version,
        labels=served.labels,
        backends=[
            BackendAnswers(
                backend=name,
                held_to_float32=name in exact,
                outcome=outcome,
                agreement=agreement([answered[reference], answered[name]]) if reference else Agreement(),
            )
            for name, outcome in outcomes.items()
        ],
        reference=reference,
        agreement=agreement([answered[name] for name in names if name in exact]),
    )


def agreement(answers: Sequence[_Probabilities]) -> Agreement:
    """Compare the answers of several backends to the same texts, where at least two have one."""
    if len(answers) < 2:
        return Agreement()
    known = np.stack(answers)  # [backend, text, label]
    known = known[:, (~np.isnan(known[..., 0])).sum(axis=0) >= 2]
    if not known.shape[1]:
        return Agreement()
    label = np.where(np.isnan(known), -np.inf, known).argmax(axis=2)  # [backend, text]
    counts = ~np.isnan(known[..., 0])
    lowest = np.where(counts, label, known.shape[2]).min(axis=0)
    highest = np.where(counts, label, -1).max(axis=0)
    return Agreement(
        texts=known.shape[1],
        largest_difference=float((np.nanmax(known, axis=0) - np.nanmin(known, axis=0)).max()),
        labels_differ=int((lowest != highest).sum()),
    )


async def _ask(
    gateway: Gateway, request: CompareRequest, ref: ModelRef, backend: Backend
) -> Prediction | LockstepError:
    """Ask one backend; where no row could be executed because of it, that is its error."""
    try:
        prediction = await gateway.predict(
            PredictRequest(
                ref=ref,
                rows=request.texts,
                received_ns=request.received_ns,
                decoded_ns=request.decoded_ns,
                truncate=request.truncate,
                priority=request.priority,
                deadline_ns=_deadline_of_rows_ns(request),
            )
        )
    except LockstepError as error:
        return error
    faults = [outcome for outcome in prediction.outcomes if isinstance(outcome, _OF_BACKEND)]
    if len(faults) < len(prediction.outcomes):
        return prediction
    if isinstance(faults[0], DeadlineExceeded) and backend.starting and not backend.ready:
        return DeadlineExceeded("the backend was still starting when the time was over: ask again, or with more time")
    return faults[0]


def _deadline_of_rows_ns(request: CompareRequest) -> int | None:
    """Return until when rows are waited for: short of the call's deadline, so that who answered in time is told."""
    if request.deadline_ns is None:
        return None
    return request.deadline_ns - min(_MOST_TO_ANSWER_NS, (request.deadline_ns - request.received_ns) // 10)


def _model_only(name: str) -> ModelRef:
    ref = ModelRef.parse(name)
    if ref.backend:
        raise InvalidInput(f"{name} names one backend: name the model alone, and those to compare in `backends`")
    return ref


def _backends(served: ServedModel, wanted: Sequence[str]) -> list[str]:
    if not wanted:
        return [backend.name for backend in served.batcher.backends]
    names = [served.batcher.backend(name).name for name in wanted]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InvalidInput(f"{', '.join(twice)} is named twice: name each backend once")
    return names


def _held_to_float32(served: ServedModel, name: str) -> bool:
    return served.artifact(served.batcher.backend(name)).parity.atol is not None


def _reference(served: ServedModel, answered: Mapping[str, _Probabilities], exact: set[str]) -> str | None:
    """Choose whom to measure from: the preferred backend, or else one held to float32, of those that answered."""
    preferred = served.batcher.preferred
    some = [name for name, probabilities in answered.items() if not np.isnan(probabilities).all()]
    order = sorted(some, key=lambda name: (preferred is None or name != preferred.name, name not in exact))
    return order[0] if order else None


def _probabilities(outcome: Prediction | LockstepError, texts: int, labels: int) -> _Probabilities:
    if isinstance(outcome, LockstepError):
        return np.full((texts, labels), np.nan)
    nothing = [np.nan] * labels
    rows = [row.probabilities if isinstance(row, Answer) else nothing for row in outcome.outcomes]
    return np.array(rows, dtype=np.float64)
