"""How the HTTP port takes connections, and how many at once. Knows no page.

aiohttp bounds the size of a request and how long a connection may be idle, and not how many there are.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from aiohttp import web

from lockstep.server.core.address import Address
from lockstep.server.web.access_log import HttpAccessLog
from lockstep.server.web.connections import Connection

_HANDSHAKE_S = 20.0
_BACKLOG = 128
_log = logging.getLogger("lockstep.web")


@dataclass(frozen=True, slots=True)
class ListenerPolicy:
    """What is asked of connections."""

    max_connections: int
    keepalive_s: int  # of a connection that is idle, or slow to say what it wants
    access_log: bool
    limit_reached: Callable[[str], None]


class _Closed(asyncio.Protocol):
    """A connection that is one too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Close it at once."""
        cast("asyncio.Transport", transport).abort()


async def listen(
    server: web.Server | None, address: Address, policy: ListenerPolicy, ssl_context: ssl.SSLContext | None
) -> asyncio.Server:
    """Listen for a server that was set up; a connection that is one too many is closed. Raises `OSError`."""
    if server is None:
        raise ValueError("the server was not set up")
    loop = asyncio.get_running_loop()

    def connection() -> asyncio.Protocol:
        if len(server.connections) >= policy.max_connections:
            policy.limit_reached("max_connections")
            return _Closed()
        return Connection(
            server,
            loop=loop,
            keepalive_timeout=policy.keepalive_s,
            logger=_log,
            access_log_class=HttpAccessLog,
            access_log=cast(
                "logging.Logger", _log if policy.access_log else None
            ),  # None is none, whatever the stubs say
        )

    return await loop.create_server(
        connection,
        address.host,
        address.port,
        ssl=ssl_context,
        ssl_handshake_timeout=_HANDSHAKE_S if ssl_context is not None else None,
        backlog=_BACKLOG,
    )
