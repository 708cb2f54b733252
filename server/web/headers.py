"""The headers that every answer of the HTTP port bears."""

from __future__ import annotations

from aiohttp import web

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


def add_headers(response: web.StreamResponse) -> None:
    """Add them; how an answer may be cached is its own to say."""
    response.headers.update(_HEADERS)
    response.headers.setdefault("Cache-Control", "no-store")
