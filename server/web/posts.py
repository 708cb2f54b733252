"""What a POST must be before it is read: ours, JSON, and of a size that we take. Knows no call.

A browser sends whatever page it shows to whatever server that page names, with the tokens that it remembers for that
server. So a call is only taken where it says that it comes from our own page, or does not come from a page at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

from aiohttp import web
from pydantic import BaseModel, ConfigDict, ValidationError

from lockstep.server.core.errors import DeadlineExceeded, InvalidInput, MessageTooLarge, NotPermitted

_READ_S = 30
_Call = TypeVar("_Call", bound="JsonCall")


class JsonCall(BaseModel):
    """Base of the calls: no unknown field, no coercion of JSON types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


@dataclass(frozen=True, slots=True)
class BodyLimit:
    """How large a body may be, and the setting that it follows from."""

    most_bytes: int
    setting: str  # as the configuration names it
    value: int
    reached: Callable[[str], None]  # hears the setting's name of each body that is larger

    def exceeded(self) -> MessageTooLarge:
        """Count a body that is larger, and return its error."""
        self.reached(self.setting)
        flag = f"--{self.setting.replace('_', '-')} {self.value}"
        return MessageTooLarge(f"the call has more than the {self.most_bytes} bytes that {flag} needs: send less")


async def read_call(request: web.Request, call_type: type[_Call], limit: BodyLimit) -> _Call:
    """Read a call from a request's body; raises `NotPermitted`, `InvalidInput`, `MessageTooLarge`."""
    _check_origin(request)
    if request.content_type != "application/json":  # a form of another site could not send this unasked
        raise InvalidInput(f"the call is of type {request.content_type}: send it as application/json")
    body = await _body(request, limit)
    try:
        return call_type.model_validate_json(body)
    except ValidationError as error:
        raise InvalidInput(f"the call cannot be read: {_first(error)}") from None


async def _body(request: web.Request, limit: BodyLimit) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(_READ_S):
            async for part in request.content.iter_any():
                body += part
                if len(body) > limit.most_bytes:
                    raise limit.exceeded()
    except TimeoutError:
        raise DeadlineExceeded(f"the call did not arrive within {_READ_S} s") from None
    except web.RequestPayloadError as error:
        raise InvalidInput("the call's body is not encoded as its headers say") from error
    return bytes(body)


def _check_origin(request: web.Request) -> None:
    """Refuse what another site's page sends. Only the host is compared: a proxy may have ended TLS before us."""
    origin = request.headers.get("Origin")
    if origin is not None and _host(origin) != request.headers.get("Host"):
        raise NotPermitted(f"the call comes from a page of {origin}: only this server's own page may send it")
    if request.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
        raise NotPermitted("the call comes from another site's page: only this server's own page may send it")


def _host(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:  # brackets that hold no address
        return None


def _first(error: ValidationError) -> str:
    """Say what is wrong first, without repeating what was sent."""
    found = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(map(str, found["loc"]))
    return f"{where}: {found['msg']}" if where else found["msg"]
