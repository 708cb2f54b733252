"""Which names a server on the loopback interface answers to: its own. Knows no page.

A stranger's page can have its name resolve to 127.0.0.1 (DNS rebinding), and the browser then takes this server for the
page's own. What it cannot do is send another name than that one as the Host. Addresses of digits resolve to themselves.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from lockstep.server.core.errors import NotPermitted
from lockstep.server.web.failures import refusal


def known_hosts(names: Collection[str]) -> Middleware:
    """Return the middleware that answers requests for `localhost`, IP addresses and these names only."""
    known = frozenset(map(_plain, ["localhost", *names]))

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        host = request.headers.get("Host")  # without one it is HTTP/1.0, and no browser
        if host is not None and (name := _plain(_name(host))) not in known and not _is_address(name):
            return refusal(
                NotPermitted(f"this server does not answer to the name {name!r}: --http-names {name} lets it")
            )
        return await handler(request)

    return middleware


def _name(host: str) -> str:
    """Return the name of `name:port`."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _plain(name: str) -> str:
    return name.lower().removesuffix(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
