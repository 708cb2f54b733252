"""The page's files, from the package: read once, served with their types and entity tags. Knows no call.

Files of `vendor/` bear their version in their name and never change; of the others, a browser asks each time whether
it has the newest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import PurePosixPath

from aiohttp import ETag, web

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_PLAIN = "text/plain; charset=utf-8"
_LICENCE = "LICENSE-"
_INDEX = "index.html"
_ASK_EACH_TIME = "private, no-cache"
_NEVER_CHANGES = "private, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class Asset:
    """A file as it is served."""

    body: bytes
    content_type: str
    etag: str
    caching: str

    async def answer(self, request: web.Request) -> web.Response:
        """Return the file, or that the browser has it already."""
        known = any(tag.value in (self.etag, "*") for tag in request.if_none_match or ())
        response = web.Response(status=304) if known else web.Response(body=self.body)
        if not known:
            response.headers["Content-Type"] = self.content_type
        response.headers["Cache-Control"] = self.caching
        response.etag = ETag(self.etag)
        return response


def routes() -> Sequence[web.RouteDef]:
    """Return a route for every file of the page, and `/` for its index. No other path reaches a file."""
    return [web.get("/" if path == _INDEX else f"/{path}", asset.answer) for path, asset in read_assets().items()]


def read_assets() -> Mapping[str, Asset]:
    """Read the page's files; keys are paths below it. Raises `FileNotFoundError` where the package lacks them."""
    found = {path: _asset(path, file.read_bytes()) for path, file in _walk(files("lockstep.server.web") / "page", "")}
    if _INDEX not in found:
        raise FileNotFoundError("the page's files are not in the package: it was built without server/web/page")
    return found


def _walk(folder: Traversable, prefix: str) -> Iterator[tuple[str, Traversable]]:
    for one in folder.iterdir():
        path = f"{prefix}{one.name}"
        if one.is_dir():
            yield from _walk(one, f"{path}/")
        elif one.name.startswith(_LICENCE) or PurePosixPath(path).suffix in _TYPES:
            yield path, one


def _asset(path: str, body: bytes) -> Asset:
    return Asset(
        body=body,
        content_type=_PLAIN if _LICENCE in path else _TYPES[PurePosixPath(path).suffix],
        etag=hashlib.sha256(body).hexdigest()[:24],
        caching=_NEVER_CHANGES if path.startswith("vendor/") else _ASK_EACH_TIME,
    )
