"""The page's calls: JSON faces of the use cases. Owns what a call must name, and how large it may be."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from aiohttp import web

from lockstep.server.backend_comparison import CompareRequest, Comparison, compare
from lockstep.server.core.errors import InvalidInput, LockstepError, Overloaded
from lockstep.server.core.messages import ModelRef
from lockstep.server.core.timing import now_ns
from lockstep.server.gateway import Gateway
from lockstep.server.inference_statistics import Statistics
from lockstep.server.latency_report import latency_report
from lockstep.server.latency_window import Recent
from lockstep.server.listing import list_models
from lockstep.server.web import documents
from lockstep.server.web.failures import answering_errors
from lockstep.server.web.posts import BodyLimit, JsonCall, read_call

LIVE_WINDOW_S = 10.0
_COMPARE_S = 100.0
"""Long: backends that do not run are started first, and a framework takes its time."""
_ESCAPED = 6
"""Bytes of JSON that one byte of text can take: `\\u0000`."""
_BESIDE_THE_TEXT_BYTES = 4_096


class CompareCall(JsonCall):
    """What `/api/compare` takes."""

    model: str = ""
    text: str
    truncate: bool = False


@dataclass(frozen=True, slots=True)
class Calls:
    """The calls, over what they tell of."""

    gateway: Gateway
    statistics: Statistics
    recent: Recent
    max_text_bytes: int
    limit_reached: Callable[[str], None]

    def routes(self) -> Sequence[web.RouteDef]:
        """Return their routes."""
        return [
            web.post("/api/compare", answering_errors(self.compare)),
            web.get("/api/models", answering_errors(self.models)),
            web.get("/api/latency", answering_errors(self.latency)),
            web.get("/api/live", answering_errors(self.live)),
        ]

    async def compare(self, request: web.Request) -> web.Response:
        """Ask every backend of a model for one text."""
        received_ns = now_ns()
        most_bytes = _ESCAPED * self.max_text_bytes + _BESIDE_THE_TEXT_BYTES
        limit = BodyLimit(most_bytes, "max_text_bytes", self.max_text_bytes, self.limit_reached)
        call = await read_call(request, CompareCall, limit)
        comparison = await compare(
            self.gateway,
            CompareRequest(
                model=call.model,
                texts=[call.text],
                backends=(),
                received_ns=received_ns,
                decoded_ns=now_ns(),
                truncate=call.truncate,
                deadline_ns=received_ns + int(_COMPARE_S * 1e9),
            ),
        )
        if (error := _common_error(comparison)) is not None:
            raise error
        return documents.response(documents.comparison(comparison))

    async def models(self, request: web.Request) -> web.Response:
        """Tell every model and backend, what is not served, and what the page must know of the server."""
        listed = list_models(self.gateway)
        return documents.response(
            {
                "models": listed.models,
                "refused": listed.refused,
                "unloaded": listed.unloaded,
                "ready": self.gateway.ready,
                "limits": {"text_bytes": self.max_text_bytes},
                "time_s": time.monotonic(),  # against which the page holds the CPU time of the workers
            }
        )

    async def latency(self, request: web.Request) -> web.Response:
        """Return how long rows took recently: of all models, or of one, or of one of its backends."""
        query = request.query
        report = await latency_report(
            self.gateway,
            self.recent,
            model=query.get("model", ""),
            backend=query.get("backend", ""),
            window_s=_seconds(query),
            by_length=True,
        )
        return documents.response(report)

    async def live(self, request: web.Request) -> web.Response:
        """Tell what moves, of one model: what the page asks every other second."""
        served = self.gateway.model(ModelRef(request.query.get("model", "")))
        manifest, batcher = served.manifest, served.batcher
        report = await latency_report(
            self.gateway, self.recent, model=manifest.name, backend="", window_s=LIVE_WINDOW_S, by_length=False
        )
        return documents.response(
            {
                "queued_rows": batcher.queued_rows,
                "expected_wait_us": int(batcher.expected_wait_s() * 1e6),
                "batch_sizes": {
                    one.name: self._sizes(manifest.name, manifest.version, one.name) for one in batcher.backends
                },
                "latency": report,
            }
        )

    def _sizes(self, model: str, version: int, backend: str) -> Mapping[str, int]:
        """Return the batches that completed since the server started, by their number of rows."""
        sizes = self.statistics.backend(model, version, backend).sizes
        return {str(rows): size.compute_infer.count for rows, size in sorted(sizes.items())}


def _common_error(comparison: Comparison) -> LockstepError | None:
    """Return what is wrong with the text itself, or with the whole call: then no backend has an answer to show."""
    errors = [documents.failure(one.outcome) for one in comparison.backends]
    first = errors[0]
    same = all(type(one) is type(first) for one in errors)
    return first if first is not None and same and isinstance(first, InvalidInput | Overloaded) else None


def _seconds(query: Mapping[str, str]) -> float:
    try:
        return float(query.get("window_s", "0"))
    except ValueError:
        raise InvalidInput(f"window_s is {query['window_s']!r}: write a number of seconds") from None
