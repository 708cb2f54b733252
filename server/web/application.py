"""The HTTP port as a whole: the page, its calls, what machines ask; and what stands before them."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from prometheus_client import CollectorRegistry

from lockstep.server.core import request_id
from lockstep.server.web import assets, probes
from lockstep.server.web.calls import Calls
from lockstep.server.web.headers import add_headers

_REQUEST_ID_HEADER = "X-Request-Id"


def application(calls: Calls, registry: CollectorRegistry, before: Sequence[Middleware]) -> web.Application:
    """Return the application; a request passes what is `before` it in that order."""
    app = web.Application(middlewares=[_adopt_request_id, *before])
    app.on_response_prepare.append(_add_headers)
    app.add_routes([*probes.routes(calls.gateway, registry), *calls.routes(), *assets.routes()])
    return app


@web.middleware
async def _adopt_request_id(request: web.Request, handler: Handler) -> web.StreamResponse:
    if (given := request.headers.get(_REQUEST_ID_HEADER)) is not None:
        request_id.adopt(given)
    return await handler(request)


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    add_headers(response)
