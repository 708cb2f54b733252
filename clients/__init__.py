"""The client library: `async with SentimentClient("host:port") as client: await client.classify(texts)`.

Needs grpcio and protobuf only. The load test is `clients.loadtest` (the extra `loadtest`).
"""

from clients.client import SentimentClient
from clients.credentials import Credentials
from clients.errors import (
    CallError,
    Cancelled,
    ClientError,
    ClientNotOpen,
    Conflict,
    DeadlineExceeded,
    InvalidInput,
    NotAuthenticated,
    NotFound,
    NotImplementedThere,
    NotPermitted,
    Overloaded,
    RowsFailed,
    ServerFailure,
    Unavailable,
)
from clients.results import (
    Duration,
    ModelMetadata,
    ModelStatistics,
    Phases,
    Prediction,
    Result,
    RowError,
    ServedBackend,
    ServedModel,
    ServerMetadata,
    Tensor,
    raise_for_errors,
)
from clients.retry import RetryPolicy
from clients.sync import SyncSentimentClient

__all__ = [
    "CallError",
    "Cancelled",
    "ClientError",
    "ClientNotOpen",
    "Conflict",
    "Credentials",
    "DeadlineExceeded",
    "Duration",
    "InvalidInput",
    "ModelMetadata",
    "ModelStatistics",
    "NotAuthenticated",
    "NotFound",
    "NotImplementedThere",
    "NotPermitted",
    "Overloaded",
    "Phases",
    "Prediction",
    "Result",
    "RetryPolicy",
    "RowError",
    "RowsFailed",
    "SentimentClient",
    "ServedBackend",
    "ServedModel",
    "ServerFailure",
    "ServerMetadata",
    "SyncSentimentClient",
    "Tensor",
    "Unavailable",
    "raise_for_errors",
]
