"""Who may use the HTTP port: the tokens of the gRPC port, as a bearer token or as the password of a browser's prompt.

`/healthz` and `/readyz` are open to orchestrators. Knows no page.
"""

from __future__ import annotations

import base64
import binascii

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from server.core.errors import NotAuthenticated
from server.core.tokens import Tokens, bearer

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
_BASIC = "basic "


def guard(tokens: Tokens) -> Middleware:
    """Return the middleware that asks for a token; every role may read and infer."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            tokens.check(presented(request))
            request["known"] = True
        except NotAuthenticated as error:
            request["known"] = False
            if request.path not in OPEN_PATHS:
                raise web.HTTPUnauthorized(
                    text=f"{error.message}\n",
                    headers={"WWW-Authenticate": 'Basic realm="Lockstep: a token as password"'},
                ) from None
        return await handler(request)

    return middleware


def presented(request: web.Request) -> str | None:
    """Return the token that a request carries: a bearer token, or the password of basic authentication."""
    header = request.headers.get("Authorization")
    if header is None or header[: len(_BASIC)].lower() != _BASIC:
        return bearer(header)
    try:
        pair = base64.b64decode(header[len(_BASIC) :], validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    return pair.partition(":")[2]
