"""What a POST must be before it is read: ours, JSON, and of a size that we take. Knows no call.

A browser sends whatever page it shows to whatever server that page names, with the tokens that it remembers for that
server. So a call is only taken where it says that it comes from our own page, or does not come from a page at all.
"""

from __future__ import annotations

import asyncio
from typing import TypeVar
from urllib.parse import urlsplit

from aiohttp import web
from pydantic import BaseModel, ConfigDict, ValidationError

from server.core.errors import DeadlineExceeded, InvalidInput, MessageTooLarge, NotPermitted

_READ_S = 30
_Call = TypeVar("_Call", bound="JsonCall")


class JsonCall(BaseModel):
    """Base of the calls: no unknown field, no coercion of JSON types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


async def read_call(request: web.Request, call_type: type[_Call], most_bytes: int) -> _Call:
    """Read a call from a request's body; raises `NotPermitted`, `InvalidInput`, `MessageTooLarge`."""
    _check_origin(request)
    if request.content_type != "application/json":  # a form of another site could not send this unasked
        raise InvalidInput(f"the call is of type {request.content_type}: send it as application/json")
    body = await _body(request, most_bytes)
    try:
        return call_type.model_validate_json(body)
    except ValidationError as error:
        raise InvalidInput(f"the call cannot be read: {_first(error)}") from None


async def _body(request: web.Request, most_bytes: int) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(_READ_S):
            async for part in request.content.iter_any():
                body += part
                if len(body) > most_bytes:
                    raise MessageTooLarge(f"the call has more than the {most_bytes} bytes that are taken: send less")
    except TimeoutError:
        raise DeadlineExceeded(f"the call did not arrive within {_READ_S} s") from None
    return bytes(body)


def _check_origin(request: web.Request) -> None:
    """Refuse what another site's page sends. Only the host is compared: a proxy may have ended TLS before us."""
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != request.host:
        raise NotPermitted(f"the call comes from a page of {origin}: only this server's own page may send it")
    if request.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
        raise NotPermitted("the call comes from another site's page: only this server's own page may send it")


def _first(error: ValidationError) -> str:
    """Say what is wrong first, without repeating what was sent."""
    found = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(map(str, found["loc"]))
    return f"{where}: {found['msg']}" if where else found["msg"]
