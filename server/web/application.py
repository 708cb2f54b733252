"""The HTTP port as a whole: the page, its calls, what machines ask; and the headers that every answer bears."""

from __future__ import annotations

from aiohttp import web
from prometheus_client import CollectorRegistry

from server.web import assets, probes
from server.web.calls import Calls

_HEADERS = {
    # Nothing is loaded from elsewhere, nothing inline runs, nobody frames the page.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Server": "lockstep",  # and not which versions of what
}


def application(calls: Calls, registry: CollectorRegistry) -> web.Application:
    """Return the application."""
    app = web.Application()
    app.on_response_prepare.append(_add_headers)
    app.add_routes([*probes.routes(calls.gateway, registry), *calls.routes(), *assets.routes()])
    return app


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)
    response.headers.setdefault("Cache-Control", "no-store")
