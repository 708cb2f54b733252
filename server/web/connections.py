"""A connection of the HTTP port: what its caller is told where aiohttp cannot make a request of the bytes.

No page and no middleware hears of those. They are the caller's mistake, made before any token was looked at: a line of
the access log where it is on, and no traceback, with which anybody could fill the disk.
"""

from __future__ import annotations

import logging
from typing import Any

from aiohttp import web

from lockstep.server.core.request_id import request_id
from lockstep.server.web.failures import answer
from lockstep.server.web.headers import add_headers

_log = logging.getLogger("lockstep.web")
_LONGEST_REASON = 200


class Connection(web.RequestHandler):
    """aiohttp's connection, with our words for what goes wrong outside of every handler."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Return the answer, after which the connection is closed."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer had begun: another cannot follow it")
        if status < 500:
            reason = " ".join((message or "").split())[:_LONGEST_REASON]
            response = answer(status, "InvalidInput", f"the request cannot be read as HTTP: {reason}")
        else:
            _log.error("%s %s failed unexpectedly", request.method, request.path, exc_info=exc)
            response = answer(
                status, "Internal", f"internal error; the server's log tells more under request id {request_id()}"
            )
        add_headers(response)
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Log what happened after an answer, unless it is that the rest of a body could not be read."""
        if not isinstance(kw.get("exc_info"), web.RequestPayloadError):
            super().log_exception(*args, **kw)
