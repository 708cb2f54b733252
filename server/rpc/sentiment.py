"""sentiment.v1.SentimentService on the wire: protobuf <-> core types, nothing more."""

from __future__ import annotations

import grpc

from protos import sentiment_pb2 as pb
from server.core.errors import LockstepError
from server.core.messages import Answer, ModelRef, Outcome, Prediction, PredictRequest
from server.core.timing import Phase
from server.gateway import Gateway
from server.rpc.status import STATUS, CallInstants, unary

SERVICE = "sentiment.v1.SentimentService"


class SentimentService:
    """The service over a gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def handler(self) -> grpc.GenericRpcHandler:
        """Return what a server needs to route calls here."""
        return grpc.method_handlers_generic_handler(
            SERVICE, {"Classify": unary("Classify", pb.ClassifyRequest, self.classify)}
        )

    async def classify(self, request: pb.ClassifyRequest, instants: CallInstants) -> pb.ClassifyResponse:
        """Answer each text on its own."""
        prediction = await self._gateway.predict(
            PredictRequest(
                ref=ModelRef.parse(request.model),
                rows=list(request.texts),
                received_ns=instants.received_ns,
                decoded_ns=instants.decoded_ns,
                truncate=request.truncate,
                priority=request.priority,
                deadline_ns=instants.deadline_ns,
            )
        )
        return pb.ClassifyResponse(
            model=prediction.model,
            version=prediction.version,
            id=request.id,
            labels=prediction.labels,
            results=[_result(prediction, outcome) for outcome in prediction.outcomes],
        )


def _result(prediction: Prediction, outcome: Outcome) -> pb.Result:
    if isinstance(outcome, LockstepError):
        return pb.Result(error=_error(outcome))
    batch = outcome.batch
    return pb.Result(
        prediction=pb.Prediction(
            label=prediction.labels[int(outcome.probabilities.argmax())],
            probabilities=outcome.probabilities.tolist(),
            truncated=outcome.encoding.truncated,
            tokens=len(outcome.encoding.ids),
            backend=batch.backend,
            phases=_phases(prediction, outcome),
            batch_rows=batch.rows,
            batch_tokens=batch.length,
        )
    )


def _phases(prediction: Prediction, answer: Answer) -> pb.Phases:
    durations_ns = prediction.timeline(answer).phases_ns()
    return pb.Phases(**{f"{phase}_us": durations_ns[phase] // 1000 for phase in Phase})


def _error(error: LockstepError) -> pb.Error:
    code = STATUS[type(error)].value[0]
    return pb.Error(kind=type(error).__name__, code=code, message=error.message)
