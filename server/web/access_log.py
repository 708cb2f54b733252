"""Has the access log follow the HTTP port's calls, those that no handler saw included."""

from __future__ import annotations

import asyncio
from typing import cast

from aiohttp import web
from aiohttp.abc import AbstractAccessLogger
from aiohttp.typedefs import Handler

from lockstep.server import access_log
from lockstep.server.core.timing import now_ns
from lockstep.server.web.failures import GONE
from lockstep.server.web.guard import CALLER


@web.middleware
async def following(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Note what a call comes to, before anything refuses it. aiohttp logs the call when its answer is written."""
    call = access_log.begin()
    try:
        return await handler(request)
    except asyncio.CancelledError:  # nobody is left to answer, so aiohttp has nothing to log
        _end(call, request, GONE)
        raise


class HttpAccessLog(AbstractAccessLogger):
    """Hears from aiohttp of every answer, in the context of its call."""

    def log(self, request: web.BaseRequest, response: web.StreamResponse, time: float) -> None:
        """Write the line; `time` (s) is what it took."""
        call = access_log.current() or access_log.Call(now_ns() - int(time * 1e9))  # no request was made of it
        _end(call, request, response.status)


def _end(call: access_log.Call, request: web.BaseRequest, status: int) -> None:
    method = f"{request.method} {request.path}"
    caller = cast("str", request.get(CALLER, ""))
    access_log.end(call, method=method, status=status, peer=_peer(request), caller=caller)


def _peer(request: web.BaseRequest) -> str:
    """Write the peer as gRPC does."""
    found = request.protocol.peername
    if not isinstance(found, tuple):
        return ""
    host, port = found[:2]
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"
