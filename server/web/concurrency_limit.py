"""How many calls the HTTP port answers at once: each may hold a body of megabytes. Knows no page."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from lockstep.server.core.errors import Overloaded
from lockstep.server.web.failures import refusal

_FREE = frozenset({"/healthz", "/readyz", "/metrics"})
"""What tells orchestrators and operators that there are too many calls; none has a body that is read."""
_RETRY_S = 1.0


def bounded(most: int, limit_reached: Callable[[str], None]) -> Middleware:
    """Return the middleware that refuses calls beyond `most` at once, before their bodies are read."""
    calls = 0

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        nonlocal calls
        if request.path in _FREE:
            return await handler(request)
        if calls >= most:
            limit_reached("max_http_calls")
            message = f"the server answers {calls} HTTP calls, at most {most} at once (--max-http-calls): retry later"
            return refusal(Overloaded(message, retry_after_s=_RETRY_S, limit="max_http_calls"))
        calls += 1
        try:
            return await handler(request)
        finally:
            calls -= 1

    return middleware
