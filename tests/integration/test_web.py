"""The HTTP port without a browser: the page's files, what every answer bears, what a call must be."""

import json
import re
import tomllib
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from lockstep.server.core import errors
from lockstep.server.core.errors import LockstepError
from lockstep.server.web.assets import read_assets
from lockstep.server.web.failures import STATUS
from tests import doubles
from tests.serving import Served, eventually, serving


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    doubles.publish(tmp_path, "model")
    async with serving(tmp_path, doubles.ADAPTERS, max_text_bytes=2_000) as one:
        yield one


@pytest.fixture
async def http(served: Served) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(f"http://127.0.0.1:{served.app.http_port}") as session:
        yield session


async def compare(http: aiohttp.ClientSession, call: Any, headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
    """Send a call, JSON unless it is bytes already; returns the status and the answer's document."""
    body = call if isinstance(call, bytes) else json.dumps(call).encode()
    kinds = {"Content-Type": "application/json"} | dict(headers or {})
    async with http.post("/api/compare", data=body, headers=kinds) as response:
        return response.status, await response.json()


def leaves(kind: type[LockstepError]) -> Iterator[type[LockstepError]]:
    for one in kind.__subclasses__():
        if one.__module__ == errors.__name__:
            yield one
            yield from leaves(one)


def test_every_error_of_the_tree_has_its_http_status() -> None:
    assert set(STATUS) == set(leaves(LockstepError))


async def test_every_answer_bears_a_policy_that_lets_nothing_in_from_elsewhere(http: aiohttp.ClientSession) -> None:
    for path in ("/", "/main.js", "/metrics", "/healthz", "/api/models", "/nowhere"):
        async with http.get(path) as response:
            policy = response.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert "Cache-Control" in response.headers
            assert response.headers["Server"] == "lockstep"


async def test_the_pages_files_come_with_their_types_and_are_not_sent_twice(http: aiohttp.ClientSession) -> None:
    types = {"": "text/html", "main.js": "text/javascript", "style.css": "text/css", "icon.svg": "image/svg+xml"}
    vendored = [path for path in read_assets() if path.startswith("vendor/") and path.endswith((".js", ".mjs"))]
    assert len(vendored) == 3
    for path, kind in {**types, **dict.fromkeys(vendored, "text/javascript")}.items():
        async with http.get(f"/{path}") as response:
            assert (response.status, response.content_type) == (200, kind), path
            tag = response.headers["ETag"]
            forever = "immutable" in response.headers["Cache-Control"]
            assert forever == path.startswith("vendor/")
        async with http.get(f"/{path}", headers={"If-None-Match": tag}) as again:
            assert (again.status, await again.read()) == (304, b"")
        async with http.get(f"/{path}", headers={"If-None-Match": '"another"'}) as changed:
            assert changed.status == 200


def test_every_vendored_library_has_its_licence_beside_it_and_its_version_in_its_name() -> None:
    names = [path.removeprefix("vendor/") for path in read_assets() if path.startswith("vendor/")]
    versions = {found[0] for name in names if (found := re.search(r"\w+-\d+\.\d+\.\d+", name.removeprefix("LICENSE-")))}
    assert len(versions) == 3
    for one in versions:
        assert f"LICENSE-{one}" in names


def test_the_package_takes_every_file_of_the_page_along() -> None:
    root = Path(__file__).parents[2]
    settings = tomllib.loads((root / "pyproject.toml").read_text())
    patterns = settings["tool"]["setuptools"]["package-data"]["lockstep.server.web"]
    packed = {path for pattern in patterns for path in (root / "server/web").glob(pattern) if path.is_file()}
    assert packed == {path for path in (root / "server/web/page").rglob("*") if path.is_file()}
    assert {str(path.relative_to(root / "server/web/page")) for path in packed} == set(read_assets())


async def test_no_path_reaches_a_file_beside_the_page(served: Served) -> None:
    async with aiohttp.ClientSession() as session:
        for path in ("/../__init__.py", "/%2e%2e/application.py", "/vendor/../../application.py", "/application.py"):
            url = aiohttp.client.URL(f"http://127.0.0.1:{served.app.http_port}{path}", encoded=True)
            async with session.get(url) as response:
                assert response.status == 404, path


@pytest.mark.parametrize(
    ("headers", "status", "message"),
    [
        ({"Origin": "https://elsewhere.example"}, 403, "only this server's own page"),
        ({"Origin": "null"}, 403, "only this server's own page"),
        ({"Sec-Fetch-Site": "cross-site"}, 403, "only this server's own page"),
        ({"Sec-Fetch-Site": "same-site"}, 403, "only this server's own page"),
        ({"Content-Type": "text/plain"}, 400, "application/json"),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 400, "application/json"),
    ],
)
async def test_what_another_sites_page_could_send_is_refused(
    http: aiohttp.ClientSession, headers: Mapping[str, str], status: int, message: str
) -> None:
    found, document = await compare(http, {"model": "model", "text": "good"}, headers)
    assert found == status
    assert message in document["error"]["message"]


@pytest.mark.parametrize(
    ("call", "status", "kind", "message"),
    [
        (b"{", 400, "InvalidInput", "Invalid JSON"),
        (b'"\xff"', 400, "InvalidInput", "Invalid JSON"),
        (b'{"model": "model", "text": "\\ud800"}', 400, "InvalidInput", "Invalid JSON"),
        (b"[]", 400, "InvalidInput", "object"),
        ({"model": "model"}, 400, "InvalidInput", "text: Field required"),
        ({"model": "model", "text": 1}, 400, "InvalidInput", "text: "),
        ({"model": "model", "text": "good", "beam": 1}, 400, "InvalidInput", "beam: "),
        ({"model": "nowhere", "text": "good"}, 404, "ModelNotFound", "nowhere"),
        ({"model": "model", "text": "good " * 100}, 413, "InputTooLong", "tokens"),
        ({"model": "model", "text": "good " * 401}, 413, "InputTooLong", "2000"),
        ({"model": "model", "text": "x" * 1_000_000}, 413, "MessageTooLarge", "send less"),
    ],
)
async def test_a_call_that_cannot_be_answered_says_what_is_wrong(
    http: aiohttp.ClientSession, call: Any, status: int, kind: str, message: str
) -> None:
    found, document = await compare(http, call)
    assert (found, document["error"]["kind"]) == (status, kind)
    assert message in document["error"]["message"]


async def test_an_overload_says_when_to_come_back(tmp_path: Path) -> None:
    doubles.publish(tmp_path, "model")
    async with (
        serving(tmp_path, doubles.ADAPTERS, max_queue_rows=1) as served,
        aiohttp.ClientSession(f"http://127.0.0.1:{served.app.http_port}") as http,
    ):
        batcher = served.batcher("model")
        batcher.hold()
        waiting = batcher.submit(
            served.app.gateway.models["model"].encoder.encode(["good"], truncate=False), arrival_ns=0
        )
        await eventually(lambda: batcher.queued_rows == 1)
        kinds = {"Content-Type": "application/json"}
        async with http.post("/api/compare", data=b'{"model": "model", "text": "good"}', headers=kinds) as response:
            assert response.status == 429
            assert int(response.headers["Retry-After"]) >= 1
            assert "max_queue_rows" in (await response.text()).replace("-", "_")
        batcher.release()
        await waiting.done


async def test_a_bug_of_ours_shows_no_internals_over_http(
    served: Served, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("an internal name")

    monkeypatch.setattr(served.app.gateway, "model", fail)
    status, document = await compare(http, {"model": "model", "text": "good"}, {"X-Request-Id": "find-me"})
    assert status == 500
    assert "request id find-me" in document["error"]["message"]
    assert "an internal name" not in str(document)
    (record,) = [record for record in caplog.records if record.name == "lockstep.web"]
    assert "an internal name" in str(record.exc_info)
