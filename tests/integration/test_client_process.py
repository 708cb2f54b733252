"""A client and the process and event loop that it belongs to."""

import asyncio
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from lockstep.clients import OtherEventLoop, SentimentClient, SyncClient, Unavailable
from tests.wire_double import ServerDouble, double_in_a_thread

FORK = """
import os, sys
from lockstep import SyncClient
from lockstep.clients import ForkedAfterUse

address, used_before = sys.argv[1], sys.argv[2] == "used"
inherited = SyncClient(address, timeout_s=5)
if used_before:
    inherited.__enter__()
    inherited.classify(["before"])
if os.fork() == 0:
    told = []
    if used_before:
        try:
            inherited.classify(["in the child"])
        except ForkedAfterUse as error:
            told.append(str(error))
    try:
        with SyncClient(address, timeout_s=5) as fresh:
            told.append(fresh.classify(["in the child"])[0].label)
    except ForkedAfterUse as error:
        told.append(str(error))
    print(*told, sep="\\n", flush=True)
    os._exit(0)
os.wait()
if used_before:
    print(inherited.classify(["the parent goes on"])[0].label)
    inherited.__exit__(None, None, None)
"""


def forked(address: str, used: str) -> list[str]:
    words = [sys.executable, "-P", "-c", FORK, address, used]
    # gRPC's own handlers of a fork crash one child in five (SIGSEGV), whatever the child does.
    environment = {**os.environ, "GRPC_ENABLE_FORK_SUPPORT": "0"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_client_in_a_process_that_was_forked_after_its_use_says_so_at_once() -> None:
    with double_in_a_thread() as server:
        inherited, fresh, parent = forked(server.address, "used")
    assert inherited == fresh
    assert "was forked from process" in fresh
    assert "multiprocessing.get_context('spawn')" in fresh
    assert parent == "negative"


def test_a_client_that_is_first_used_after_a_fork_works_in_the_child() -> None:
    with double_in_a_thread() as server:
        assert forked(server.address, "unused") == ["negative"]


def test_a_client_is_refused_in_another_event_loop_than_its_own() -> None:
    with double_in_a_thread() as server:
        client = SentimentClient(server.address)

        async def opened() -> None:
            await client.__aenter__()

        async def closed() -> None:
            await client.__aexit__()

        with asyncio.Runner() as first, asyncio.Runner() as second:
            first.run(opened())
            with pytest.raises(OtherEventLoop, match="open one in each, or use SyncClient"):
                second.run(client.classify(["good"]))
            first.run(closed())


@pytest.mark.parametrize("texts", [["good", None], ["good", float("nan")], ["good", b"bad"]])
async def test_what_is_no_text_is_named_with_its_place_and_type(texts: list[str]) -> None:
    async with ServerDouble() as server, SentimentClient(server.address) as client:
        with pytest.raises(TypeError, match=r"text 1 is .*, of type (NoneType|float|bytes): every text is a str"):
            await client.classify(texts)
        assert server.calls == []


def test_a_port_that_speaks_http_is_told_as_such() -> None:
    http = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    try:
        with SyncClient(f"127.0.0.1:{http.server_port}", timeout_s=5) as client, pytest.raises(Unavailable) as error:
            client.live()
    finally:
        http.shutdown()
        thread.join()
        http.server_close()
    assert "that port does not speak gRPC: is it the HTTP port?" in str(error.value)
