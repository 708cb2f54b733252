"""How the server's errors reach a caller over HTTP: a total table, and the one place that applies it.

::

    InvalidInput                       400
    InputTooLong, MessageTooLarge      413
    ModelNotFound, BackendNotFound     404
    LoadFailed                         409
    ModelNotReady, BackendUnavailable  503   may be retried
    Overloaded                         429   may be retried after Retry-After
    DeadlineExceeded                   504
    Cancelled                          499   the caller has gone: nobody reads it
    NotAuthenticated                   401
    NotPermitted                       403
    RowFailed, anything else           500   with a request id; no internals

The body is `{"error": {"kind": ..., "message": ...}}`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping

from aiohttp import web
from aiohttp.typedefs import Handler

from lockstep.server.core.errors import (
    BackendNotFound,
    BackendUnavailable,
    Cancelled,
    DeadlineExceeded,
    InputTooLong,
    InvalidInput,
    LoadFailed,
    LockstepError,
    MessageTooLarge,
    ModelNotFound,
    ModelNotReady,
    NotAuthenticated,
    NotPermitted,
    Overloaded,
    RowFailed,
)
from lockstep.server.core.request_id import request_id

STATUS: Mapping[type[LockstepError], int] = {
    InvalidInput: 400,
    InputTooLong: 413,
    MessageTooLarge: 413,
    ModelNotFound: 404,
    BackendNotFound: 404,
    LoadFailed: 409,
    ModelNotReady: 503,
    BackendUnavailable: 503,
    RowFailed: 500,
    Overloaded: 429,
    DeadlineExceeded: 504,
    Cancelled: 499,
    NotAuthenticated: 401,
    NotPermitted: 403,
}

GONE = STATUS[Cancelled]
_log = logging.getLogger("lockstep.web")


def answering_errors(handler: Handler) -> Handler:
    """Return a handler that answers errors as JSON; one that is our fault is logged under the request id it names."""

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except LockstepError as error:
            return refusal(error)
        except web.HTTPException:
            raise
        except Exception as error:
            found = request_id()
            _log.error("%s %s failed unexpectedly", request.method, request.path, exc_info=error)
            return answer(500, "Internal", f"internal error; the server's log tells more under request id {found}")

    return handle


def refusal(error: LockstepError) -> web.Response:
    """Return an error's answer; an overload says how long the caller should pause."""
    response = answer(STATUS[type(error)], type(error).__name__, error.message)
    if isinstance(error, Overloaded):
        response.headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    return response


def answer(status: int, kind: str, message: str) -> web.Response:
    """Return the answer to a call that failed."""
    return web.json_response({"error": {"kind": kind, "message": message}}, status=status)
