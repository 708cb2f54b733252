"""Who may use the HTTP port: the tokens of the gRPC port, as a bearer token or as the password of a browser's prompt.

`/healthz` and `/readyz` are open to orchestrators. Knows no page.
"""

from __future__ import annotations

import base64

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from lockstep.server.core.errors import NotAuthenticated
from lockstep.server.core.tokens import Tokens, bearer
from lockstep.server.web.failures import refusal

CALLER = web.RequestKey("caller", str)
"""The name of the token that a request bears."""
OPEN_PATHS = frozenset({"/healthz", "/readyz"})
_BASIC = "basic "


def guard(tokens: Tokens) -> Middleware:
    """Return the middleware that asks for a token; every role may read and infer."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            request[CALLER] = tokens.check(presented(request)).name
        except NotAuthenticated as error:
            if request.path not in OPEN_PATHS:
                return _refusal(request, error)
            answer = await handler(request)
            # the verdict is for everyone, the names of what is ready or not are not
            first = (answer.text or "").partition("\n")[0] if isinstance(answer, web.Response) else ""
            return web.Response(text=f"{first}\n", status=answer.status)
        return await handler(request)

    return middleware


def _refusal(request: web.Request, error: NotAuthenticated) -> web.Response:
    """Ask for a token; a page that asks on its own gets no prompt, which would come back with each of its calls."""
    response = (
        refusal(error) if request.path.startswith("/api/") else web.Response(text=f"{error.message}\n", status=401)
    )
    by_script = request.headers.get("Sec-Fetch-Dest") == "empty"
    response.headers["WWW-Authenticate"] = "Bearer" if by_script else 'Basic realm="Lockstep: a token as password"'
    return response


def presented(request: web.Request) -> str | None:
    """Return the token that a request carries: a bearer token, or the password of basic authentication."""
    header = request.headers.get("Authorization")
    if header is None or header[: len(_BASIC)].lower() != _BASIC:
        return bearer(header)
    try:
        pair = base64.b64decode(header[len(_BASIC) :], validate=True).decode()
    except ValueError:  # no base64, or no text in it
        return None
    return pair.partition(":")[2]
