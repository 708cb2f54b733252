"""The use cases of the server: predict, describe. Knows no wire and no framework.

A call's life here: find the model, check limits (bytes, then tokens), tokenise, queue, wait, answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from server.core.errors import InputTooLong, InvalidInput, LockstepError, ModelNotFound
from server.core.messages import Encoding, Ids, ModelRef, Outcome, Prediction, PredictRequest
from server.core.observer import Observer
from server.core.timing import now_ns
from server.repository.catalog import PublishedModel, Refused
from server.repository.manifest import Manifest
from server.scheduling.backend import Backend
from server.scheduling.batcher import Batcher
from server.text.encoder import TextEncoder

_TOKENIZE_OFF_LOOP_CHARACTERS = 16_384
"""Longer calls are tokenised in a thread: they would hold up the others for more than a few milliseconds."""


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Bounds of one call."""

    max_rows: int
    max_text_bytes: int


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that is served: what was published, its tokenizer, its queue."""

    published: PublishedModel
    encoder: TextEncoder
    batcher: Batcher

    @property
    def manifest(self) -> Manifest:
        """What was published."""
        return self.published.manifest


class Gateway:
    """The models of a server, and what can be asked of them."""

    def __init__(
        self,
        models: Mapping[str, ServedModel],
        refused: Mapping[str, Refused],
        limits: RequestLimits,
        observer: Observer,
        *,
        clock_ns: Callable[[], int] = now_ns,
    ) -> None:
        self.models = models
        self.refused = refused
        self._limits = limits
        self._observer = observer
        self._clock_ns = clock_ns

    @property
    def ready(self) -> bool:
        """Whether every accepted model has a backend that can execute."""
        return all(model.batcher.ready for model in self.models.values())

    def model(self, ref: ModelRef) -> ServedModel:
        """Find a model; a call that names none gets the only one. Raises `ModelNotFound`."""
        if not ref.model and len(self.models) == 1:
            return next(iter(self.models.values()))
        if ref.model in self.refused:
            raise ModelNotFound(f"model {ref.model} was refused: {self.refused[ref.model].reason}")
        served = self.models.get(ref.model)
        if served is None:
            known = ", ".join(sorted(self.models)) or "none"
            raise ModelNotFound(f"no model {ref.model!r} is served; served are: {known}")
        if ref.version is not None and ref.version != served.manifest.version:
            raise ModelNotFound(f"{ref.model} is served in version {served.manifest.version}, not {ref.version}")
        return served

    def backend(self, ref: ModelRef) -> Backend:
        """Find the backend that a name pins to. Raises `ModelNotFound`, `BackendNotFound`."""
        return self.model(ref).batcher.backend(ref.backend or "")

    def is_ready(self, ref: ModelRef) -> bool:
        """Whether the model, or the backend that is named, can execute now. Raises as `model` and `backend`."""
        return self.backend(ref).ready if ref.backend else self.model(ref).batcher.ready

    async def predict(self, request: PredictRequest) -> Prediction:
        """Answer every row of a request.

        A row that is at fault has its error among the outcomes, unless the request is `all_or_none`: then
        the first such row fails the call, and is named. Raises what concerns the whole call: `ModelNotFound`,
        `BackendNotFound`, `ModelNotReady`, `BackendUnavailable`, `Overloaded`, `InvalidInput`. Cancelling it
        takes its waiting rows out of the queue.
        """
        try:
            served = self.model(request.ref)
            prediction = await self._predict(served, request)
        except LockstepError as error:
            version = self.models[request.ref.model].manifest.version if request.ref.model in self.models else 0
            name = request.ref.model if version else ""  # a caller's invention must not become a label
            backend = request.ref.backend if version and self._has_backend(name, request.ref.backend) else None
            elapsed_ns = self._clock_ns() - request.received_ns
            self._observer.call_failed(name, version, backend, type(error).__name__, elapsed_ns)
            raise
        self._observer.call_finished(prediction)
        return prediction

    async def _predict(self, served: ServedModel, request: PredictRequest) -> Prediction:
        if not request.rows:
            raise InvalidInput("the call holds no rows: send at least one")
        if len(request.rows) > self._limits.max_rows:
            raise InvalidInput(
                f"the call holds {len(request.rows)} rows, at most {self._limits.max_rows} are taken: send fewer a call"
            )
        encoded = await self._encode(served, request)
        tokenized_ns = self._clock_ns()
        if request.all_or_none:
            _raise_first(encoded)
        sound = [index for index, row in enumerate(encoded) if isinstance(row, Encoding)]
        outcomes: list[Outcome | None] = [row if isinstance(row, LockstepError) else None for row in encoded]
        if sound:
            call = served.batcher.submit(
                [row for row in encoded if isinstance(row, Encoding)],
                arrival_ns=tokenized_ns,
                backend=request.ref.backend,
                priority=request.priority,
                deadline_ns=request.deadline_ns,
            )
            try:
                await call.done
            except asyncio.CancelledError:
                served.batcher.abandon(call)
                raise
            for index, outcome in zip(sound, call.outcomes, strict=True):
                outcomes[index] = outcome
        if request.all_or_none:
            _raise_first(outcomes)
        return Prediction(
            model=served.manifest.name,
            version=served.manifest.version,
            backend=request.ref.backend,
            labels=tuple(served.manifest.labels),
            received_ns=request.received_ns,
            decoded_ns=request.decoded_ns,
            tokenized_ns=tokenized_ns,
            outcomes=[outcome for outcome in outcomes if outcome is not None],
        )

    async def _encode(self, served: ServedModel, request: PredictRequest) -> list[Encoding | InvalidInput]:
        texts = [row for row in request.rows if isinstance(row, str)]
        if not texts:
            return [_checked(row, served, request.truncate) for row in request.rows if not isinstance(row, str)]
        too_large = {index: self._too_large(text) for index, text in enumerate(texts)}
        allowed = [text for index, text in enumerate(texts) if too_large[index] is None]
        if sum(map(len, allowed)) > _TOKENIZE_OFF_LOOP_CHARACTERS:
            rows = iter(await asyncio.to_thread(served.encoder.encode, allowed, truncate=request.truncate))
        else:
            rows = iter(served.encoder.encode(allowed, truncate=request.truncate))
        return [too_large[index] or next(rows) for index in range(len(texts))]

    def _too_large(self, text: str) -> InvalidInput | None:
        limit = self._limits.max_text_bytes
        if len(text) * 4 <= limit:  # no character takes more than four bytes
            return None
        size = len(text.encode())
        if size <= limit:
            return None
        return InputTooLong(f"the text has {size} bytes, at most {limit} are taken: shorten it")

    def _has_backend(self, model: str, backend: str | None) -> bool:
        return any(one.name == backend for one in self.models[model].batcher.backends)


def probabilities(output: str, activation: str) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Return what turns an artifact's outputs `[batch, labels]` into probabilities of the same shape."""
    if output == "probabilities":
        return lambda outputs: outputs
    return _softmax if activation == "softmax" else _sigmoid


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: NDArray[np.float32] = exponentials / exponentials.sum(axis=1, keepdims=True)
    return result


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    # exp of a negative number only: it cannot overflow
    exponentials = np.exp(-np.abs(logits))
    result = np.where(logits >= 0, 1.0, exponentials) / (1.0 + exponentials)
    return result.astype(np.float32, copy=False)


def _checked(ids: Ids, served: ServedModel, truncate: bool) -> Encoding | InvalidInput:
    """Hold a row of ids that the caller made against the model: a bad one would fail its whole batch."""
    manifest = served.manifest
    if len(ids) == 0:
        return InvalidInput("the row has no tokens: its length must be at least 1")
    if len(ids) > manifest.max_tokens and not truncate:
        return InputTooLong(
            f"the row has {len(ids)} tokens, the model's maximum is {manifest.max_tokens}: "
            "shorten it, or ask for truncation"
        )
    kept = ids[: manifest.max_tokens]
    if kept.min() < 0 or kept.max() >= manifest.vocabulary:
        bad = int(kept[(kept < 0) | (kept >= manifest.vocabulary)][0])
        return InvalidInput(f"token id {bad} is outside the vocabulary, 0 to {manifest.vocabulary - 1}")
    return Encoding(kept, truncated=len(kept) < len(ids))


def _raise_first(outcomes: Sequence[object]) -> None:
    for index, outcome in enumerate(outcomes):
        if isinstance(outcome, LockstepError):
            raise type(outcome)(f"row {index}: {outcome.message}")
