"""How many connections the HTTP port has at once. Knows no page.

aiohttp bounds the size of a request and how long a connection may be idle, and not how many there are.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import cast

from aiohttp import web

_HANDSHAKE_S = 20.0
_BACKLOG = 128


class _Closed(asyncio.Protocol):
    """A connection that is one too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Close it at once."""
        cast("asyncio.Transport", transport).abort()


async def open_door(
    server: web.Server | None, host: str, port: int, *, most: int, ssl_context: ssl.SSLContext | None
) -> asyncio.Server:
    """Listen for a server that was set up; a connection beyond `most` is closed. Raises `OSError`."""
    if server is None:
        raise ValueError("the server was not set up")

    def connection() -> asyncio.Protocol:
        return _Closed() if len(server.connections) >= most else server()

    return await asyncio.get_running_loop().create_server(
        connection,
        host,
        port,
        ssl=ssl_context,
        ssl_handshake_timeout=_HANDSHAKE_S if ssl_context is not None else None,
        backlog=_BACKLOG,
    )
