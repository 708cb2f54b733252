"""What strangers send the HTTP port: it is their mistake, they learn no version, and the log stays quiet."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests import doubles
from tests.integration.test_security import tokens_text
from tests.serving import Served, serving


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    doubles.publish(tmp_path, "model")
    async with serving(tmp_path, doubles.ADAPTERS, http_names="models.example, other.example") as one:
        yield one


async def exchange(served: Served, sent: bytes) -> tuple[int, str]:
    """Send bytes on a connection of their own; returns the status of the answer, and the whole of it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.app.http_port)
    try:
        writer.write(sent)
        answer = (await reader.read()).decode("latin-1")
    finally:
        writer.close()
        await writer.wait_closed()
    return int(answer.split(" ")[1]), answer


def request(path: str = "/healthz", *headers: str, host: str = "localhost", body: bytes = b"") -> bytes:
    method = "POST" if body else "GET"
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close", *headers]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


NO_REQUESTS = {
    "no request line": b"hello\r\n\r\n",
    "TLS": bytes.fromhex("16030100c8010000c40303") + b"x" * 193,
    "a header of 9 kB": request("/healthz", f"X-Much: {'a' * 9_000}"),
    "a path of 9 kB": request(f"/{'a' * 9_000}"),
    "many headers": request("/healthz", *(f"X-{number}: a" for number in range(200))),
    "two hosts": request("/healthz", "Host: localhost"),
    "a target that is no URL": request("http://[::1/"),
    "a chunk of no size": request("/api/compare", "Transfer-Encoding: chunked") + b"zz\r\nabc\r\n",
    "an encoding of another world": request("/api/compare", "Content-Encoding: br", body=b"z"),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("what", NO_REQUESTS)
async def test_bytes_that_are_no_request_are_answered_in_our_words_and_not_logged(
    served: Served, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.clear()
    status, answer = await exchange(served, NO_REQUESTS[what])
    assert status == 400
    assert "the request cannot be read as HTTP" in answer
    assert "\r\nServer: lockstep\r\n" in answer
    assert "\r\nX-Content-Type-Options: nosniff\r\n" in answer
    assert "aiohttp" not in answer
    assert caplog.records == []


MISTAKES = {
    "an origin that is no URL": (request("/api/compare", "Origin: http://[::1", body=b"{}"), 403, "own page"),
    "a body that is no gzip": (request("/api/compare", "Content-Encoding: gzip", body=b"z" * 9), 400, "not encoded"),
    "a version that is none": (
        request("/metrics", "Accept: application/openmetrics-text; version=x"), 400, "Accept header",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", MISTAKES)
async def test_what_is_wrong_with_a_request_is_the_callers_mistake_and_not_ours(
    served: Served, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.clear()
    sent, status, message = MISTAKES[what]
    found, answer = await exchange(served, sent)
    assert found == status
    assert message in answer
    assert caplog.records == []


async def test_a_body_that_nobody_reads_may_be_anything(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    caplog.clear()
    assert (await exchange(served, request("/api/models", "Content-Encoding: gzip", body=b"zz")))[0] == 405
    assert caplog.records == []


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8002", "127.0.0.1:1", "[::1]:8002", "192.0.2.7", "models.example", "Other.Example.:80"],
)
async def test_a_server_of_this_machine_answers_to_its_own_names(served: Served, host: str) -> None:
    assert (await exchange(served, request("/api/models", host=host)))[0] == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8002", "", "[x]"])
async def test_a_page_whose_name_was_bound_to_this_machine_gets_nothing(served: Served, host: str) -> None:
    for path in ("/api/models", "/", "/metrics", "/healthz", "/nowhere"):
        status, answer = await exchange(served, request(path, host=host))
        assert status == 403, path
        assert "--http-names" in answer
    own = request("/api/compare", f"Origin: http://{host}", host=host, body=b'{"text": "good"}')
    assert (await exchange(served, own))[0] == 403


async def test_a_server_for_everybody_answers_to_every_name(tmp_path: Path) -> None:
    doubles.publish(tmp_path, "model")
    async with serving(tmp_path, doubles.ADAPTERS, http="0.0.0.0:0") as served:
        assert (await exchange(served, request(host="models.example")))[0] == 200


async def test_the_access_log_has_http_calls_too_with_what_no_handler_saw(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    doubles.publish(tmp_path, "model")
    tokens = tmp_path / "tokens"
    tokens.write_text(tokens_text(alice="infer"))
    async with serving(tmp_path, doubles.ADAPTERS, access_log=True, tokens=tokens) as served:
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="lockstep.access"):
            mine = ("Authorization: Bearer alice-secret", "X-Request-Id: mine-7")
            await exchange(served, request("/api/compare", *mine, body=b'{"model": "model", "text": "good"}'))
            await exchange(served, request("/api/compare", *mine, body=b'{"model": "nowhere", "text": "good"}'))
            await exchange(served, request("/api/models"))
            await exchange(served, request("/api/models", host="evil.example"))
            await exchange(served, b"hello\r\n\r\n")
        lines = [record.__dict__["fields"] for record in caplog.records if record.name == "lockstep.access"]
    found = [(line["method"], line["status"], line["caller"], line["model"], line["rows"]) for line in lines]
    assert found == [
        ("POST /api/compare", 200, "alice", "model", 2),
        ("POST /api/compare", 404, "alice", "", 0),
        ("GET /api/models", 401, "", "", 0),
        ("GET /api/models", 403, "", "", 0),
        ("UNKNOWN /", 400, "", "", 0),
    ]
    assert [line["request_id"] == "mine-7" for line in lines] == [True, True, False, False, False]
    assert all(line["peer"].startswith("ipv4:127.0.0.1:") and line["ms"] > 0 for line in lines)
