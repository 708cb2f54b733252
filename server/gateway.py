"""The use cases of the server: predict, describe. Knows no wire and no framework.

A call's life here: find the model, check limits (bytes, then tokens), tokenise, queue, wait, answer.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from lockstep.server.core.errors import Cancelled, InputTooLong, InvalidInput, LockstepError, ModelNotFound
from lockstep.server.core.messages import Encoding, Ids, ModelRef, Outcome, Prediction, PredictRequest
from lockstep.server.core.observer import Observer
from lockstep.server.core.timing import now_ns
from lockstep.server.repository.catalog import PublishedModel, Refused
from lockstep.server.repository.manifest import Artifact, Manifest, backend_name
from lockstep.server.scheduling.backend import Backend
from lockstep.server.scheduling.batcher import Batcher
from lockstep.server.scheduling.calls import Call
from lockstep.server.text.encoder import TextEncoder
from lockstep.server.text.long_texts import LongTexts

UNLOADED = "unloaded; it takes no calls until it is loaded again"
"""Why a model is not served that was."""

_TOKENIZE_OFF_LOOP_CHARACTERS = 16_384
"""Longer calls are tokenised in a thread: they would hold up the others for more than a few milliseconds."""


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Bounds of one call."""

    max_rows: int
    max_text_bytes: int
    max_tokenize_characters: int  # of long texts, over all calls


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that is served: what was published, its tokenizer, its queue."""

    published: PublishedModel
    encoder: TextEncoder
    batcher: Batcher
    labels: tuple[str, ...]

    @property
    def manifest(self) -> Manifest:
        """What was published."""
        return self.published.manifest

    def artifact(self, backend: Backend) -> Artifact:
        """Return what a backend of it executes."""
        device, _, _ = backend.spec.launch.budget.device.partition(":")
        name = backend.name if device == "cpu" else backend.name.removesuffix(f"-{device}")
        return next(one for one in self.manifest.artifacts if backend_name(one) == name)


class Gateway:
    """The models of a server, and what can be asked of them.

    `models` is replaced as a whole where it changes, never changed: who goes through it sees one state of it.
    """

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
        self.unloaded: Mapping[str, int] = {}  # the version that was served
        self.beside: tuple[ServedModel, ...] = ()  # have workers and take no calls: they warm up, or drain
        self.restarts_of_gone: Counter[tuple[str, str]] = Counter()  # by model and backend
        self._limits = limits
        self._observer = observer
        self._clock_ns = clock_ns
        self._long_texts = LongTexts(limits.max_tokenize_characters, clock_ns, observer.limit_reached)
        self._draining = False

    def drain(self) -> None:
        """Be ready no more: what was accepted is answered, and others should go elsewhere."""
        self._draining = True

    def close(self) -> None:
        """Tokenise no long text any more."""
        self._long_texts.close()

    def serve(self, fresh: ServedModel) -> ServedModel | None:
        """Let a model take the calls from now on; returns the version that took them until now."""
        name = fresh.manifest.name
        replaced = self.models.get(name)
        self.models = {**self.models, name: fresh}
        self.beside = tuple(one for one in self.beside if one is not fresh)
        self.refused = _without(name, self.refused)
        self.unloaded = _without(name, self.unloaded)
        return replaced

    def unload(self, name: str) -> ServedModel | None:
        """Let a model take no calls any more; returns it, or None where it takes none."""
        served = self.models.get(name)
        if served is not None:
            self.models = _without(name, self.models)
            self.unloaded = {**self.unloaded, name: served.manifest.version}
        return served

    def stand_beside(self, served: ServedModel) -> None:
        """Know of a version that has workers and takes no calls: not yet, or not any more."""
        self.beside = (*self.beside, served)

    def leave(self, served: ServedModel) -> None:
        """Forget a version that stood beside, but for how often its workers were lost."""
        self.beside = tuple(one for one in self.beside if one is not served)
        for backend in served.batcher.backends:
            self.restarts_of_gone[served.manifest.name, backend.name] += backend.restarts

    def refuse(self, refusal: Refused) -> None:
        """Say of a model that is not served why it is not."""
        self.refused = {**self.refused, refusal.name: refusal}
        self.unloaded = _without(refusal.name, self.unloaded)

    @property
    def ready(self) -> bool:
        """Whether models are served, each of them can execute or waits its turn, and the server is not stopping."""
        batchers = [model.batcher for model in self.models.values()]
        able = all(batcher.ready or batcher.waits_its_turn for batcher in batchers)
        return not self._draining and bool(batchers) and able

    @property
    def _only(self) -> ServedModel | None:
        """The model of a server that serves one: it need not be named."""
        return next(iter(self.models.values())) if len(self.models) == 1 else None

    def model(self, ref: ModelRef) -> ServedModel:
        """Find a model; a call that names none gets the only one. Raises `ModelNotFound`."""
        if not ref.model and (only := self._only) is not None:
            return only
        if ref.model in self.refused:
            raise ModelNotFound(f"model {ref.model} was refused: {self.refused[ref.model].reason}")
        served = self.models.get(ref.model)
        if served is None and ref.model in self.unloaded:
            raise ModelNotFound(f"model {ref.model} was {UNLOADED}")
        if served is None:
            known = ", ".join(sorted(self.models)) or "none"
            wanted = f"no model {ref.model!r} is served" if ref.model else "the call names no model"
            raise ModelNotFound(f"{wanted}; served are: {known}")
        if ref.version is not None and ref.version != served.manifest.version:
            raise ModelNotFound(f"{ref.model} is served in version {served.manifest.version}, not {ref.version}")
        return served

    def backend(self, ref: ModelRef) -> Backend:
        """Find the backend that a name pins to. Raises `ModelNotFound`, `BackendNotFound`."""
        return self.model(ref).batcher.backend(ref.backend or "")

    def is_ready(self, ref: ModelRef) -> bool:
        """Whether the model, or the backend that is named, can execute now. Raises as `model` and `backend`."""
        if ref.model in self.unloaded:
            return False
        return self.backend(ref).ready if ref.backend else self.model(ref).batcher.ready

    async def predict(self, request: PredictRequest) -> Prediction:
        """Answer every row of a request.

        A row that is at fault has its error among the outcomes, unless the request is `all_or_none`: then
        the first such row fails the call, and is named. Raises what concerns the whole call: `ModelNotFound`,
        `BackendNotFound`, `ModelNotReady`, `BackendUnavailable`, `Overloaded`, `InvalidInput`. Cancelling it
        takes its waiting rows out of the queue.
        """
        try:
            in_flight = await self._begin_off_loop(request) if self.is_long(request) else self.begin(request)
            try:
                await in_flight.done
            except asyncio.CancelledError:
                in_flight.abandon()
                raise
        except asyncio.CancelledError:
            self.count_failure(request.ref, request.received_ns, Cancelled("the caller has gone"))
            raise
        return in_flight.finish()

    def is_long(self, request: PredictRequest) -> bool:
        """Whether tokenising it would hold up the event loop: then it is for `predict`, not `begin`."""
        rows = request.rows
        if len(rows) > self._limits.max_rows:
            return False  # it is refused at once, and looking at a million rows takes long
        if len(rows) == 1:
            return isinstance(rows[0], str) and len(rows[0]) > _TOKENIZE_OFF_LOOP_CHARACTERS
        return sum(len(row) for row in rows if isinstance(row, str)) > _TOKENIZE_OFF_LOOP_CHARACTERS

    def begin(self, request: PredictRequest) -> InFlight:
        """Tokenise and queue a request at once; raises as `predict` does, what can be known by now."""
        try:
            served = self._checked(request)
            known, texts = self._screened(served, request)
            encoded = served.encoder.encode(texts, truncate=request.truncate) if texts else []
            return self._queue(served, request, _joined(known, encoded))
        except LockstepError as error:
            self.count_failure(request.ref, request.received_ns, error)
            raise

    def count_failure(
        self, ref: ModelRef, received_ns: int, error: LockstepError, served: ServedModel | None = None
    ) -> None:
        """Count a call that failed as a whole, here or where it was read; a caller's inventions do not become labels.

        It counts for the version that had it, `served`, or else would have it now. `predict` and `begin` count what
        they raise.
        """
        served = served or (self._only if not ref.model else self.models.get(ref.model))
        known = served is not None and any(one.name == ref.backend for one in served.batcher.backends)
        self._observer.call_failed(
            model=served.manifest.name if served else "",
            version=served.manifest.version if served else 0,
            backend=ref.backend if known else None,
            kind=type(error).__name__,
            elapsed_ns=self._clock_ns() - received_ns,
        )

    def check_rows(self, rows: int, of: str = "") -> None:
        """Hold the rows of a call against the limit; raises `InvalidInput`. `of` says what they are made of."""
        if not rows:
            raise InvalidInput("the call holds no rows: send at least one")
        if rows > self._limits.max_rows:
            self._observer.limit_reached("max_call_rows")
            raise InvalidInput(
                f"the call holds {rows} rows{of}, at most {self._limits.max_rows} are taken "
                "(--max-call-rows): send fewer a call"
            )

    async def _begin_off_loop(self, request: PredictRequest) -> InFlight:
        try:
            served = self._checked(request)
            known, texts = self._screened(served, request)
            with served.batcher.expecting():  # it answers this call, whatever is loaded meanwhile
                encoded = await self._long_texts.encode(
                    served.encoder, texts, truncate=request.truncate, deadline_ns=request.deadline_ns
                )
                return self._queue(served, request, _joined(known, encoded))
        except LockstepError as error:
            self.count_failure(request.ref, request.received_ns, error)
            raise

    def _checked(self, request: PredictRequest) -> ServedModel:
        served = self.model(request.ref)
        self.check_rows(len(request.rows))
        served.batcher.check_admission(
            len(request.rows),
            backend=request.ref.backend,
            priority=request.priority,
            deadline_ns=request.deadline_ns,
        )
        return served

    def _screened(
        self, served: ServedModel, request: PredictRequest
    ) -> tuple[list[Encoding | InvalidInput | None], list[str]]:
        """Hold rows against what can be known before tokenising: returns that, and the texts of the others."""
        known: list[Encoding | InvalidInput | None] = []
        texts: list[str] = []
        for row in request.rows:
            if not isinstance(row, str):
                known.append(_check_ids(row, served, request.truncate))
            elif (error := self._too_large(row)) is not None:
                known.append(error)
            else:
                known.append(None)
                texts.append(row)
        return known, texts

    def _queue(
        self, served: ServedModel, request: PredictRequest, encoded: Sequence[Encoding | InvalidInput]
    ) -> InFlight:
        tokenized_ns = self._clock_ns()
        if request.all_or_none:
            _raise_first(encoded)
        sound = [row for row in encoded if isinstance(row, Encoding)]
        call = served.batcher.submit(
            sound,
            arrival_ns=tokenized_ns,
            backend=request.ref.backend,
            priority=request.priority,
            deadline_ns=request.deadline_ns,
        )
        return InFlight(self, served, request, encoded, call, tokenized_ns)

    def _too_large(self, text: str) -> InvalidInput | None:
        limit = self._limits.max_text_bytes
        if len(text) * 4 <= limit:  # no character takes more than four bytes
            return None
        size = len(text.encode())
        if size <= limit:
            return None
        self._observer.limit_reached("max_text_bytes")
        return InputTooLong(f"the text has {size} bytes, at most {limit} are taken (--max-text-bytes): shorten it")


class InFlight:
    """A request that is queued: `done` is set when every row has its outcome; then `finish` tells them."""

    def __init__(
        self,
        gateway: Gateway,
        served: ServedModel,
        request: PredictRequest,
        encoded: Sequence[Encoding | InvalidInput],
        call: Call,
        tokenized_ns: int,
    ) -> None:
        self.done = call.done
        self._gateway = gateway
        self._served = served
        self._request = request
        self._encoded = encoded
        self._call = call
        self._tokenized_ns = tokenized_ns

    def abandon(self) -> None:
        """Take its waiting rows out of the queue: nobody waits for them any more."""
        self._served.batcher.abandon(self._call)

    def give_up(self) -> None:
        """Count it as failed, in place of `finish`: its caller went before it was done."""
        gone = Cancelled("the caller has gone")
        self._gateway.count_failure(self._request.ref, self._request.received_ns, gone)

    def finish(self) -> Prediction:
        """Return the outcomes; raises the first row's error where the request is `all_or_none`."""
        request, manifest = self._request, self._served.manifest
        outcomes = _outcomes(self._encoded, self._call)
        if request.all_or_none:
            try:
                _raise_first(outcomes)
            except LockstepError as error:
                self._gateway.count_failure(request.ref, request.received_ns, error, self._served)
                raise
        prediction = Prediction(
            model=manifest.name,
            version=manifest.version,
            backend=request.ref.backend,
            labels=self._served.labels,
            received_ns=request.received_ns,
            decoded_ns=request.decoded_ns,
            tokenized_ns=self._tokenized_ns,
            outcomes=outcomes,
        )
        last = prediction.last()
        self._gateway._observer.call_finished(prediction, last, last and prediction.phases(last))
        return prediction


_Value = TypeVar("_Value")


def _without(name: str, table: Mapping[str, _Value]) -> dict[str, _Value]:
    return {key: value for key, value in table.items() if key != name}


def _outcomes(encoded: Sequence[Encoding | InvalidInput], call: Call) -> list[Outcome]:
    """Return every row's outcome, in order: its own error, or what the call it was queued with came to."""
    answered = [outcome for outcome in call.outcomes if outcome is not None]
    if len(answered) == len(encoded):
        return answered
    found = iter(answered)
    return [next(found) if isinstance(row, Encoding) else row for row in encoded]


def _joined(
    known: Sequence[Encoding | InvalidInput | None], encoded: Sequence[Encoding | InvalidInput]
) -> Sequence[Encoding | InvalidInput]:
    """Return every row's encoding or error, in order: `encoded` are those of which nothing was known."""
    if len(encoded) == len(known):
        return encoded
    found = iter(encoded)
    return [next(found) if one is None else one for one in known]


def _check_ids(ids: Ids, served: ServedModel, truncate: bool) -> Encoding | InvalidInput:
    """Hold a row of ids that the caller made against the model: a bad one would fail its whole batch."""
    manifest = served.manifest
    if len(ids) == 0:
        return InvalidInput("the row has no tokens: its length must be at least 1")
    if len(ids) > manifest.max_tokens and not truncate:
        return InputTooLong(
            f"the row has {len(ids)} tokens, the model's maximum is {manifest.max_tokens}: "
            "shorten it, or ask for truncation"
        )
    most = manifest.max_tokens
    kept = ids[:most] if manifest.truncation_side == "right" else ids[-most:]
    if kept.min() < 0 or kept.max() >= manifest.vocabulary:
        bad = int(kept[(kept < 0) | (kept >= manifest.vocabulary)][0])
        return InvalidInput(f"token id {bad} is outside the vocabulary, 0 to {manifest.vocabulary - 1}")
    return Encoding(kept, truncated=len(kept) < len(ids))


def _raise_first(outcomes: Sequence[object]) -> None:
    for index, outcome in enumerate(outcomes):
        if isinstance(outcome, LockstepError):
            raise outcome.of_row(index)
