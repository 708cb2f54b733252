"""sentiment.v1.SentimentService on the wire: protobuf <-> core types, nothing more."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import grpc

from lockstep.protos import sentiment_pb2 as pb
from lockstep.server.backend_comparison import Agreement, CompareRequest, compare
from lockstep.server.core.errors import InvalidInput, LockstepError
from lockstep.server.core.messages import Answer, ModelRef, Prediction, PredictRequest
from lockstep.server.core.timing import now_ns
from lockstep.server.gateway import Gateway
from lockstep.server.latency_report import latency_report
from lockstep.server.latency_window import Recent
from lockstep.server.listing import list_models
from lockstep.server.rpc.reports import latency_response, models_response
from lockstep.server.rpc.status import STATUS, CallInstants, parse, told, unary
from lockstep.server.rpc.stream import CancelRequest, Opened, Refused, StreamLimits, Streams, retry_after_ms

if TYPE_CHECKING:
    from google.protobuf.internal.containers import RepeatedCompositeFieldContainer

SERVICE = "sentiment.v1.SentimentService"
_MORE = bytes([pb.StreamResponse.MORE_FIELD_NUMBER << 3 | 2])  # its tag: field number, and 2 for "bytes follow"


class SentimentService:
    """The service over a gateway."""

    def __init__(self, gateway: Gateway, recent: Recent, limits: StreamLimits) -> None:
        self._gateway = gateway
        self._recent = recent
        self.streams = Streams("ClassifyStream", gateway, _StreamDialect(gateway), limits)

    def handler(self) -> grpc.GenericRpcHandler:
        """Return what a server needs to route calls here."""
        return grpc.method_handlers_generic_handler(
            SERVICE,
            {
                "Classify": unary("Classify", pb.ClassifyRequest, self.classify),
                "ClassifyStream": self.streams.handler(),
                "Compare": unary("Compare", pb.CompareRequest, self.compare),
                "ListModels": unary("ListModels", pb.ListModelsRequest, self.list_models),
                "LatencyReport": unary("LatencyReport", pb.LatencyReportRequest, self.latency_report),
            },
        )

    async def classify(self, request: pb.ClassifyRequest, instants: CallInstants) -> pb.ClassifyResponse:
        """Answer each text on its own."""
        prediction = await self._gateway.predict(_predict_request(request, instants))
        response = pb.ClassifyResponse()
        _write_response(response, request.id, prediction)
        return response

    async def compare(self, request: pb.CompareRequest, instants: CallInstants) -> pb.CompareResponse:
        """Hold the answers of several backends against each other."""
        comparison = await compare(
            self._gateway,
            CompareRequest(
                model=request.model,
                texts=request.texts,
                backends=request.backends,
                received_ns=instants.received_ns,
                decoded_ns=instants.decoded_ns,
                truncate=request.truncate,
                priority=request.priority,
                deadline_ns=instants.deadline_ns,
            ),
        )
        response = pb.CompareResponse(
            model=comparison.model,
            version=comparison.version,
            labels=comparison.labels,
            reference=comparison.reference or "",
            agreement=_agreement(comparison.agreement),
        )
        for one in comparison.backends:
            entry = response.backends.add(
                backend=one.backend, held_to_float32=one.held_to_float32, agreement=_agreement(one.agreement)
            )
            if isinstance(one.outcome, LockstepError):
                entry.error.CopyFrom(_error(one.outcome))
            else:
                _write_results(entry.results, one.outcome)
        return response

    async def list_models(self, request: pb.ListModelsRequest, instants: CallInstants) -> pb.ListModelsResponse:
        """Describe every model, or one."""
        return models_response(list_models(self._gateway, request.model))

    async def latency_report(
        self, request: pb.LatencyReportRequest, instants: CallInstants
    ) -> pb.LatencyReportResponse:
        """Report how long rows took recently."""
        report = await latency_report(
            self._gateway,
            self._recent,
            model=request.model,
            backend=request.backend,
            window_s=request.window_s,
            by_length=True,
        )
        return latency_response(report)


class _StreamDialect:
    """The messages of ClassifyStream."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def open(self, payload: bytes, received_ns: int) -> Opened | Refused | CancelRequest:
        """Read a StreamRequest; one that cannot be read is a failed call of the model that it names."""
        message = parse(pb.StreamRequest, payload)
        kind = message.WhichOneof("message")
        if kind == "cancel":
            return CancelRequest(message.cancel)
        request = message.classify
        if kind is None or message.timeout_us < 0:
            what = "neither classify nor cancel is set" if kind is None else "timeout_us is negative"
            return self._refused(request, received_ns, InvalidInput(what))
        deadline_ns = received_ns + message.timeout_us * 1000 if message.timeout_us else None
        try:
            predict = _predict_request(request, CallInstants(received_ns, now_ns(), deadline_ns))
        except InvalidInput as error:
            return self._refused(request, received_ns, error)
        return Opened(
            id=request.id,
            request=predict,
            answer=functools.partial(_stream_answer, request.id),
            error=functools.partial(_stream_error, request.id),
            join=_together if message.together else None,
        )

    def _refused(self, request: pb.ClassifyRequest, received_ns: int, error: InvalidInput) -> Refused:
        self._gateway.count_failure(ModelRef(request.model.partition("@")[0]), received_ns, error)
        return Refused(request.id, _stream_error(request.id, error))


def _together(answers: Sequence[bytes]) -> bytes:
    """Put all answers but the first into its `more`: bytes that follow a message are further fields of it."""
    first, *others = answers
    return first + b"".join(_MORE + _varint(len(other)) + other for other in others)


def _varint(number: int) -> bytes:
    """Encode a length as protobuf does: seven bits a byte, the lowest first."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _stream_answer(request_id: str, prediction: Prediction) -> bytes:
    message = pb.StreamResponse(id=request_id)
    _write_response(message.response, request_id, prediction)
    return message.SerializeToString()


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


def _write_response(response: pb.ClassifyResponse, request_id: str, prediction: Prediction) -> None:
    """Fill a response in place: half the cost of building it of its parts, and this is done for every call."""
    response.model = prediction.model
    response.version = prediction.version
    response.id = request_id
    response.labels.extend(prediction.labels)
    _write_results(response.results, prediction)


def _write_results(results: RepeatedCompositeFieldContainer[pb.Result], prediction: Prediction) -> None:
    for outcome in prediction.outcomes:
        result = results.add()
        if isinstance(outcome, LockstepError):
            result.error.CopyFrom(_error(outcome))
        else:
            _write_prediction(result.prediction, prediction, outcome)


def _write_prediction(row: pb.Prediction, prediction: Prediction, answer: Answer) -> None:
    batch, duration_ns = answer.batch, prediction.phases(answer)
    row.label = prediction.labels[answer.label]
    row.probabilities.extend(answer.probabilities)
    row.truncated = answer.encoding.truncated
    row.tokens = len(answer.encoding.ids)
    row.backend = batch.backend
    row.batch_rows = batch.rows
    row.batch_tokens = batch.length
    phases = row.phases
    phases.decode_us = duration_ns.decode // 1000
    phases.tokenize_us = duration_ns.tokenize // 1000
    phases.queue_us = duration_ns.queue // 1000
    phases.pad_us = duration_ns.pad // 1000
    phases.transfer_us = duration_ns.transfer // 1000
    phases.execute_us = duration_ns.execute // 1000
    phases.respond_us = duration_ns.respond // 1000


def _agreement(agreement: Agreement) -> pb.Agreement:
    return pb.Agreement(
        texts=agreement.texts,
        largest_difference=agreement.largest_difference,
        labels_differ=agreement.labels_differ,
    )


def _error(error: LockstepError) -> pb.Error:
    code = STATUS[type(error)].value[0]
    return pb.Error(kind=type(error).__name__, code=code, message=told(error), retry_after_ms=retry_after_ms(error))
