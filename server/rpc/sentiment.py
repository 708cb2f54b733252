"""sentiment.v1.SentimentService on the wire: protobuf <-> core types, nothing more."""

from __future__ import annotations

import functools

import grpc

from protos import sentiment_pb2 as pb
from server.core.errors import InvalidInput, LockstepError
from server.core.messages import ModelRef, Outcome, Prediction, PredictRequest
from server.core.timing import now_ns
from server.gateway import Gateway
from server.rpc.status import STATUS, CallInstants, parse, unary
from server.rpc.stream import CancelRequest, Opened, Refused, Streams, retry_after_ms

SERVICE = "sentiment.v1.SentimentService"


class SentimentService:
    """The service over a gateway."""

    def __init__(self, gateway: Gateway, max_stream_messages: int) -> None:
        self._gateway = gateway
        self.streams = Streams("ClassifyStream", gateway, _StreamDialect(), max_stream_messages)

    def handler(self) -> grpc.GenericRpcHandler:
        """Return what a server needs to route calls here."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Classify": unary("Classify", pb.ClassifyRequest, self.classify),
                "ClassifyStream": self.streams.handler(),
            },
        )

    async def classify(self, request: pb.ClassifyRequest, instants: CallInstants) -> pb.ClassifyResponse:
        """Answer each text on its own."""
        return _response(request.id, await self._gateway.predict(_predict_request(request, instants)))


class _StreamDialect:
    """The messages of ClassifyStream."""

    def open(self, payload: bytes, received_ns: int) -> Opened | Refused | CancelRequest:
        """Read a StreamRequest."""
        message = parse(pb.StreamRequest, payload)
        kind = message.WhichOneof("message")
        if kind == "cancel":
            return CancelRequest(message.cancel)
        request = message.classify
        if kind is None or message.timeout_us < 0:
            what = "neither classify nor cancel is set" if kind is None else "timeout_us is negative"
            return Refused(request.id, _stream_error(request.id, InvalidInput(what)))
        deadline_ns = received_ns + message.timeout_us * 1000 if message.timeout_us else None
        return Opened(
            id=request.id,
            request=_predict_request(request, CallInstants(received_ns, now_ns(), deadline_ns)),
            answer=functools.partial(_stream_answer, request.id),
            error=functools.partial(_stream_error, request.id),
        )


def _stream_answer(request_id: str, prediction: Prediction) -> bytes:
    return pb.StreamResponse(id=request_id, response=_response(request_id, prediction)).SerializeToString()


def _stream_error(request_id: str, error: LockstepError) -> bytes:
    return pb.StreamResponse(id=request_id, error=_error(error)).SerializeToString()


def _predict_request(request: pb.ClassifyRequest, instants: CallInstants) -> PredictRequest:
    return PredictRequest(
        ref=ModelRef.parse(request.model),
        rows=request.texts,
        received_ns=instants.received_ns,
        decoded_ns=instants.decoded_ns,
        truncate=request.truncate,
        priority=request.priority,
        deadline_ns=instants.deadline_ns,
    )


def _response(request_id: str, prediction: Prediction) -> pb.ClassifyResponse:
    return pb.ClassifyResponse(
        model=prediction.model,
        version=prediction.version,
        id=request_id,
        labels=prediction.labels,
        results=[_result(prediction, outcome) for outcome in prediction.outcomes],
    )


def _result(prediction: Prediction, outcome: Outcome) -> pb.Result:
    if isinstance(outcome, LockstepError):
        return pb.Result(error=_error(outcome))
    batch = outcome.batch
    phases = prediction.phases(outcome)
    return pb.Result(
        prediction=pb.Prediction(
            label=prediction.labels[outcome.label],
            probabilities=outcome.probabilities,
            truncated=outcome.encoding.truncated,
            tokens=len(outcome.encoding.ids),
            backend=batch.backend,
            phases=pb.Phases(
                decode_us=phases.decode // 1000,
                tokenize_us=phases.tokenize // 1000,
                queue_us=phases.queue // 1000,
                pad_us=phases.pad // 1000,
                transfer_us=phases.transfer // 1000,
                execute_us=phases.execute // 1000,
                respond_us=phases.respond // 1000,
            ),
            batch_rows=batch.rows,
            batch_tokens=batch.length,
        )
    )


def _error(error: LockstepError) -> pb.Error:
    code = STATUS[type(error)].value[0]
    return pb.Error(kind=type(error).__name__, code=code, message=error.message, retry_after_ms=retry_after_ms(error))
