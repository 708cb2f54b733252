"""What must hold whatever comes: it is read, or refused by an error of the tree whose text is short. Nothing else.

Each property takes a case from its strategy and raises where the promise is broken.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.message import Message
from hypothesis import strategies as st

from lockstep.protos import open_inference_pb2 as oip
from lockstep.protos import sentiment_pb2 as pb
from lockstep.server.app import App
from lockstep.server.config import ServerConfig
from lockstep.server.core.errors import Cancelled, InvalidInput, LockstepError, NotAuthenticated, Overloaded
from lockstep.server.core.messages import Encoding, ModelRef, PredictRequest
from lockstep.server.core.timing import now_ns
from lockstep.server.core.tokens import Tokens, bearer
from lockstep.server.rpc import inference, sentiment
from lockstep.server.rpc.status import STATUS, CallInstants, parse
from lockstep.server.rpc.stream import CancelRequest, Dialect, Opened, Refused
from lockstep.server.scheduling.batcher import Batcher
from lockstep.server.text.encoder import TextEncoder
from tests import doubles
from tests.fuzz import requests

_MOST_MESSAGE_BYTES = 2_010
_ANSWERS_BYTES = (0, 1, 100, 127, 128, 200, 16_383, 16_384, 70_000)


@dataclass(frozen=True)
class Property:
    """A promise, and where its cases come from."""

    cases: st.SearchStrategy[Any]
    holds: Callable[[Any], None]
    of_bytes: bool = False  # a case is bytes: a fuzzer of bytes can drive it too


@contextmanager
def properties() -> Iterator[Mapping[str, Property]]:
    """Yield the properties by name, over a server that is made and never started: nothing is executed."""
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner() as runner:
        doubles.publish(Path(folder) / "models", "model")
        (Path(folder) / "tokens").write_text(f"infer alice sha256:{'0' * 64}\n")
        config = ServerConfig(repository=Path(folder) / "models", state=Path(folder) / "state", max_call_rows=4)
        app = App(config, adapters=doubles.ADAPTERS)
        yield _Promises(app, Tokens(Path(folder) / "tokens"), runner).all()


class _Promises:
    def __init__(self, app: App, tokens: Tokens, runner: asyncio.Runner) -> None:
        self._gateway = app.gateway
        self._served = app.gateway.models["model"]
        self._tokens = tokens
        self._runner = runner

    def all(self) -> Mapping[str, Property]:
        infer = requests.infer_requests().map(_serialized)
        stream = requests.stream_requests().map(_serialized)
        classify = requests.classify_requests().map(_serialized)
        return {
            "ModelInfer": Property(st.one_of(infer, requests.spoiled(infer)), self.model_infer, True),
            "Classify": Property(st.one_of(classify, requests.spoiled(classify)), self.classify, True),
            "ModelStreamInfer": Property(st.one_of(infer, requests.spoiled(infer)), self.model_stream_infer, True),
            "ClassifyStream": Property(st.one_of(stream, requests.spoiled(stream)), self.classify_stream, True),
            "any bytes": Property(st.binary(max_size=200), self.any_bytes, True),
            "texts": Property(st.lists(requests.TEXTS, min_size=1, max_size=4), self.texts),
            "names": Property(requests.MODELS, self.name),
            "answers together": Property(st.lists(st.sampled_from(_ANSWERS_BYTES), min_size=1, max_size=5), _together),
            "authorization": Property(
                st.one_of(st.none(), st.text(), st.text().map(lambda rest: f"Bearer {rest}"), _escaped()), self.token
            ),
        }

    def model_infer(self, payload: bytes) -> None:
        """A unary call: decoded and validated as the service does it."""
        with _refusals():
            request = parse(oip.ModelInferRequest, payload)
            instants = CallInstants(now_ns(), now_ns(), now_ns() + 10**9)
            self._admit(inference._read(self._gateway, request, instants))

    def classify(self, payload: bytes) -> None:
        """The same of sentiment.v1."""
        with _refusals():
            request = parse(pb.ClassifyRequest, payload)
            self._admit(sentiment._predict_request(request, CallInstants(now_ns(), now_ns(), None)))

    def model_stream_infer(self, payload: bytes) -> None:
        """A message of a stream: refused as a message, or with its stream where it is none."""
        self._open(inference._StreamDialect(self._gateway), payload, oip.ModelStreamInferResponse)

    def classify_stream(self, payload: bytes) -> None:
        """The same of sentiment.v1."""
        self._open(sentiment._StreamDialect(self._gateway), payload, pb.StreamResponse)

    def any_bytes(self, payload: bytes) -> None:
        """Every request that the services decode."""
        kinds: list[type[Message]] = [
            oip.ModelInferRequest, oip.ModelMetadataRequest, oip.ModelConfigRequest, oip.ModelStatisticsRequest,
            oip.RepositoryIndexRequest, oip.ModelReadyRequest, pb.ClassifyRequest, pb.StreamRequest,
        ]  # fmt: skip
        for kind in kinds:
            with _refusals(InvalidInput):
                parse(kind, payload)

    def texts(self, texts: list[str]) -> None:
        """A tokenizer's rows are within the model, or errors of their own."""
        encoder: TextEncoder = self._served.encoder
        for truncate in (False, True):
            rows = encoder.encode(texts, truncate=truncate)
            assert len(rows) == len(texts)
            for row in rows:
                assert isinstance(row, (Encoding, InvalidInput))
                if isinstance(row, Encoding):
                    self._fits(row)

    def name(self, name: str) -> None:
        """A name is read as it is written."""
        with _refusals(InvalidInput):
            assert str(ModelRef.parse(name)) == name

    def token(self, authorization: str | None) -> None:
        """What is presented as a token is not one."""
        with _refusals(NotAuthenticated):
            self._tokens.check(bearer(authorization))
            raise AssertionError("a guessed token was let in")

    def _open(self, dialect: Dialect, payload: bytes, answers: type[Message]) -> None:
        try:
            message = dialect.open(payload, now_ns())
        except InvalidInput as error:
            _check(error)
            return
        if isinstance(message, CancelRequest):
            return
        if isinstance(message, Refused):
            answers.FromString(message.answer)
            return
        assert isinstance(message, Opened)
        told = answers.FromString(message.error(Cancelled("x")))
        assert isinstance(told, pb.StreamResponse) or told.infer_response.id == message.id
        with _refusals():
            self._admit(message.request)

    def _admit(self, request: PredictRequest) -> None:
        """Queue a request's rows as the gateway does, look at them, and take them out again."""
        self._gateway.is_long(request)

        async def queue() -> None:
            batcher: Batcher = self._served.batcher
            try:
                in_flight = self._gateway.begin(request)
                for row in batcher._backlog._rows.entries():
                    self._fits(row.encoding)
                in_flight.abandon()
                if in_flight.done.done():
                    in_flight.finish()
            finally:
                assert batcher.queued_rows == 0, "rows were left in the queue"

        self._runner.run(queue())

    def _fits(self, row: Encoding) -> None:
        """No runtime may ever see anything else."""
        assert 1 <= len(row.ids) <= self._served.manifest.max_tokens
        assert row.ids.min() >= 0
        assert row.ids.max() < self._served.manifest.vocabulary


def _serialized(message: Message) -> bytes:
    return message.SerializeToString()


def _escaped() -> st.SearchStrategy[str]:
    """Headers as the HTTP port hands them over: bytes that are no UTF-8 become lone surrogates."""
    return st.binary(max_size=20).map(lambda raw: "Bearer " + raw.decode("utf-8", "surrogateescape"))


@contextmanager
def _refusals(*kinds: type[LockstepError]) -> Iterator[None]:
    expected: type[LockstepError] | tuple[type[LockstepError], ...] = kinds or (LockstepError,)
    try:
        yield
    except expected as error:
        _check(error)


def _check(error: LockstepError) -> None:
    assert type(error) in STATUS
    assert not isinstance(error, Overloaded), f"the queue fills up: {error.message}"
    assert error.message
    assert len(error.message.encode()) <= _MOST_MESSAGE_BYTES


def _together(sizes: list[int]) -> None:
    answers = [pb.StreamResponse(id="x" * size) for size in sizes]
    joined = pb.StreamResponse.FromString(sentiment._together([_serialized(answer) for answer in answers]))
    assert [joined.id, *(one.id for one in joined.more)] == [answer.id for answer in answers]
